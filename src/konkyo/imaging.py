"""From the bytes of an image file to the pixels a network sees, and the way back.

Used by the service and by training alike, so that a network is served exactly the pixels it would
have been trained on. Everything about the input that can hurt is refused here: formats outside an
allow-list, too many pixels (known from the header, before anything is decoded), truncated files, and
files that cost more than their pixels (``image_limits``).

Coordinates are continuous: pixel i covers [i, i + 1), x runs right, y down.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from konkyo.errors import BrokenImage, EmptyBody, ImageError, ImageTooLarge, UnsupportedImage
from konkyo.image_limits import Pieces, check_scans, check_tile_size, check_tiles, tile_pixels

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
"""What is read, by Pillow's names. Formats with a history of faults or of external fetches stay out."""

MAX_PIXELS = 50_000_000
"""Default limit; 200 MB once decoded."""

BAND_PIXELS = 2**18
"""Pixels that are converted to RGB at once."""

ResizeMode = Literal["center_crop", "squash"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Affine = tuple[float, float, float, float, float, float]
UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

_ORIENTATION = 0x0112
_RGB = 4
"""Bytes a pixel, as Pillow keeps RGB and everything else of several bands."""
_ROWS = 16
"""Bytes a row: Pillow keeps a pointer to each, for the image and for what it is converted to."""
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image of each EXIF orientation upright."""
_RESAMPLING = {name: Image.Resampling[name.upper()] for name in ("nearest", "bilinear", "bicubic", "lanczos")}


@dataclass(frozen=True)
class Decoded:
    """An upright RGB image.

    Attributes:
        image: Pillow image of mode RGB, EXIF orientation applied.
        orientation: the EXIF orientation it was stored in, 1 to 8.
        format: Pillow's name of the file format.
    """

    image: Image.Image
    orientation: int
    format: str


@dataclass(frozen=True)
class Geometry:
    """How the network's input lies in the original image.

    Attributes:
        original: width and height in pixels, upright.
        orientation: EXIF orientation of the file, 1 to 8.
        crop: x0, y0, x1, y1 of the part the network saw, in pixels of the original.
        input: width and height of the network's input.
    """

    original: tuple[int, int]
    orientation: int
    crop: tuple[float, float, float, float]
    input: tuple[int, int]

    def of_input(self) -> Geometry:
        """The geometry of the input as if it were the original."""
        return Geometry(self.input, 1, (0, 0, *self.input), self.input)

    def to_original(self, size: tuple[int, int]) -> Affine:
        """The affine map (a, b, c, d, e, f) from a grid over the input to the original.

        ``x' = a x + b y + c`` and ``y' = d x + e y + f``.

        Args:
            size: width and height of the grid, such as a map's.
        """
        x0, y0, x1, y1 = self.crop
        return ((x1 - x0) / size[0], 0.0, x0, 0.0, (y1 - y0) / size[1], y0)


@cache
def extensions() -> frozenset[str]:
    """Suffixes of the files that are read, lower case with their dot; what is in them decides how."""
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS)


def open_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read the header of an image file; no pixel is decoded yet.

    Returns:
        The unloaded Pillow image, for ``decode``; its ``size`` tells the work ahead.

    Raises:
        EmptyBody: no bytes.
        UnsupportedImage: not one of ``FORMATS``.
        ImageTooLarge: more than ``max_pixels``, in the image or in a tile of it.
        BrokenImage: the header is damaged, or cut into more pieces than any encoder makes.
    """
    if not data:
        raise EmptyBody("the image is empty: 0 bytes")
    try:
        check_tiles(data)
        image = Image.open(Pieces(data), formats=FORMATS)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise UnsupportedImage("not an image we read", formats=list(FORMATS)) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLarge(f"too many pixels: {error}") from None
    except Exception as error:  # Pillow's parsers raise anything on damaged headers
        raise BrokenImage(f"the image is damaged: {error}") from None
    width, height = image.size
    if width * height > max_pixels:
        raise ImageTooLarge(
            f"{width}x{height} pixels are over the limit of {max_pixels}",
            width=width, height=height, max_pixels=max_pixels,
        )  # fmt: skip
    check_tile_size(image, max_pixels)
    if image.format == "JPEG":
        check_scans(data)
    return image


def decoding_bytes(image: Image.Image) -> int:
    """The most memory that ``decode`` takes for an opened image, as Pillow and its libraries work."""
    width, height = image.size
    pixel = _bytes_of_pixel(image.mode)
    total = pixel + (0 if _is_rgb(image) else _RGB)
    if image.format == "WEBP":
        total += 3 * _RGB  # two canvases of the decoder, for animations, and their bytes
    elif image.info.get("progressive"):
        total += 2 * len(image.getbands())  # every coefficient, until the last scan is in
    if "exif" in image.info:
        total += _RGB  # it may have to be turned
    return height * (width * total + _ROWS) + tile_pixels(image) * pixel


def _bytes_of_pixel(mode: str) -> int:
    """As Pillow keeps them: 1 for a single band, 4 for several."""
    if mode.startswith("I;16"):
        return 2
    return 1 if mode in ("1", "L", "P") else 4


def decode(image: Image.Image) -> Decoded:
    """Decode an opened image file to upright RGB; what was opened is used up by it.

    Greyscale, palette, 1-bit and CMYK images become RGB; 16-bit grey is scaled so that 65,535 is
    white; transparency is laid over white, as a viewer shows it; of several frames the first counts.

    Raises:
        UnsupportedImage: pixels without a range (32-bit integers, floats).
        BrokenImage: truncated or damaged.
    """
    name = image.format or "?"
    turned = name == "TIFF"  # Pillow turns these upright while it loads them
    orientation = _orientation(image) if turned else 1
    try:
        image.load()
        if not turned:
            orientation = _orientation(image)
        rgb = _to_rgb(image)
    except ImageError:
        raise
    except Exception as error:  # likewise on damaged data
        raise BrokenImage(f"the image is truncated or damaged: {error}") from None
    if not turned and orientation > 1:
        rgb = rgb.transpose(_TRANSPOSE[orientation])
    return Decoded(rgb, orientation, name)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; damaged EXIF is no reason to refuse the pixels."""
    try:
        stored = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Pillow's parser raises anything
        return 1
    return int(stored) if stored in _TRANSPOSE else 1


def _is_rgb(image: Image.Image) -> bool:
    return image.mode == "RGB" and "transparency" not in image.info


def _to_rgb(image: Image.Image) -> Image.Image:
    mode = image.mode
    if _is_rgb(image):
        return image
    if mode.startswith("I;16"):
        return _in_bands(image, _eight_bits)
    if mode in ("I", "F", "LAB"):
        raise UnsupportedImage(
            f"pixels of type {mode} have no known range; send 8 or 16 bits a channel", mode=mode
        )
    return _in_bands(image, _over_white if image.has_transparency_data else lambda band: band.convert("RGB"))


def _in_bands(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Convert a few rows at a time: what lies between would take several times the memory of the image."""
    width, height = image.size
    rgb = Image.new("RGB", image.size)
    rows = max(1, BAND_PIXELS // width)
    for top in range(0, height, rows):
        box = (0, top, width, min(top + rows, height))
        rgb.paste(convert(image.crop(box)), box)
    image.close()
    return rgb


def _eight_bits(deep: Image.Image) -> Image.Image:
    # 65,535 / 255 = 257, so this is exact at both ends; Pillow's own conversion clips at 255.
    values = np.asarray(deep).astype(np.uint32)
    return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def prepare(
    decoded: Decoded,
    size: tuple[int, int],
    *,
    mode: ResizeMode = "center_crop",
    crop_fraction: float = 1.0,
    interpolation: Interpolation = "bicubic",
) -> tuple[UInt8, Geometry]:
    """Crop and resize, with antialiasing, to the network's input.

    Args:
        decoded: the upright image.
        size: width and height of the input.
        mode: ``center_crop`` keeps the aspect ratio and cuts the longer side; ``squash`` keeps
            every pixel and changes the aspect ratio.
        crop_fraction: share of the crop's sides that is kept, in (0, 1].
        interpolation: of the resize.

    Returns:
        Pixels (H, W, 3) uint8, and where they lie in the original.
    """
    image = decoded.image
    width, height = image.size
    crop_width, crop_height = float(width), float(height)
    if mode == "center_crop":
        aspect = size[0] / size[1]
        crop_width, crop_height = min(width, height * aspect), min(height, width / aspect)
    crop_width, crop_height = crop_width * crop_fraction, crop_height * crop_fraction
    x0, y0 = (width - crop_width) / 2, (height - crop_height) / 2
    crop = (x0, y0, x0 + crop_width, y0 + crop_height)
    geometry = Geometry((width, height), decoded.orientation, crop, size)
    if image.size != size or crop != (0, 0, width, height):
        image = image.resize(size, _RESAMPLING[interpolation], box=crop)
    return np.asarray(image), geometry
