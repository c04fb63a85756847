"""Grad-CAM with max-pooled gradients (Selvaraju et al., IJCV 2020, appendix on design choices).

    alpha_k^c = max_ij dy^c / dA^k_ij                 L^c = ReLU(sum_k alpha_k^c A^k)

For a head of global average pooling and one linear layer the gradient is the same everywhere, and so
the map is Grad-CAM's.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from konkyo.models.explain import register
from konkyo.models.explain.gradcam import weighted_sum
from konkyo.models.explain.gradients import LayerGradient


@register
class GradCAMMax(LayerGradient):
    """Features weighted by their largest gradient, signed."""

    name: ClassVar[str] = "gradcam-max"

    def combine(self, features: Tensor, gradients: Tensor) -> Tensor:
        """See ``LayerGradient.combine``."""
        return weighted_sum(features, gradients.amax(dim=(-2, -1)))
