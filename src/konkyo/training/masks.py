"""Masks of defects, brought to the network's input exactly as their images are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from konkyo.evaluation.marking import cover, require_aspect
from konkyo.imaging import Geometry, open_image
from konkyo.training.data import UInt8
from konkyo.training.errors import DataError


def read_mask(path: Path, geometry: Geometry) -> UInt8:
    """Which pixels of the input lie on the defect.

    Any pixel of the file that is not black is inside, and so is every input pixel that covers any
    part of one (``evaluation.marking.cover``).

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
    return cover(open_mask(path, geometry), geometry).astype(np.uint8)


def open_mask(path: Path, geometry: Geometry) -> npt.NDArray[np.bool_]:
    """Which pixels of the file (h, w) lie on the defect: those that are not black.

    Args:
        path: see ``read_mask``.
        geometry: of its image.

    Raises:
        DataError, KonkyoError, OSError: as ``read_mask``.
    """
    inside = _inside(path)
    try:
        require_aspect((inside.shape[1], inside.shape[0]), geometry.original)
    except ValueError as error:
        raise DataError(str(error)) from None
    return inside


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
