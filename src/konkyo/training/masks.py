"""Masks of defects, brought to the network's input exactly as their images are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from konkyo.imaging import Geometry, open_image
from konkyo.training.data import UInt8
from konkyo.training.errors import DataError


def read_mask(path: Path, geometry: Geometry) -> UInt8:
    """Which pixels of the input lie on the defect.

    Any pixel of the file that is not black is inside, and so is every input pixel that covers any
    part of one. That widens the defect by less than one input pixel on each side; asking for half
    of the pixel instead would lose defects of a few pixels, which are the ones worth pointing at.

    Args:
        path: an image file of the whole, upright original; of its size, or smaller or larger with
            the same aspect ratio.
        geometry: how the input lies in the original.

    Returns:
        (H, W) uint8, 1 inside and 0 outside.

    Raises:
        DataError: the mask has another aspect ratio than its image, or is damaged.
        KonkyoError: it is not an image we read.
        OSError: it cannot be read.
    """
    inside = _inside(path)
    height, width = inside.shape
    original_width, original_height = geometry.original
    if abs(height - width * original_height / original_width) > 1:
        raise DataError(
            f"the mask of {width}x{height} pixels has another aspect ratio "
            f"than its image of {original_width}x{original_height}"
        )
    x0, y0, x1, y1 = geometry.crop
    left, right = _covered(x0 / original_width, x1 / original_width, width, geometry.input[0])
    top, bottom = _covered(y0 / original_height, y1 / original_height, height, geometry.input[1])
    # Inside pixels in each rectangle, from the sums over all rectangles that begin in the corner.
    sums = np.pad(inside.astype(np.int64).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    by_row = sums[bottom] - sums[top]
    covered: npt.NDArray[np.bool_] = by_row[:, right] > by_row[:, left]
    return covered.astype(np.uint8)


def _inside(path: Path) -> npt.NDArray[np.bool_]:
    image = open_image(path.read_bytes())
    try:
        image.load()
        # 16 bits as they are: the conversion to 8 clips, and the service's own rounds 1 to 0.
        values = np.asarray(image if image.mode.startswith("I") else image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"the mask is damaged: {error}") from error
    inside: npt.NDArray[np.bool_] = (values if values.ndim == 2 else values.max(axis=2)) > 0
    return inside


def _covered(
    start: float, end: float, size: int, cells: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First and past-the-last mask pixel that each of ``cells`` equal parts of an interval covers.

    Args:
        start, end: the interval, as shares of the mask's side.
        size: the mask's side in pixels.
        cells: number of parts.
    """
    edges = np.linspace(start * size, end * size, cells + 1)
    touch = 1e-6  # a pixel that only touches is not covered, whatever rounding says
    first = np.floor(edges[:-1] + touch).astype(np.int64)
    last = np.ceil(edges[1:] - touch).astype(np.int64)
    return first.clip(0, size), last.clip(0, size)
