"""Grad-CAM++ (Chattopadhay et al., WACV 2018, equations 5 and 19), with g = dy^c / dA^k.

    alpha^kc_ij = g^2 / (2 g^2 + sum_ab A^k_ab g^3) = 1 / (2 + g sum_ab A^k_ab)
    w_k^c = sum_ij alpha^kc_ij ReLU(g)                L^c = ReLU(sum_k w_k^c A^k)

It assumes that the class score is exp(y^c) and that y^c is piecewise linear in the features, as after
ReLUs: then the second and third derivatives of the score are powers of g, and a factor exp(y^c) common
to the whole map is left out. It also assumes features that are not negative. With others, as behind a
layer norm, the sum may be negative and the denominator near zero, and then one channel is the map.

The public libraries add 1e-6 to the first denominator, which is more than 2 g^2 wherever g is
below 7e-4, as behind a global average of 7 x 7; here nothing is added.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from konkyo.models.explain import register
from konkyo.models.explain.gradcam import weighted_sum
from konkyo.models.explain.gradients import LayerGradient


@register
class GradCAMPlusPlus(LayerGradient):
    """Features weighted by the sum of their positive gradients, each by its share alpha."""

    name: ClassVar[str] = "gradcam-plus-plus"

    def combine(self, features: Tensor, gradients: Tensor) -> Tensor:
        """See ``LayerGradient.combine``."""
        sums = features.sum(dim=(-2, -1))[:, None, :, None, None]  # (B, 1, C, 1, 1)
        denominators = 2 + gradients * sums  # (B, K, C, h, w)
        positive = gradients.clamp(min=0)
        shares = torch.where(denominators == 0, 0, positive / denominators)
        return weighted_sum(features, shares.sum(dim=(-2, -1)))
