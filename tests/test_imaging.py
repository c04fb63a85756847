"""Decoding and geometry, against values worked out by hand."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
import warnings
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from konkyo.errors import BrokenImage, EmptyBody, ImageError, ImageTooLarge, UnsupportedImage
from konkyo.imaging import MAX_PIXELS, Decoded, Geometry, decode, open_image, prepare

UInt8 = npt.NDArray[np.uint8]
LOSSLESS = ("PNG", "WEBP", "BMP", "TIFF")

# Upright, every pixel its own colour: (2, 3, 3).
CORNERS = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 14


def file(image: Image.Image, format_: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    if format_ == "WEBP":
        options = {"lossless": True, "exact": True, **options}
    image.save(out, format_, **options)
    return out.getvalue()


def pixels(data: bytes) -> UInt8:
    return np.asarray(decode(open_image(data)).image)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"\0" * 100))


# Formats and pixel types


@pytest.mark.parametrize("format_", LOSSLESS)
def test_lossless_formats_keep_every_pixel(format_: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    decoded = decode(open_image(file(Image.fromarray(image), format_)))
    assert (decoded.format, decoded.orientation, decoded.image.mode) == (format_, 1, "RGB")
    np.testing.assert_array_equal(np.asarray(decoded.image), image)


def test_jpeg_keeps_a_flat_colour() -> None:
    found = pixels(file(Image.new("RGB", (16, 8), (200, 100, 50)), "JPEG", quality=95))
    assert found.shape == (8, 16, 3)
    assert np.abs(found.astype(int) - [200, 100, 50]).max() <= 2


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_16_bit_grey_spans_black_to_white(format_: str) -> None:
    grey = np.array([[0, 32768, 65535, 256]], np.uint16)
    np.testing.assert_array_equal(pixels(file(Image.fromarray(grey), format_))[0, :, 0], [0, 128, 255, 1])


def test_big_endian_16_bit_tiff() -> None:
    data = Image.frombytes("I;16B", (3, 1), np.array([0, 32768, 65535], ">u2").tobytes())
    np.testing.assert_array_equal(pixels(file(data, "TIFF"))[0, :, 1], [0, 128, 255])


def test_8_bit_grey_and_1_bit() -> None:
    np.testing.assert_array_equal(
        pixels(file(Image.fromarray(np.array([[0, 7, 255]], np.uint8)))), [[[0] * 3, [7] * 3, [255] * 3]]
    )
    bits = Image.new("1", (2, 1))
    bits.putpixel((1, 0), 1)
    np.testing.assert_array_equal(pixels(file(bits)), [[[0] * 3, [255] * 3]])


@pytest.mark.parametrize(("options", "second"), [({}, (0, 0, 200)), ({"transparency": 1}, (255, 255, 255))])
def test_palette(options: dict[str, Any], second: tuple[int, ...]) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 0, 0, 200])
    image.putpixel((1, 0), 1)
    np.testing.assert_array_equal(pixels(file(image, **options)), [[(10, 20, 30), second]])


def test_transparency_is_laid_over_white() -> None:
    # alpha 51 is 0.2: 100 * 0.2 + 255 * 0.8 = 224, and 0 gives 204
    rgba = np.array([[[100, 0, 255, 51], [1, 2, 3, 0], [1, 2, 3, 255]]], np.uint8)
    np.testing.assert_array_equal(
        pixels(file(Image.fromarray(rgba))), [[(224, 204, 255), (255, 255, 255), (1, 2, 3)]]
    )
    grey_alpha = Image.fromarray(np.array([[[100, 51], [9, 255]]], np.uint8), "LA")
    np.testing.assert_array_equal(pixels(file(grey_alpha)), [[[224] * 3, [9] * 3]])


def test_a_transparent_grey_or_colour_value_becomes_white() -> None:
    grey = Image.fromarray(np.array([[40, 41]], np.uint8))
    np.testing.assert_array_equal(pixels(file(grey, transparency=40)), [[[255] * 3, [41] * 3]])
    colour = Image.fromarray(np.array([[[1, 2, 3], [1, 2, 4]]], np.uint8))
    np.testing.assert_array_equal(pixels(file(colour, transparency=(1, 2, 3))), [[(255,) * 3, (1, 2, 4)]])


def test_cmyk() -> None:
    # Without inks paper is white; full black ink is black; cyan takes red away.
    image = Image.fromarray(np.array([[[0, 0, 0, 0], [0, 0, 0, 255], [255, 0, 0, 0]]], np.uint8), "CMYK")
    np.testing.assert_array_equal(pixels(file(image, "TIFF")), [[(255,) * 3, (0,) * 3, (0, 255, 255)]])


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "TIFF"])
def test_of_several_frames_the_first_counts(format_: str) -> None:
    first, second = Image.new("RGB", (4, 4), (255, 0, 0)), Image.new("RGB", (4, 4), (0, 255, 0))
    data = file(first, format_, save_all=True, append_images=[second])
    np.testing.assert_array_equal(pixels(data), np.asarray(first))


# Orientation

STORED = {
    1: lambda up: up,
    2: lambda up: up[:, ::-1],
    3: lambda up: up[::-1, ::-1],
    4: lambda up: up[::-1],
    5: lambda up: up.transpose(1, 0, 2),
    6: lambda up: np.rot90(up, 1),  # stored a quarter turn anticlockwise, to be shown clockwise
    7: lambda up: np.rot90(up, 2).transpose(1, 0, 2),
    8: lambda up: np.rot90(up, -1),
}


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_comes_out_upright(orientation: int, format_: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](CORNERS)))
    decoded = decode(open_image(file(stored, format_, exif=exif)))
    np.testing.assert_array_equal(np.asarray(decoded.image), CORNERS)
    assert decoded.orientation == orientation


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_upright(value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    decoded = decode(open_image(file(Image.fromarray(CORNERS), exif=exif)))
    np.testing.assert_array_equal(np.asarray(decoded.image), CORNERS)
    assert decoded.orientation == 1


def test_damaged_exif_does_not_cost_the_photo() -> None:
    whole = file(Image.new("RGB", (8, 8), "red"))
    damaged = whole[:33] + png_chunk(b"eXIf", b"II*\0" + b"\xff" * 9) + whole[33:]
    with warnings.catch_warnings(action="ignore"):
        decoded = decode(open_image(damaged))
    assert decoded.orientation == 1
    assert decoded.image.getpixel((0, 0)) == (255, 0, 0)


# What is refused


def test_nothing_is_refused_as_empty() -> None:
    with pytest.raises(EmptyBody):
        open_image(b"")


def gif() -> bytes:
    return file(Image.new("P", (2, 2)), "GIF")


@pytest.mark.parametrize(
    "data",
    [
        b"hello",
        b"\0" * 64,
        gif(),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
    ],
    ids=["text", "zeros", "gif", "svg", "pdf", "eps"],
)
def test_other_formats_are_not_read(data: bytes) -> None:
    with pytest.raises(UnsupportedImage) as caught:
        open_image(data)
    assert caught.value.detail["formats"] == ["JPEG", "PNG", "WEBP", "BMP", "TIFF"]


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(np.ones((2, 2), np.float32)),
        Image.fromarray(np.ones((2, 2), np.int32)),
        Image.new("LAB", (2, 2)),
    ],
    ids=["float", "int32", "lab"],
)
def test_pixels_without_a_range_are_refused(image: Image.Image) -> None:
    with pytest.raises(UnsupportedImage, match=f"type {image.mode}"):
        decode(open_image(file(image, "TIFF")))


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
def test_a_truncated_file_is_refused_wherever_it_is_cut(format_: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (24, 24, 3), np.uint8)
    whole = file(Image.fromarray(noise), format_)
    for share in (0.01, 0.05, 0.2, 0.5, 0.8, 0.95):
        with pytest.raises(ImageError), warnings.catch_warnings(action="ignore"):
            decode(open_image(whole[: max(1, int(share * len(whole)))]))


def test_a_broken_file_is_named_so() -> None:
    whole = file(Image.fromarray(np.random.default_rng(2).integers(0, 256, (16, 16, 3), np.uint8)))
    with pytest.raises(BrokenImage):
        decode(open_image(whole[: len(whole) // 2]))


@pytest.mark.parametrize("side", [8000, 12_000, 60_000])  # below and above both of Pillow's own limits
def test_a_pixel_bomb_is_refused_by_its_header(side: int) -> None:
    data = png_header(side, side)
    tracemalloc.start()
    try:
        with pytest.raises(ImageTooLarge):
            open_image(data)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("side", [12_000, 60_000])
def test_a_pixel_bomb_is_refused_where_warnings_are_only_shown(side: int) -> None:
    with warnings.catch_warnings(action="ignore"), pytest.raises(ImageTooLarge):
        open_image(png_header(side, side))


def test_the_limit_itself_is_allowed() -> None:
    data = file(Image.new("RGB", (10, 7)))
    assert open_image(data, max_pixels=70).size == (10, 7)
    with pytest.raises(ImageTooLarge) as caught:
        open_image(data, max_pixels=69)
    assert caught.value.detail == {"width": 10, "height": 7, "max_pixels": 69}
    assert MAX_PIXELS == 50_000_000


def seeds() -> list[bytes]:
    colour = Image.fromarray(np.random.default_rng(3).integers(0, 256, (6, 5, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    return [
        *(file(colour, format_) for format_ in ("JPEG", "PNG", "WEBP", "BMP", "TIFF")),
        file(colour, "JPEG", exif=exif, progressive=True),
        file(colour, "TIFF", compression="tiff_lzw"),
        file(colour.convert("P")),
        file(colour.convert("CMYK"), "JPEG"),
        file(colour.convert("RGBA"), "WEBP"),
    ]


SEEDS = seeds()


def survives(data: bytes) -> None:
    """Reads the image or refuses it; nothing else may come out."""
    with warnings.catch_warnings(action="ignore"):  # Pillow's remarks on damage, which nobody acts on
        try:
            decoded = decode(open_image(data, max_pixels=10_000))
        except ImageError:
            return
    assert decoded.image.mode == "RGB"
    assert decoded.image.width * decoded.image.height <= 10_000


@pytest.mark.parametrize("seed", range(len(SEEDS)))
def test_mutated_files_are_read_or_refused(seed: int) -> None:
    dice = random.Random(seed)
    whole = SEEDS[seed]
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(dice.randint(1, 6)):
            place = dice.randrange(len(data))
            match dice.randrange(4):
                case 0:
                    data[place] = dice.randrange(256)
                case 1:
                    data[place] ^= 1 << dice.randrange(8)
                case 2:
                    del data[place : place + dice.randint(1, 8)]
                case _:
                    data[place:place] = dice.randbytes(dice.randint(1, 8))
            if not data:
                break
        if data:
            survives(bytes(data))


SIGNATURES = (b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF....WEBPVP8 ", b"BM", b"II*\0", b"MM\0*")


@settings(max_examples=100, deadline=None)
@given(start=st.sampled_from(SIGNATURES), rest=st.binary(min_size=1, max_size=200))
def test_bytes_behind_a_signature_are_read_or_refused(start: bytes, rest: bytes) -> None:
    survives(start + rest)


# Geometry


def decoded(width: int, height: int, orientation: int = 1) -> Decoded:
    return Decoded(Image.new("RGB", (width, height)), orientation, "PNG")


@pytest.mark.parametrize(
    ("size", "to", "options", "crop"),
    [
        ((100, 50), (32, 32), {}, (25, 0, 75, 50)),  # landscape
        ((50, 100), (32, 32), {}, (0, 25, 50, 75)),  # portrait
        ((101, 50), (32, 32), {}, (25.5, 0, 75.5, 50)),  # odd: half a pixel on either side
        ((100, 50), (32, 32), {"crop_fraction": 0.5}, (37.5, 12.5, 62.5, 37.5)),
        ((100, 50), (32, 32), {"mode": "squash"}, (0, 0, 100, 50)),
        ((100, 50), (32, 32), {"mode": "squash", "crop_fraction": 0.8}, (10, 5, 90, 45)),
        ((100, 50), (64, 32), {}, (0, 0, 100, 50)),  # the same aspect ratio: nothing is cut
        ((90, 90), (64, 32), {}, (0, 22.5, 90, 67.5)),
        ((1, 9), (4, 4), {}, (0, 4, 1, 5)),
    ],
)
def test_what_the_network_sees(
    size: tuple[int, int], to: tuple[int, int], options: dict[str, Any], crop: tuple[float, ...]
) -> None:
    image, geometry = prepare(decoded(*size, orientation=6), to, **options)
    assert image.shape == (to[1], to[0], 3)
    assert image.dtype == np.uint8
    assert geometry.crop == pytest.approx(crop)
    assert (geometry.original, geometry.input, geometry.orientation) == (size, to, 6)


@pytest.mark.parametrize("mode", ["center_crop", "squash"])
def test_an_image_of_the_right_size_is_not_touched(mode: Any) -> None:
    noise = np.random.default_rng(4).integers(0, 256, (32, 32, 3), np.uint8)
    image, geometry = prepare(Decoded(Image.fromarray(noise), 1, "PNG"), (32, 32), mode=mode)
    np.testing.assert_array_equal(image, noise)
    assert geometry.crop == (0, 0, 32, 32)


def test_pixels_land_where_the_geometry_says() -> None:
    """Red left, blue right; the square in the middle of 96 x 48 keeps the edge in its middle."""
    split = np.zeros((48, 96, 3), np.uint8)
    split[:, :48, 0], split[:, 48:, 2] = 255, 255
    image, _ = prepare(Decoded(Image.fromarray(split), 1, "PNG"), (16, 16), interpolation="bilinear")
    np.testing.assert_array_equal(image[:, :7], np.broadcast_to([255, 0, 0], (16, 7, 3)))
    np.testing.assert_array_equal(image[:, 9:], np.broadcast_to([0, 0, 255], (16, 7, 3)))


def test_the_crop_is_the_middle_and_nothing_else() -> None:
    """White only in columns 24 to 71 of 96: the crop of a 48-pixel-high image is white to its edges,
    where the filter of the resize reaches out by a pixel."""
    image = np.zeros((48, 96, 3), np.uint8)
    image[:, 24:72] = 255
    seen, _ = prepare(Decoded(Image.fromarray(image), 1, "PNG"), (24, 24))
    assert (seen[:, 1:-1] == 255).all()
    assert (seen[:, [0, -1]] > 230).all()


def test_resizing_averages() -> None:
    """Antialiased: stripes finer than the result become grey instead of one of the stripes."""
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    seen, _ = prepare(Decoded(Image.fromarray(stripes), 1, "PNG"), (8, 8), interpolation="bilinear")
    assert np.abs(seen[:, 1:-1].astype(int) - 128).max() <= 2


def test_the_way_back_to_the_original() -> None:
    geometry = Geometry((100, 50), 1, (25.0, 0.0, 75.0, 50.0), (32, 32))
    assert geometry.to_original((8, 4)) == (6.25, 0.0, 25.0, 0.0, 12.5, 0.0)
    a, _, c, _, e, f = geometry.to_original((32, 32))
    assert (a * 16 + c, e * 16 + f) == (50, 25)  # the middle stays the middle
    assert geometry.of_input().to_original((8, 4)) == (4.0, 0.0, 0.0, 0.0, 8.0, 0.0)
