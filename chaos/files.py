"""Image files: honest ones of every kind that is read, and such as are made to hurt."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageCms

MEBIBYTE = 2**20


def file(image: Image.Image, format_: str, **options: Any) -> bytes:
    """An image as a file."""
    out = io.BytesIO()
    image.save(out, format_, **options)
    return out.getvalue()


def picture(width: int = 40, height: int = 28, seed: int = 0) -> Image.Image:
    """Coarse colours with an alpha channel, so that every format has something to compress."""
    cells = np.random.default_rng(seed).integers(0, 256, (7, 8, 4), np.uint8)
    return Image.fromarray(cells, "RGBA").resize((width, height), Image.Resampling.BICUBIC)


@cache
def honest() -> dict[str, bytes]:
    """Small files of every format, pixel type and compression, by name; read, or refused for their type."""
    rgba = picture()
    rgb, grey = rgba.convert("RGB"), rgba.convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "chaos"
    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = made[:24] + bytes(12) + made[36:]  # without the time of its making: files are always the same
    frames = [picture(seed=seed).convert("RGB") for seed in range(1, 4)]
    several: dict[str, Any] = {"save_all": True, "append_images": frames}
    _, deep_colour = cv2.imencode(".png", np.asarray(rgb).astype(np.uint16) * 257)
    return {
        **{f"png-{image.mode}": file(image, "PNG") for image in (rgba, rgb, grey, rgb.convert("P"))},
        "png-1": file(grey.convert("1"), "PNG"),
        "png-LA": file(rgba.convert("LA"), "PNG"),
        "png-16": file(deep, "PNG"),
        "png-rgb16": deep_colour.tobytes(),
        "png-transparent-palette": file(rgb.convert("P"), "PNG", transparency=3),
        "png-exif-icc": file(rgb, "PNG", exif=exif, icc_profile=profile),
        "png-animated": file(rgb, "PNG", **several),
        "jpeg": file(rgb, "JPEG", quality=90),
        "jpeg-444": file(rgb, "JPEG", subsampling=0),
        "jpeg-grey": file(grey, "JPEG"),
        "jpeg-cmyk": file(rgb.convert("CMYK"), "JPEG"),
        "jpeg-progressive": file(rgb, "JPEG", progressive=True),
        "jpeg-restart": file(rgb, "JPEG", restart_marker_blocks=2),
        "jpeg-exif-icc": file(rgb, "JPEG", exif=exif, icc_profile=profile, comment=b"chaos"),
        "webp": file(rgb, "WEBP"),
        "webp-lossless": file(rgb, "WEBP", lossless=True),
        "webp-alpha": file(rgba, "WEBP", exif=exif, icc_profile=profile),
        "webp-animated": file(rgb, "WEBP", **several),
        "bmp": file(rgb, "BMP"),
        "bmp-8": file(grey, "BMP"),
        "bmp-1": file(grey.convert("1"), "BMP"),
        "bmp-32": file(rgba, "BMP"),
        **{f"tiff-{kind}": file(rgb, "TIFF", compression=kind) for kind in
           ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")},
        "tiff-16": file(deep, "TIFF"),
        "tiff-cmyk": file(rgb.convert("CMYK"), "TIFF", compression="tiff_lzw"),
        "tiff-alpha-exif": file(rgba, "TIFF", compression="tiff_lzw", exif=exif, icc_profile=profile),
        "tiff-pages": file(rgb, "TIFF", **several),
        "tiff-tiles": tiff_of_tiles(32, 24, 16),
        "tiff-32": file(grey.convert("I"), "TIFF"),
        "tiff-float": file(grey.convert("F"), "TIFF"),
        "gif": file(rgb, "GIF"),
        "ico": file(rgb, "ICO"),
        "ppm": file(rgb, "PPM"),
    }  # fmt: skip


# Parts


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """With its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, pixels: bytes, *before: bytes) -> bytes:
    """An 8-bit grey PNG with this size in its header, whatever its data, and chunks before them."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    end = png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(before) + end


@cache
def deflated_zeros(count: int) -> bytes:
    """A zlib stream of so many zeros, a multiple of a mebibyte."""
    compressor = zlib.compressobj(9)
    pieces = [compressor.compress(bytes(MEBIBYTE)) for _ in range(count // MEBIBYTE)]
    return b"".join(pieces) + compressor.flush()


def tiff(data: bytes, **tags: list[int]) -> bytes:
    """A little-endian grey TIFF; tags by number as ``t257=[HEIGHT]``, all of them 32-bit, data at byte 8."""
    entries = {258: [8], 259: [1], 262: [1], 277: [1]} | {
        int(name[1:]): value for name, value in tags.items()
    }
    data += b"\0" * (len(data) % 2)
    directory = 8 + len(data)
    after = directory + 2 + 12 * len(entries) + 4
    table, values = b"", b""
    for tag, numbers in sorted(entries.items()):
        packed = struct.pack(f"<{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            values, packed = values + packed, struct.pack("<I", after + len(values))
        table += struct.pack("<HHI", tag, 4, len(numbers)) + packed
    return b"".join(
        [
            b"II*\0",
            struct.pack("<I", directory),
            data,
            struct.pack("<H", len(entries)),
            table,
            bytes(4),
            values,
        ]
    )


def tiff_of_tiles(width: int, height: int, side: int) -> bytes:
    """Uncompressed grey tiles."""
    count = -(-width // side) * -(-height // side)
    data = bytes(range(256)) * (count * side * side // 256)
    offsets = [8 + number * side * side for number in range(count)]
    return tiff(
        data, t256=[width], t257=[height], t322=[side], t323=[side], t324=offsets, t325=[side * side] * count
    )


# Made to hurt. Each fits into the body limit of 20 MiB, and none has more pixels than are allowed, but for
# the first three.


def _pixel_bombs() -> dict[str, bytes]:
    zeros = deflated_zeros(400 * MEBIBYTE)
    return {
        "png of 400 megapixels": png(20_000, 20_000, zeros),
        "png of 64 megapixels": png(8_000, 8_000, zeros),
        "png of 3600 megapixels": png(60_000, 60_000, zeros),
    }


def _inflation_bombs() -> dict[str, bytes]:
    zeros = deflated_zeros(400 * MEBIBYTE)
    small = zlib.compress(bytes(33 * 32))
    return {
        "png with 400 MB behind 32x32 pixels": png(32, 32, zeros),
        "png with a profile of 400 MB": png(32, 32, small, png_chunk(b"iCCP", b"p\0\0" + zeros)),
        "png with a text of 400 MB": png(32, 32, small, png_chunk(b"zTXt", b"t\0\0" + zeros)),
        "tiff with a strip of 400 MB": tiff(
            zeros, t256=[10], t257=[10], t259=[8], t278=[2**31], t273=[8], t279=[len(zeros)]
        ),
        **{
            f"tiff with a tile of {side}x{side} for 10x10 pixels": tiff(
                deflated_zeros(-(-side * side // MEBIBYTE) * MEBIBYTE),
                t256=[10], t257=[10], t259=[8], t322=[side], t323=[side], t324=[8],
                t325=[side * side // 1000],
            )
            for side in (20_000, 32_768)
        },
    }  # fmt: skip


def _many_parts() -> dict[str, bytes]:
    room = 19 * MEBIBYTE
    small = zlib.compress(bytes(33 * 32))
    jpeg = file(picture(32, 32).convert("RGB"), "JPEG")
    rows = 1_000_000
    return {
        "png of 1.6 million private chunks": png(32, 32, small, png_chunk(b"prVt", b"") * (room // 12)),
        "png of 1.3 million texts": png(32, 32, small, png_chunk(b"tEXt", b"a\0b") * (room // 15)),
        "png of 1.6 million empty data chunks": png(32, 32, small, png_chunk(b"IDAT", b"") * (room // 12)),
        "jpeg of 5 million empty segments": jpeg[:2] + b"\xff\xef\0\2" * (room // 4) + jpeg[2:],
        "jpeg of 5 million comments": jpeg[:2] + b"\xff\xfe\0\2" * (room // 4) + jpeg[2:],
        "jpeg of 19 million fill bytes": jpeg[:2] + b"\xff" * room + jpeg[2:],
        "jpeg of 1.6 million scans": jpeg_of_scans(room // 12),
        "tiff of a million strips": tiff(
            bytes(100), t256=[10], t257=[rows], t278=[1], t273=[8] * rows, t279=[10] * rows
        ),
        "webp of 20,000 frames": _webp_of_frames(20_000),
    }  # fmt: skip


def jpeg_of_scans(count: int, side: int = 1000) -> bytes:
    """A progressive JPEG whose last scan is repeated so many times: a pass over the image each."""
    data = file(Image.new("L", (side, side), 128), "JPEG", progressive=True)
    last, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    return data[:end] + data[last:end] * count + data[end:]


def _webp_of_frames(count: int) -> bytes:
    """An animation of one frame again and again."""
    frame = picture(16, 16).convert("RGB")
    data = file(frame, "WEBP", save_all=True, append_images=[picture(16, 16, 1).convert("RGB")])
    first = data.index(b"ANMF")
    size = int.from_bytes(data[first + 4 : first + 8], "little") + 8
    body = data[8:first] + data[first : first + size] * count
    return b"RIFF" + struct.pack("<I", len(body)) + body


def hostile() -> dict[str, bytes]:
    """Files made to hurt, by what they are; built anew each time, as they are large."""
    return {**_pixel_bombs(), **_inflation_bombs(), **_many_parts()}
