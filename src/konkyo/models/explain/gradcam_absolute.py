"""Grad-CAM with absolute gradients (Selvaraju et al., IJCV 2020, appendix on design choices).

    alpha_k^c = 1/Z sum_ij |dy^c / dA^k_ij|           L^c = sum_k alpha_k^c A^k

A channel counts by how much the score depends on it, in either direction.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from konkyo.models.explain import register
from konkyo.models.explain.gradcam import weighted_sum
from konkyo.models.explain.gradients import LayerGradient


@register
class GradCAMAbsolute(LayerGradient):
    """Features weighted by their mean absolute gradient; not negative where the features are not."""

    name: ClassVar[str] = "gradcam-absolute"

    def combine(self, features: Tensor, gradients: Tensor) -> Tensor:
        """See ``LayerGradient.combine``."""
        return weighted_sum(features, gradients.abs().mean(dim=(-2, -1)))
