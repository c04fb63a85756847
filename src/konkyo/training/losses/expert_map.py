"""Attention map loss of multi-scale ABN with expert knowledge (diabetic retinopathy grading).

    L_map = sum_l w_l |M'_l - M_l| / sqrt(h_l w_l)

with M_l the network's attention map of scale l, M'_l the expert's map on the grid of that scale: the
cells that the marked area touches.

The paper has the Euclidean norm, not its square, so do we: every image pulls with the same force,
however far its map is off, and the force does not fade while the map is still wrong. Divided by the
root of the number of cells it is the root mean square error, in units of attention, so that a
weight means the same on a fine grid as on a coarse one. (The paper gives no weights.)

Shape legend: B batch, S scales, h, w the grid of a map, H, W the grid of the expert's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from konkyo.models.attention import touched
from konkyo.training.losses.precision import at_least_float32


def expert_map_loss(
    maps: Tensor | Sequence[Tensor], expert: Tensor, known: Tensor, weights: Sequence[float]
) -> Tensor:
    """Root mean square error of the attention maps against an expert's, weighted by scale.

    Args:
        maps: (B, S, h, w), or of each scale (B, h, w) on its own grid; of any floating type.
        expert: (B, H, W) in [0, 1]; brought to each grid by ``touched``.
        known: (B,) bool, which images have an expert's map; what ``expert`` holds of the others
            does not matter.
        weights: of each scale, at least 0.

    Returns:
        Scalar, the sum over the scales of the mean over the images with an expert's map; 0 where
        there is none, still part of the graph.

    Raises:
        ValueError: not as many weights as scales.
    """
    scales = maps.unbind(dim=1) if isinstance(maps, Tensor) else maps
    expert = at_least_float32(expert).masked_fill(~known[:, None, None], 0)
    count = known.sum().clamp(min=1)
    total = torch.zeros((), dtype=expert.dtype, device=expert.device)
    for attention_map, weight in zip(scales, weights, strict=True):
        height, width = attention_map.shape[-2:]
        target = touched(expert, (height, width))  # (B, h, w)
        # In the target's precision, at least float32. The norm's gradient is 0 where they agree, not NaN.
        distance = torch.linalg.vector_norm(attention_map - target, dim=(-2, -1))  # (B,)
        error = torch.where(known, distance, 0).sum() / (count * math.sqrt(height * width))
        total = total + weight * error
    return total
