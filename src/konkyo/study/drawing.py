"""Pictures for a study: maps of different networks over one image, with nothing that tells which is whose.

Each picture shows what every network saw of the image, at one size. A map is laid over it, bilinear, its
part that counts brought to [0, 1] by its own smallest and largest value there, and drawn in the colours
``jet`` over the image, as maps by Grad-CAM usually are. The files hold pixels and nothing else.

Shape legend: h, w a map's grid; H, W the picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from konkyo.imaging import Float32, Geometry, UInt8
from konkyo.rendering import Frame, blend, encode_image

ALPHA = 0.5
"""Opacity of the colours."""

SETTINGS = {
    "colours": "jet",
    "opacity": ALPHA,
    "scale": "each map from its smallest to its largest value in the picture",
    "enlarged": "bilinear",
    "shown": "the part of the image that every network sees",
}
"""For the report."""

Window = tuple[float, float, float, float]


def common_window(geometries: Sequence[Geometry]) -> Window:
    """x0, y0, x1, y1 of what all of them show, in pixels of the original.

    Raises:
        ValueError: there is nothing.
    """
    crops = np.array([geometry.crop for geometry in geometries])
    (x0, y0), (x1, y1) = crops[:, :2].max(axis=0).tolist(), crops[:, 2:].min(axis=0).tolist()
    if x1 <= x0 or y1 <= y0:
        raise ValueError("the networks see no common part of the image")
    return x0, y0, x1, y1


class Canvas:
    """An image to draw maps over.

    Args:
        pixels: (.., .., 3) uint8, the whole original at whatever size and aspect.
        original: width and height of the original.
        window: the part to show, see ``common_window``.
        side: of the picture, the longer one, in pixels.

    Attributes:
        picture: (H, W, 3) uint8, the image alone.
    """

    def __init__(self, pixels: UInt8, original: tuple[int, int], window: Window, side: int) -> None:
        scale = side / max(window[2] - window[0], window[3] - window[1])
        self._whole = max(1, round(original[0] * scale)), max(1, round(original[1] * scale))
        self._scale = self._whole[0] / original[0], self._whole[1] / original[1]
        self._inside = Frame(self._whole, self._scaled(window)).inside
        smaller = self._whole[0] <= pixels.shape[1] and self._whole[1] <= pixels.shape[0]
        way = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
        self.picture = np.asarray(cv2.resize(pixels, self._whole, interpolation=way)[self._inside], np.uint8)

    @property
    def size(self) -> tuple[int, int]:
        """W and H of the picture."""
        height, width = self.picture.shape[:2]
        return width, height

    def draw(self, map_: Float32, geometry: Geometry) -> UInt8:
        """A map over the image: (h, w), at least 0 -> (H, W, 3).

        Args:
            map_: what of it counts.
            geometry: of the network's input, which the map covers.

        Raises:
            ValueError: it has values that are no numbers.
        """
        if not np.isfinite(map_).all():
            raise ValueError("the map has values that are not finite")
        spread = Frame(self._whole, self._scaled(geometry.crop)).spread(map_)[self._inside]
        low, high = float(spread.min()), float(spread.max())
        level = (spread - low) / (high - low) if high > low else np.zeros_like(spread)
        frame = Frame(self.size, (0, 0, *self.size))
        return blend(level, self.picture, frame, "positive", "jet", ALPHA, strongest=1.0)

    def _scaled(self, window: Window) -> Window:
        across, down = self._scale
        return window[0] * across, window[1] * down, window[2] * across, window[3] * down


def to_png(picture: UInt8) -> bytes:
    """(H, W, 3) -> a file with nothing in it but pixels."""
    return encode_image(picture)
