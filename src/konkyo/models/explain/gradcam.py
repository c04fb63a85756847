"""Grad-CAM (Selvaraju et al., ICCV 2017, equations 1 and 2).

    alpha_k^c = 1/Z sum_ij dy^c / dA^k_ij             L^c = ReLU(sum_k alpha_k^c A^k)

The map leaves signed: the ReLU is the part of it that is shown, and the part it drops is the
counterfactual explanation of the same paper. So the ablation "without ReLU" is this map as it leaves;
its other variants are ``gradcam_*.py``. Where the head of the network allows, the weights have a
closed form (``closed_form.py``): the map costs no backward pass and can be exported.

Shape legend: B batch, K targets, C feature channels, h, w grid.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from konkyo.models.explain import register
from konkyo.models.explain.closed_form import find_closed_form
from konkyo.models.explain.gradients import LayerGradient
from konkyo.models.explain.rows import full_precision, wide


def weighted_sum(features: Tensor, weights: Tensor) -> Tensor:
    """sum_k alpha_k A^k: (B, C, h, w), (B, K, C) -> (B, K, h, w)."""
    with full_precision(features):
        return torch.matmul(weights, features.flatten(2)).view(*weights.shape[:2], *features.shape[2:])


@register
class GradCAM(LayerGradient):
    """Features weighted by their mean gradient, signed.

    Example:
        >>> import torch
        >>> from konkyo.models.cnn import CNN
        >>> logits, maps = GradCAM(CNN(10).eval())(torch.rand(1, 3, 32, 32), torch.tensor([[-1, 3]]))
        >>> maps.shape
        torch.Size([1, 2, 8, 8])
    """

    name: ClassVar[str] = "gradcam"

    def __init__(self, network: nn.Module, layer: str | None = None) -> None:
        super().__init__(network, layer)
        self.closed_form = find_closed_form(self.network, self.hook, self.cut)

    @property
    def differentiates(self) -> bool:
        """Only where there is no closed form."""
        return self.closed_form is None

    def combine(self, features: Tensor, gradients: Tensor) -> Tensor:
        """See ``LayerGradient.combine``."""
        return self.weigh(features, gradients.mean(dim=(-2, -1)))

    def weigh(self, features: Tensor, weights: Tensor) -> Tensor:
        """What is shown of features (B, C, h, w) and weights alpha (B, K, C)."""
        return weighted_sum(features, weights)

    def forward(self, image: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D, H, W), (B, K) -> logits (B, N), maps (B, K, h, w)."""
        if self.closed_form is None:
            return super().forward(image, targets)
        with torch.no_grad():
            features, *rest = self.cut.trunk(image)
            logits, weights = self.closed_form(features, rest, targets)  # (B, N), (B, K, C)
            return logits, self.weigh(wide(self.hook.layout.to_map(features)), weights)
