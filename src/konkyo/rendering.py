"""Maps for the eye: scaling, colours, regions, and the way back to the original frame.

A map leaves the graph raw and signed, and everything here starts from that. Nothing here changes
a score. Shape legend: h, w the map's grid; H, W the frame; maps and images are (row, column).
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from konkyo.errors import InvalidParameter
from konkyo.imaging import Affine, Float32, Geometry, UInt8

Overlay = Literal["spotlight", "blend", "contour", "grey", "none"]
Part = Literal["positive", "negative", "both"]
Colormap = Literal["signed", "turbo", "jet", "viridis", "inferno", "magma", "cividis"]
Status = Literal["ok", "flat", "all_negative", "non_finite", "shed"]

MAX_REGIONS = 5
"""Regions in an answer, those with the largest mass first."""

SPOTLIGHT_QUANTILE = 0.995
"""The brightest pixels of a spotlight may saturate, or one pixel would leave the rest dark."""

SMOOTHING = 1 / 50
"""Deviation of the smoothing of gradients, as a share of the longer side: pixels that lie nearer belong
together."""

LONGEST = {"png": 1_000_000, "jpeg": 65_500, "webp": 16_383}
"""Sides in pixels that the formats, or their libraries, allow."""

_COLORMAPS = {
    name: getattr(cv2, f"COLORMAP_{name.upper()}")
    for name in ("turbo", "jet", "viridis", "inferno", "magma", "cividis")
}
_TINY = np.finfo(np.float32).tiny
_GREY = np.full(3, 1 / (3 * 255), np.float32)  # mean over the channels, in [0, 1]
# Told apart by colour-blind eyes too.
_WARM = np.array([230, 97, 1], np.float32)
_COOL = np.array([64, 105, 225], np.float32)


def status(map_: Float32) -> Status:
    """What a map that shows nothing would hide: (h, w) -> ``ok`` or why not."""
    if not np.isfinite(map_).all():
        return "non_finite"
    low, high = float(map_.min()), float(map_.max())
    if high - low <= 1e-6 * max(abs(low), abs(high), 1e-12):
        return "flat"
    return "all_negative" if high <= 0 else "ok"


def entropy(map_: Float32) -> float:
    """Entropy of the map's absolute values, as a share of its maximum log(h w): (h, w) -> [0, 1]."""
    mass = np.abs(map_)
    largest = float(mass.max())
    if not np.isfinite(largest) or largest == 0:
        return 1.0
    mass /= largest  # so that float32 carries any map
    total = float(mass.sum(dtype=np.float64))
    # -sum p log p with p = m / total; m log m is 0 at 0, where the logarithm is not needed.
    weighted = float((mass * np.log(np.maximum(mass, _TINY))).sum(dtype=np.float64))
    return float((np.log(total) - weighted / total) / np.log(max(map_.size, 2)))


def contribution(map_: Float32, pixels: UInt8) -> Float32:
    """Grey class contribution map: the map times the image's mean over its channels in [0, 1].

    Its mean is the logit (GCM): (h, w), (h, w, 3) uint8 -> (h, w).
    """
    grey = pixels.astype(np.float32) @ _GREY
    return np.asarray(map_ * grey, np.float32)


@dataclass(frozen=True)
class Frame:
    """Where pictures are drawn: over the original image, or over the network's input.

    Attributes:
        size: W, H in pixels.
        window: x0, y0, x1, y1 of what the network saw, in pixels of the frame.
    """

    size: tuple[int, int]
    window: tuple[float, float, float, float]

    def fit(self, image: UInt8) -> UInt8:
        """The image at the size of the frame: (.., .., 3) -> (H, W, 3)."""
        if image.shape[1::-1] == self.size:
            return image
        return np.asarray(cv2.resize(image, self.size, interpolation=cv2.INTER_AREA), np.uint8)

    @property
    def inside(self) -> tuple[slice, slice]:
        """Rows and columns of the window, in whole pixels and at least one of each."""
        x0, y0, x1, y1 = (round(edge) for edge in self.window)
        return slice(y0, max(y1, y0 + 1)), slice(x0, max(x1, x0 + 1))

    def spread(self, map_: Float32) -> Float32:
        """Lay a map over the frame: (h, w) -> (H, W), bilinear in the window, 0 outside."""
        rows, columns = self.inside
        size = columns.stop - columns.start, rows.stop - rows.start
        spread = np.asarray(cv2.resize(map_, size, interpolation=cv2.INTER_LINEAR), np.float32)
        if size == self.size:
            return spread
        whole = np.zeros(self.size[::-1], np.float32)
        part = whole[rows, columns]
        part[:] = spread[: part.shape[0], : part.shape[1]]
        return whole


def original_frame(geometry: Geometry, *, max_pixels: int) -> Frame:
    """The upright original, reduced in size if it has more than ``max_pixels``."""
    width, height = geometry.original
    scale = min(1.0, float(np.sqrt(max_pixels / (height * width))))
    size = max(1, int(width * scale)), max(1, int(height * scale))
    x0, y0, x1, y1 = geometry.crop
    across, down = size[0] / width, size[1] / height
    return Frame(size, (x0 * across, y0 * down, x1 * across, y1 * down))


def input_frame(geometry: Geometry) -> Frame:
    """The network's input as it was seen."""
    return Frame(geometry.input, (0, 0, *geometry.input))


def regions(map_: Float32, threshold: float, affine: Affine) -> list[dict[str, Any]]:
    """Connected parts of a map above a share of its maximum (Grad-CAM, section 4.1: 15 %).

    Args:
        map_: (h, w); only its positive values count.
        threshold: share of the maximum, in (0, 1).
        affine: from the grid to the frame.

    Returns:
        Up to ``MAX_REGIONS`` of ``box`` [x0, y0, x1, y1] and ``peak`` [x, y] in pixels of the
        frame, ``area`` as a share of the grid, ``mass`` as a share of the positive values; largest
        mass first. Empty if no value is positive.
    """
    positive = np.maximum(map_, 0)
    total = float(positive.sum())
    if not np.isfinite(total) or total <= 0:
        return []
    mask = (positive >= threshold * positive.max()).astype(np.uint8)
    count, labelled = cv2.connectedComponents(mask, connectivity=8)  # its statistics cost more than ours
    mass = _mass(positive, labelled, count) / total
    scale_x, _, shift_x, _, scale_y, shift_y = affine
    found = []
    for index in np.argsort(-mass, kind="stable")[:MAX_REGIONS].tolist():
        region = (labelled == index + 1).view(np.uint8)
        left, top, width, height = cv2.boundingRect(region)
        area = cv2.countNonZero(region)
        _, _, _, (column, row) = cv2.minMaxLoc(positive, region)
        found.append(
            {
                "box": [
                    scale_x * left + shift_x,
                    scale_y * top + shift_y,
                    scale_x * (left + width) + shift_x,
                    scale_y * (top + height) + shift_y,
                ],
                "peak": [
                    scale_x * (column + 0.5) + shift_x,
                    scale_y * (row + 0.5) + shift_y,
                ],
                "area": area / map_.size,
                "mass": float(mass[index]),
            }
        )
    return found


def _mass(values: Float32, labelled: npt.NDArray[np.int32], count: int) -> npt.NDArray[np.float64]:
    """Sum of the values of each label but 0: (h, w), (h, w) -> (count - 1,)."""
    if count <= 16:  # bincount waits for itself where it adds to one label again and again
        flat = values.ravel()
        return np.array([np.dot(flat, labelled.ravel() == label) for label in range(1, count)], np.float64)
    inside = np.flatnonzero(labelled)
    sums = np.bincount(labelled.ravel()[inside], values.ravel()[inside], minlength=count)
    return np.asarray(sums[1:], np.float64)


def _drawable(map_: Float32, frame: Frame) -> Float32:
    """The map over the frame, with 0 in the place of what is not a number: (h, w) -> (H, W)."""
    whole = frame.spread(map_)
    return whole if np.isfinite(whole).all() else np.nan_to_num(whole, posinf=0, neginf=0)


def part_of(map_: Float32, part: Part) -> Float32:
    """The positive part, the negative part turned positive, or the map itself."""
    if part == "both":
        return map_
    return np.maximum(map_ if part == "positive" else -map_, 0)


def normalised(map_: Float32, value_range: tuple[float, float]) -> Float32:
    """A map on the scale of its range, so that maps of different images compare: (h, w) -> [0, 1]."""
    low, high = value_range
    return np.asarray(((map_ - low) / max(high - low, 1e-12)).clip(0, 1), np.float32)


def strong(map_: Float32) -> float:
    """A value close to the largest in size, so that one pixel leaves the rest visible: (h, w)."""
    size = np.abs(map_[np.isfinite(map_)])
    return float(np.quantile(size, SPOTLIGHT_QUANTILE)) if size.size else 0.0


def smoothed(map_: Float32, part: Part) -> Float32:
    """A gradient with each pixel spread over its neighbourhood: (h, w) -> (h, w), of the same sign.

    Of one part without the other, which would cancel it: they lie side by side along every edge.
    """
    finite = np.nan_to_num(map_, posinf=0, neginf=0)
    chosen = np.minimum(finite, 0) if part == "negative" else part_of(finite, part)
    return np.asarray(cv2.GaussianBlur(chosen, (0, 0), SMOOTHING * max(map_.shape)), np.float32)


def spotlight(map_: Float32, image: UInt8, frame: Frame, part: Part, strongest: float | None = None) -> UInt8:
    """The product of map and image on black (GCM): lit where the image speaks for the class.

    Args:
        map_: (h, w) class weight map.
        image: (.., .., 3) uint8, what the frame shows.
        frame: where to draw.
        part: ``both`` draws the positive part above the negative one, as the paper does, on one
            scale, so that their strengths compare.
        strongest: product drawn at full brightness; default: close to the largest.

    Returns:
        (H, W, 3) uint8, or (2 H, W, 3) for both.
    """
    weights = _drawable(map_, frame)
    product = weights[..., None] * (
        frame.fit(image).astype(np.float32) / np.float32(255)
    )  # the contribution map
    if strongest is None:
        strongest = float(np.quantile(np.abs(product[frame.inside]).max(axis=2), SPOTLIGHT_QUANTILE))
    scale = 255 / max(strongest, 1e-12)
    rows = [part_of(product, side) for side in (("positive", "negative") if part == "both" else (part,))]
    return _to_uint8(np.concatenate(rows) * scale)


def blend(
    map_: Float32,
    image: UInt8,
    frame: Frame,
    part: Part,
    colormap: Colormap,
    alpha: float,
    strongest: float | None = None,
) -> UInt8:
    """Colours over the image: (H, W, 3) uint8, ``alpha`` of the colour and the rest of the image.

    ``signed`` is warm for positive and cool for negative values, and fades to the image at 0.
    ``strongest`` is the value of the end of the colours; default: the map's largest.
    """
    weights = _drawable(map_, frame)
    if strongest is None:
        strongest = float(np.abs(weights).max())
    strength = part_of(weights, part) / max(strongest, 1e-12)  # [-1, 1]
    if part == "negative" and colormap == "signed":
        strength = -strength
    base = frame.fit(image).astype(np.float32)
    if colormap == "signed":
        colour = np.where(strength[..., None] >= 0, _WARM, _COOL)
        opacity = alpha * np.abs(strength)[..., None]
    else:
        low = -1 if part == "both" else 0
        level = ((strength - low) / (1 - low) * 255).clip(0, 255).astype(np.uint8)
        colour = cv2.applyColorMap(level, _COLORMAPS[colormap])[..., ::-1].astype(np.float32)
        opacity = np.float32(alpha)
    return _to_uint8(base + (colour - base) * opacity)


def contour(
    map_: Float32,
    image: UInt8,
    frame: Frame,
    part: Part,
    threshold: float,
    strongest: float | None = None,
) -> UInt8:
    """Outlines at a share of the map's maximum, or of ``strongest``: (H, W, 3).

    Warm for positive and cool for negative values.
    """
    weights = _drawable(map_, frame)
    drawing = frame.fit(image).copy()
    thickness = max(1, round(min(drawing.shape[:2]) / 200))
    for side, colour in (("positive", _WARM), ("negative", _COOL)):
        if part not in (side, "both"):
            continue
        values = part_of(weights, "positive" if side == "positive" else "negative")
        if values.max() <= 0:
            continue
        largest = values.max() if strongest is None else strongest
        mask = (values >= threshold * largest).astype(np.uint8)
        outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(drawing, outlines, -1, colour.tolist(), thickness)
    return drawing


def grey(map_: Float32, frame: Frame, part: Part, strongest: float | None = None) -> UInt8:
    """The map alone, for one as fine as an image: (H, W, 3).

    One part is bright on black; of both, 0 is mid grey, and what speaks for the class is lighter.
    """
    weights = _drawable(map_, frame)
    if strongest is None:
        strongest = float(np.abs(weights).max())
    strength = part_of(weights, part) / max(strongest, 1e-12)
    level = (strength + 1) / 2 if part == "both" else strength
    return _to_uint8(np.repeat(level[..., None] * 255, 3, axis=2))


def beside(pictures: Sequence[UInt8]) -> UInt8:
    """Pictures of one size (H, W, 3) side by side, with a small white gap between them."""
    height, width, _ = pictures[0].shape
    gap = np.full((height, max(4, width // 50), 3), 255, np.uint8)
    return np.concatenate([part for picture in pictures for part in (gap, picture)][1:], axis=1)


def _to_uint8(values: Float32) -> UInt8:
    return np.asarray(values.clip(0, 255), np.uint8)


def encode_image(image: UInt8, extension: Literal["png", "jpeg", "webp"] = "png", quality: int = 95) -> bytes:
    """(H, W) grey or (H, W, 3) RGB uint8 to the bytes of a file; ``quality`` is of JPEG, up to 100.

    Raises:
        InvalidParameter: the picture is longer than the format allows.
    """
    height, width = image.shape[:2]
    if max(height, width) > LONGEST[extension]:
        raise InvalidParameter(f"a picture of {width}x{height} is too long for {extension}; accept image/png")
    pixels = image[..., ::-1] if image.ndim == 3 else image
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if extension == "jpeg" else []
    _, data = cv2.imencode(f".{extension}", np.ascontiguousarray(pixels), options)
    return data.tobytes()


def encode_png_map(map_: Float32, frame: Frame) -> dict[str, Any]:
    """A map in the frame as an 8-bit PNG; value v stands for ``min + v / 255 * (max - min)``."""
    whole = _drawable(map_, frame)
    low, high = float(whole.min()), float(whole.max())
    level = (whole - low) / np.float32(high - low) if high > low else np.zeros_like(whole)
    picture = np.asarray(cv2.convertScaleAbs(level, alpha=255), np.uint8)  # rounds
    height, width = picture.shape
    return {
        "encoding": "png", "width": width, "height": height, "min": low, "max": high,
        "data": base64.b64encode(encode_image(picture)).decode(),
    }  # fmt: skip


def encode_float32_map(map_: Float32) -> dict[str, Any]:
    """A map as it left the graph: little-endian float32, row-major, never resized."""
    finite = map_[np.isfinite(map_)]
    height, width = map_.shape
    return {
        "encoding": "float32", "width": width, "height": height,
        "min": float(finite.min()) if finite.size else None,
        "max": float(finite.max()) if finite.size else None,
        "data": base64.b64encode(np.ascontiguousarray(map_, dtype="<f4").tobytes()).decode(),
    }  # fmt: skip
