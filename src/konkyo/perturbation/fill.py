"""What takes the place of pixels that are hidden."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np

from konkyo.imaging import UInt8

Fill = Literal["grey", "mean", "black", "blur"]

BLUR = 0.1
"""Standard deviation of the blur, as a share of the longer side: colours stay, shapes go."""


def filling(image: UInt8, fill: Fill) -> UInt8:
    """A picture of what is under the image: (H, W, 3) -> (H, W, 3).

    Args:
        image: uint8.
        fill: mid-``grey``, the ``mean`` colour of the image, ``black``, or the image under a ``blur``.
    """
    if fill == "blur":
        blurred = cv2.GaussianBlur(image, (0, 0), BLUR * max(image.shape[:2]))
        return np.asarray(blurred, np.uint8)
    colour = {"grey": 128, "black": 0}.get(fill, np.rint(image.mean(axis=(0, 1))))
    return np.full_like(image, colour)
