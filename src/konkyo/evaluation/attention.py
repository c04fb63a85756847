"""How much of an attention map lies where the defect is.

All measures are per image. They are NaN where nothing can be said: the mask is not known, or the
image has no defect, so an image without a defect never counts as a hit. ``mean_by_size`` takes the
means.

Where mass is counted, a mask comes to the grid of the map by the mean over the area of its cells. A
defect smaller than a cell therefore fills only a part of it, and no map can have more of its mass
inside than that part; ``lift`` compares across sizes. Where a map is held against the mask as an
expert's map, ``map_error``, a cell that the defect touches counts whole.

Shape legend: n images, h, w the grid of the maps, H, W the grid of the masks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from konkyo.imaging import UInt8
from konkyo.models.attention import area_resample, touched

Bool = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating]
Float64 = npt.NDArray[np.float64]

SIZE_EDGES = (0.0, 0.001, 0.01, 0.1, 1.0)
"""Bounds of the size bins, as shares of the image."""


class SizeBin(NamedTuple):
    """The mean of a measure over the defects that take more than ``low`` and up to ``high`` of the image.

    NaN of no images.
    """

    low: float
    high: float
    images: int
    mean: float


def defect_share(masks: UInt8, known: Bool) -> Float64:
    """Share of the image that the defect covers.

    Args:
        masks: (n, H, W), 1 inside and 0 outside.
        known: (n,); what ``masks`` holds of the others does not matter.

    Returns:
        (n,) in (0, 1], or NaN.
    """
    share = (masks == 1).mean(axis=(1, 2))
    return np.where(known & (share > 0), share, np.nan)


def energy_inside(maps: Floats, masks: UInt8, known: Bool) -> Float64:
    """Share of the map's mass that lies inside the defect (the energy-based pointing game).

    From Score-CAM (Wang et al., 2020). Only what is positive has mass. A map without any has none
    inside: 0, not NaN, or a method that shows nothing would be judged on its other images alone.

    Args:
        maps: (n, h, w), finite.
        masks: (n, H, W), 1 inside and 0 outside.
        known: (n,); what ``masks`` holds of the others does not matter.

    Returns:
        (n,) in [0, 1], or NaN.

    Raises:
        ValueError: not as many maps as masks and entries of ``known``, or a map that is not finite.
    """
    inside = _on_grid(maps, masks, known)
    mass = maps.clip(min=0).astype(np.float64)
    total = mass.sum(axis=(1, 2))
    share = (mass * inside).sum(axis=(1, 2)) / np.where(total > 0, total, 1)
    return np.where(np.isnan(defect_share(masks, known)), np.nan, share)


def lift(maps: Floats, masks: UInt8, known: Bool) -> Float64:
    """Mass inside the defect, over what a map without any knowledge has there.

        energy_inside / defect_share

    Args:
        maps: (n, h, w), finite.
        masks: (n, H, W), 1 inside and 0 outside.
        known: (n,); what ``masks`` holds of the others does not matter.

    Returns:
        (n,): 1 is chance, a flat map; 0 is nothing inside; at most the number of cells h w. Or NaN.

    Raises:
        ValueError: as ``energy_inside``.
    """
    return energy_inside(maps, masks, known) / defect_share(masks, known)


def map_error(maps: Floats, masks: UInt8, known: Bool) -> Float64:
    """Mean squared error of the map against the cells that the defect touches, on the grid of the map.

    Args:
        maps: (n, h, w) in [0, 1].
        masks: (n, H, W), 1 inside and 0 outside.
        known: (n,); what ``masks`` holds of the others does not matter.

    Returns:
        (n,) in [0, 1], or NaN.

    Raises:
        ValueError: as ``energy_inside``.
    """
    error = np.square(maps - _on_grid(maps, masks, known, touched)).mean(axis=(1, 2))
    return np.where(np.isnan(defect_share(masks, known)), np.nan, error)


def mean_by_size(
    values: Float64, shares: Float64, edges: Sequence[float] = SIZE_EDGES
) -> tuple[SizeBin, ...]:
    """Means of a measure by the size of the defect; images where it is NaN do not count.

    Args:
        values: of any measure here (n,).
        shares: ``defect_share`` (n,).
        edges: bounds of the bins, rising; ``(0, 1)`` takes all defects together.
    """
    bins = []
    for low, high in itertools.pairwise(edges):
        found = values[(shares > low) & (shares <= high) & ~np.isnan(values)]
        bins.append(SizeBin(low, high, len(found), float(found.mean()) if len(found) else math.nan))
    return tuple(bins)


def _on_grid(
    maps: Floats,
    masks: UInt8,
    known: Bool,
    resample: Callable[[Tensor, tuple[int, int]], Tensor] = area_resample,
) -> Float64:
    """The masks on the grid of the maps, (n, h, w): of each cell the share that lies inside."""
    if not len(maps) == len(masks) == len(known):
        raise ValueError(f"{len(maps)} maps, {len(masks)} masks, {len(known)} entries of known")
    if not np.isfinite(maps).all():
        raise ValueError("a map is not finite")
    height, width = maps.shape[1:]
    inside = torch.from_numpy((masks == 1).astype(np.float32))
    return resample(inside, (height, width)).numpy().astype(np.float64)
