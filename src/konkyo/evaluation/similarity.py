"""How alike two maps are: by the order of their values, and by their largest difference.

Shape legend: n pairs of maps, h, w their grid.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata
from torch import Tensor

Float64 = npt.NDArray[np.float64]

_ROUNDING = 1e-6
"""Of the largest value: a map that varies by less has no order but that of its rounding."""


def flat(maps: Tensor) -> Tensor:
    """Whether a map has no order: it is constant but for rounding, or not finite. (n, h, w) -> (n,) bool."""
    values = maps.flatten(1)
    low, high = values.amin(dim=1), values.amax(dim=1)
    size = values.abs().amax(dim=1)
    return ~(high - low > _ROUNDING * size) | ~values.isfinite().all(dim=1)


def rank_correlation(first: Tensor, second: Tensor) -> Float64:
    """Spearman's rank correlation of each pair; equal values share the mean of their ranks.

    Args:
        first: (n, h, w).
        second: (n, h, w).

    Returns:
        (n,) in [-1, 1]; NaN where one of the two is ``flat``.
    """
    undefined = (flat(first) | flat(second)).cpu().numpy()
    ranks = []
    for maps in (first, second):
        values = maps.flatten(1).double().nan_to_num().cpu().numpy()
        ranked = rankdata(values, axis=1)
        ranks.append(ranked - ranked.mean(axis=1, keepdims=True))
    one, other = ranks
    scale = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    correlation = (one * other).sum(axis=1) / np.where(undefined, 1, scale)
    return np.where(undefined, np.nan, correlation.clip(-1, 1))


def largest_difference(first: Tensor, second: Tensor) -> Float64:
    """Largest difference in any place, as a share of the larger of the two ranges.

    Of the larger, or a map that hardly varies would make any difference a large one.

    Args:
        first: (n, h, w).
        second: (n, h, w).

    Returns:
        (n,), 0 for equal maps; NaN where one of the two is ``flat``.
    """
    undefined = flat(first) | flat(second)
    one, other = first.flatten(1).double(), second.flatten(1).double()
    span = torch.maximum(one.amax(dim=1) - one.amin(dim=1), other.amax(dim=1) - other.amin(dim=1))
    found = (one - other).abs().amax(dim=1) / span.where(~undefined, 1)
    return np.asarray(found.where(~undefined, np.nan).cpu().numpy(), np.float64)
