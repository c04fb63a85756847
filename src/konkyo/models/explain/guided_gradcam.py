"""Guided Grad-CAM (Selvaraju et al., ICCV 2017, section 3.2).

    guided backpropagation * upsample(ReLU(Grad-CAM))

As fine as the first and as specific to the class as the second. The upsampling is bilinear, as in the
paper, and the ReLU is part of the method: without it, two negatives would show as evidence for the
class.

Shape legend: B batch, D input channels, H, W input size, N classes, K targets.
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from konkyo.models.card import MapKind
from konkyo.models.explain import register, resolve_targets
from konkyo.models.explain.gradcam import GradCAM
from konkyo.models.explain.guided_backprop import GuidedBackprop


@register
class GuidedGradCAM(nn.Module):
    """Gradients by the image through guided ReLUs, where Grad-CAM is positive; at the size of the input.

    Args:
        network: with a ``hook``, whose activations are ReLUs.
        layer: of Grad-CAM; default: the network's own choice.

    Raises:
        TypeError: as ``GuidedBackprop``, or the network does not say where it can be cut.
        ValueError: it cannot be cut there.

    Example:
        >>> import torch
        >>> from konkyo.models.cnn import CNN
        >>> method = GuidedGradCAM(CNN(10).eval())
        >>> method(torch.rand(1, 3, 32, 32), torch.tensor([[-1, 3]]))[1].shape
        torch.Size([1, 2, 32, 32])
    """

    name: ClassVar[str] = "guided-gradcam"
    map_kind: ClassVar[MapKind] = "input_gradient"
    class_specific: ClassVar[bool] = True
    takes_attention: ClassVar[bool] = False
    takes_layer: ClassVar[bool] = True
    differentiates: ClassVar[bool] = True
    scales: ClassVar[int] = 1
    backprop: ClassVar[type[GuidedBackprop]] = GuidedBackprop

    def __init__(self, network: nn.Module, layer: str | None = None) -> None:
        super().__init__()
        self.gradcam = GradCAM(network, layer)
        self.fine = self.backprop(network)

    def gradients(self, image: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D, H, W), (B, K) -> logits (B, N), products (B, K, D, H, W)."""
        logits, maps = self.gradcam(image, targets)  # (B, N), (B, K, h, w)
        _, gradients = self.fine.gradients(image, resolve_targets(logits, targets))
        if not targets.shape[1]:  # interpolation refuses to make nothing of nothing
            return logits, gradients
        coarse = F.interpolate(maps.clamp(min=0), image.shape[-2:], mode="bilinear")
        return logits, gradients * coarse[:, :, None]

    def forward(self, image: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D, H, W), (B, K) -> logits (B, N), maps (B, K, H, W)."""
        logits, products = self.gradients(image, targets)
        return logits, products.sum(dim=2)
