"""Files that cost more than their pixels are refused for it, quickly and by name."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from chaos import files
from PIL import Image

from konkyo.errors import BrokenImage, ImageTooLarge
from konkyo.image_limits import MAX_READS, MAX_SCANS, MAX_TILES, Pieces, check_scans
from konkyo.imaging import decode, decoding_bytes, open_image

ROOT = Path(__file__).parent.parent
RGB = files.picture(64, 48).convert("RGB")


def test_an_honest_file_of_each_kind_is_read_as_ever() -> None:
    for name, data in files.honest().items():
        if name in ("gif", "ico", "ppm", "tiff-32", "tiff-float"):
            continue
        image = decode(open_image(data)).image
        assert image.mode == "RGB", name
        assert min(image.size) in (24, 28), name


def test_reads_are_counted() -> None:
    file = Pieces(bytes(400 * 5))
    for _ in range(MAX_READS + 5):
        assert file.read(0) == b""
    with pytest.raises(BrokenImage, match="too many pieces"):
        file.read(0)


@pytest.mark.parametrize(
    ("name", "error", "match"),
    [
        ("png of 1.6 million private chunks", BrokenImage, "too many pieces"),
        ("png of 1.6 million empty data chunks", BrokenImage, "too many pieces"),
        ("jpeg of 5 million empty segments", BrokenImage, "too many pieces"),
        ("jpeg of 19 million fill bytes", BrokenImage, "too many pieces"),
        ("jpeg of 1.6 million scans", BrokenImage, "more than 100 scans"),
        ("tiff of a million strips", BrokenImage, "more than 100,000 tiles"),
        ("tiff with a tile of 20000x20000 for 10x10 pixels", ImageTooLarge, "400000000 pixels"),
    ],
)
def test_what_is_made_to_hurt_is_refused(name: str, error: type[Exception], match: str) -> None:
    data = files.hostile()[name]
    with pytest.raises(error, match=match):
        decode(open_image(data))


def test_a_png_in_small_chunks_is_read() -> None:
    """As those encoders make it who write as they compress: chunks of 64 bytes."""
    noise = np.random.default_rng(0).integers(0, 256, (300, 300), np.uint8)
    whole = files.file(Image.fromarray(noise), "PNG")
    start = whole.index(b"IDAT") - 4
    length = struct.unpack(">I", whole[start : start + 4])[0]
    data = whole[start + 8 : start + 8 + length]
    parts = [files.png_chunk(b"IDAT", data[place : place + 64]) for place in range(0, len(data), 64)]
    assert len(parts) > 1000
    cut = whole[:start] + b"".join(parts) + whole[start + 12 + length :]
    np.testing.assert_array_equal(np.asarray(decode(open_image(cut)).image)[..., 0], noise)


# Scans


def test_a_progressive_jpeg_may_have_so_many_scans_and_no_more() -> None:
    data = files.jpeg_of_scans(0, 64)
    own = data.count(b"\xff\xda")
    assert 2 < own < 20
    assert decode(open_image(files.jpeg_of_scans(MAX_SCANS - own, 64))).image.size == (64, 64)
    with pytest.raises(BrokenImage, match="scans"):
        open_image(files.jpeg_of_scans(MAX_SCANS - own + 1, 64))


def test_what_looks_like_a_scan_elsewhere_is_none() -> None:
    """In a thumbnail or a comment before the image, in what a camera appends behind it."""
    jpeg = files.file(RGB, "JPEG")
    comment = b"\xff\xfe" + struct.pack(">H", 2 + 400) + b"\xff\xda\0\2" * 100
    behind = b"\xff\xda\0\2" * 200
    assert decode(open_image(jpeg[:2] + comment + jpeg[2:] + behind)).image.size == RGB.size


def test_an_end_in_a_comment_does_not_hide_the_scans_behind_it() -> None:
    data = files.jpeg_of_scans(2 * MAX_SCANS, 16)
    comment = b"\xff\xfe" + struct.pack(">H", 4) + b"\xff\xd9"
    first = data.index(b"\xff\xda")
    with pytest.raises(BrokenImage, match="scans"):
        check_scans(data[:first] + comment + data[first:])


# Tiles


def test_a_tile_may_be_larger_than_its_image_but_not_than_any() -> None:
    data = files.tiff_of_tiles(10, 10, 64)
    assert decode(open_image(data, max_pixels=4096)).image.size == (10, 10)
    with pytest.raises(ImageTooLarge) as caught:
        open_image(data, max_pixels=4095)
    assert caught.value.detail == {"max_pixels": 4095}


@pytest.mark.parametrize("tag", ["t273", "t324"])
def test_so_many_tiles_and_no_more(tag: str) -> None:
    def image(count: int) -> bytes:
        sides = {"t322": [16], "t323": [16]} if tag == "t324" else {"t278": [1]}
        return files.tiff(bytes(256), t256=[16], t257=[count], **sides, **{tag: [8] * count})

    assert decode(open_image(image(16))).image.size == (16, 16)
    with pytest.raises(BrokenImage, match="tiles or strips"):
        open_image(image(MAX_TILES + 1))


# Memory

KINDS = {
    "PNG RGB": 4, "PNG RGBA": 8, "PNG LA": 8, "PNG L": 5, "PNG 1": 5, "PNG P": 5, "PNG I;16": 6,
    "JPEG RGB": 4, "JPEG L": 5, "JPEG CMYK": 8, "JPEG RGB progressive": 10, "JPEG RGB turned": 8,
    "WEBP RGB": 16, "WEBP RGBA": 20, "BMP RGB": 4, "TIFF RGB": 4, "TIFF RGBA": 8, "TIFF CMYK": 8,
}  # fmt: skip
"""Bytes a pixel by ``decoding_bytes``."""

MEASURE = """
import ctypes, io, sys
from pathlib import Path
from konkyo.imaging import decode, decoding_bytes, open_image

def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

small, large = (Path(name).read_bytes() for name in sys.argv[1:])
decode(open_image(small))
ctypes.CDLL(None).malloc_trim(0)
Path("/proc/self/clear_refs").write_text("5")
before = memory("VmRSS")
opened = open_image(large)
expected = decoding_bytes(opened)
decode(opened)
print(memory("VmHWM") - before, expected)
"""


def _file(kind: str, side: int) -> bytes:
    format_, mode, *more = kind.split()
    cells = np.random.default_rng(0).integers(0, 256, (side // 25, side // 25, 4), np.uint8)
    image = Image.fromarray(cells, "RGBA").resize((side, side), Image.Resampling.NEAREST)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"progressive": True, "subsampling": 0} if "progressive" in more else {}
    return files.file(image.convert(mode), format_, **options, **({"exif": exif} if "turned" in more else {}))


@pytest.mark.parametrize("kind", KINDS)
def test_the_memory_of_decoding_is_known_before(kind: str) -> None:
    assert decoding_bytes(open_image(_file(kind, 50))) == 50 * 50 * KINDS[kind] + 50 * 16


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("kind", ["PNG RGB", "PNG RGBA", "PNG I;16", "JPEG RGB progressive", "WEBP RGBA"])
def test_decoding_takes_no_more_memory_than_that(kind: str, tmp_path: Path) -> None:
    side = 2500
    for name, size in (("small", 50), ("large", side)):
        (tmp_path / name).write_bytes(_file(kind, size))
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "small"), str(tmp_path / "large")],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    took, expected = map(int, run.stdout.split())
    assert expected == side * side * KINDS[kind] + side * 16
    assert took > 3 * side * side  # the measure sees what it should
    assert took <= expected + 6 * files.MEBIBYTE
