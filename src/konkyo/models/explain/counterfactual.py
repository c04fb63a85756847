"""Counterfactual explanation (Selvaraju et al., ICCV 2017, section 3.3).

    alpha_k^c = 1/Z sum_ij -dy^c / dA^k_ij            L^c = ReLU(sum_k alpha_k^c A^k)

Where it is positive, the image speaks against the class: without these regions the score would rise.
Before the ReLU, which is rendering's, it is Grad-CAM's map negated.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from konkyo.models.explain import register
from konkyo.models.explain.gradcam import GradCAM


@register
class Counterfactual(GradCAM):
    """Features weighted by their mean negated gradient, signed.

    Example:
        >>> import torch
        >>> from konkyo.models.cnn import CNN
        >>> network, image, targets = CNN(10).eval(), torch.rand(1, 3, 32, 32), torch.tensor([[3]])
        >>> torch.equal(Counterfactual(network)(image, targets)[1], -GradCAM(network)(image, targets)[1])
        True
    """

    name: ClassVar[str] = "counterfactual"

    def weigh(self, features: Tensor, weights: Tensor) -> Tensor:
        """See ``GradCAM.weigh``."""
        return -super().weigh(features, weights)
