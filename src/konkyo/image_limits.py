"""What an image file may cost beyond its pixels.

The size in the header bounds the pixels, and nothing else. A file of a few megabytes can also hold millions
of empty segments, each a few operations of Python; a progressive JPEG a million scans, each a pass over the
whole image; a TIFF one tile a thousand times as large as the image that is cut out of it.
"""

from __future__ import annotations

import io
import re

from PIL import Image, TiffImagePlugin

from konkyo.errors import BrokenImage, ImageTooLarge

MAX_READS = 10_000
"""Pieces in which any file may be read."""

BYTES_A_READ = 400
"""A longer one may be read in one more for so many of its bytes; encoders write chunks of kilobytes."""

MAX_SCANS = 100
"""Scans of a JPEG; encoders make about ten of a progressive one."""

MAX_TILES = 100_000
"""Tiles or strips of a TIFF."""

_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
_SCAN = b"\xff\xda"
_TIFF_STARTS = (b"II", b"MM")


class Pieces(io.BytesIO):
    """A file in memory that is not read in more pieces than an honest one of its length.

    Raises:
        BrokenImage: from ``read``, where it is.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._left = MAX_READS + len(data) // BYTES_A_READ

    def read(self, size: int | None = -1, /) -> bytes:
        """As ``BytesIO.read``."""
        self._left -= 1
        if self._left < 0:
            raise BrokenImage("the image is cut into too many pieces")
        return super().read(size)


def check_tiles(data: bytes) -> None:
    """Refuse a TIFF cut into too many parts, before Pillow makes a list of them.

    Raises:
        BrokenImage: it is.
    """
    if not data.startswith(_TIFF_STARTS):
        return
    file = Pieces(data)
    header = file.read(8)
    if header[2:3] == b"\x2b":  # BigTIFF
        header += file.read(8)
    tags = TiffImagePlugin.ImageFileDirectory_v2(header)
    file.seek(tags.next)
    tags.load(file)
    parts = (TiffImagePlugin.STRIPOFFSETS, TiffImagePlugin.TILEOFFSETS)
    if any(len(tags.get(part, ())) > MAX_TILES for part in parts):
        raise BrokenImage(f"the image is cut into more than {MAX_TILES:,} tiles or strips")


def check_tile_size(image: Image.Image, max_pixels: int) -> None:
    """Refuse an opened TIFF whose tiles have more pixels than an image may have.

    Raises:
        ImageTooLarge: they have.
    """
    pixels = tile_pixels(image)
    if pixels > max_pixels:
        raise ImageTooLarge(
            f"tiles of {pixels} pixels are over the limit of {max_pixels}", max_pixels=max_pixels
        )


def tile_pixels(image: Image.Image) -> int:
    """Pixels of one tile, all of which are decoded whatever is cut off; 0 where there are none."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return 0
    width, height = (
        image.tag_v2.get(tag, 0) for tag in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH)
    )
    return width * height if isinstance(width, int) and isinstance(height, int) else 0


def check_scans(data: bytes) -> None:
    """Refuse a JPEG with more scans than any encoder makes.

    Raises:
        BrokenImage: it is one.
    """
    if data.count(_SCAN) <= MAX_SCANS:  # as may be inside thumbnails, or behind the end: then look closely
        return
    scans, place = 0, 2
    while (found := _MARKER.search(data, place)) and found[0] != b"\xff\xd9":
        scans += found[0] == _SCAN
        if scans > MAX_SCANS:
            raise BrokenImage(f"the image is a JPEG of more than {MAX_SCANS} scans")
        place = found.end() + int.from_bytes(data[found.end() : found.end() + 2])
