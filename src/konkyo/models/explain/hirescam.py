"""HiResCAM (Draelos and Carin, arXiv:2011.08891, equation 2).

    L^c = sum_k dy^c / dA^k * A^k

Grad-CAM without the mean over positions: each feature is weighted by its own gradient. Where the score
is linear in the features, the map sums to the score less its bias; it is signed.

Where the features go through a layer norm and nowhere else, as the last patch tokens of CaiT, the score
does not depend on their length, the products cancel, and this method has nothing to show. What rounding
leaves of such sums is set to zero, so that no map is made of it.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from konkyo.models.explain import register
from konkyo.models.explain.gradients import LayerGradient

CANCELLED = 1e-5
"""A sum this small beside its terms is rounding, of single precision or of the layer norm's epsilon."""


@register
class HiResCAM(LayerGradient):
    """Features times their gradients, summed over the channels, signed."""

    name: ClassVar[str] = "hirescam"

    def combine(self, features: Tensor, gradients: Tensor) -> Tensor:
        """See ``LayerGradient.combine``."""
        products = gradients * features[:, None]  # (B, K, C, h, w)
        sums = products.sum(dim=2)
        return torch.where(sums.abs() > CANCELLED * products.abs().sum(dim=2), sums, 0)
