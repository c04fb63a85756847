"""Masks of original images, brought to the network's input: regions, instances and their boxes.

Shape legend: h, w the mask's file, H, W the network's input, n instances.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from konkyo.evaluation.examples import Bool, Float64, Marked
from konkyo.imaging import Geometry

Instances = npt.NDArray[np.int32]
"""(h, w): 0 outside, 1 to n inside of each instance, negative where nobody told instances apart."""


def mark(name: str, classes: tuple[int, ...], instances: Instances, geometry: Geometry) -> Marked:
    """A thing as the network's input shows it.

    Args:
        name: what it is called.
        classes: the class indices that are right for it.
        instances: of the whole, upright original; of its size, or smaller or larger with the same aspect
            ratio.
        geometry: how the input lies in the original.
    """
    return Marked(name, classes, cover(instances != 0, geometry), boxes(instances, geometry))


def connected(inside: Bool) -> Instances:
    """The connected parts of a mask (h, w); pixels that meet in a corner are connected."""
    found = np.empty(inside.shape, np.int32)
    ndimage.label(inside, np.ones((3, 3)), output=found)
    return found


def cover(inside: Bool, geometry: Geometry) -> Bool:
    """The pixels of the input that cover any part of a region.

    That widens the region by less than one input pixel on each side; asking for half of the pixel
    instead would lose things of a few pixels, which are the ones worth pointing at.

    Args:
        inside: (h, w), see ``mark``.
        geometry: how the input lies in the original.

    Returns:
        (H, W).
    """
    rows, columns = _edges(inside.shape, geometry)
    top, bottom = _touched(rows, inside.shape[0])
    left, right = _touched(columns, inside.shape[1])
    # Inside pixels in each rectangle, from the sums over all rectangles that begin in the corner.
    sums = np.pad(inside.astype(np.int64).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    by_row = sums[bottom] - sums[top]
    covered: Bool = by_row[:, right] > by_row[:, left]
    return covered


def boxes(instances: Instances, geometry: Geometry) -> Float64:
    """The bounding boxes of what the input shows of each instance.

    They are taken where the mask is fine and only then brought to the input, so that instances which
    touch there keep a box each. One that a crop cuts into two has one box around both parts.

    Args:
        instances: see ``mark``.
        geometry: how the input lies in the original.

    Returns:
        (at most n, 4) left, top, right, bottom in pixels of the input.
    """
    rows, columns = _edges(instances.shape, geometry)
    (top,), (bottom,) = _touched(rows[[0, -1]], instances.shape[0])
    (left,), (right,) = _touched(columns[[0, -1]], instances.shape[1])
    seen = instances[top:bottom, left:right].clip(min=0)
    found = [parts for parts in ndimage.find_objects(seen) if parts is not None]
    corners = np.array(
        [(across.start, down.start, across.stop, down.stop) for down, across in found], np.float64
    ).reshape(-1, 4)
    corners += [left, top, left, top]
    width, height = geometry.input
    shift = np.array([columns[0], rows[0]] * 2)
    scale = np.array([width / (columns[-1] - columns[0]), height / (rows[-1] - rows[0])] * 2)
    return np.asarray(((corners - shift) * scale).clip(0, [width, height] * 2))


def require_aspect(mask: tuple[int, int], image: tuple[int, int]) -> None:
    """Refuse a mask that cannot be of its image: both width, height.

    Raises:
        ValueError: the aspect ratios differ by more than rounding.
    """
    if abs(mask[1] - mask[0] * image[1] / image[0]) > 1:
        raise ValueError(
            f"the mask of {mask[0]}x{mask[1]} pixels has another aspect ratio "
            f"than its image of {image[0]}x{image[1]}"
        )


def _edges(shape: tuple[int, ...], geometry: Geometry) -> tuple[Float64, Float64]:
    """Where the rows (H + 1) and columns (W + 1) of the input begin and end, in pixels of the mask."""
    x0, y0, x1, y1 = geometry.crop
    width, height = geometry.original
    down, across = shape[0] / height, shape[1] / width
    rows = np.linspace(y0 * down, y1 * down, geometry.input[1] + 1)
    return rows, np.linspace(x0 * across, x1 * across, geometry.input[0] + 1)


def _touched(edges: Float64, size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First and past-the-last mask pixel, of ``size``, that each interval between edges covers."""
    touch = 1e-6  # a pixel that only touches is not covered, whatever rounding says
    first = np.floor(edges[:-1] + touch).astype(np.int64)
    last = np.ceil(edges[1:] - touch).astype(np.int64)
    return first.clip(0, size), last.clip(0, size)
