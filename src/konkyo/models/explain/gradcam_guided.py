"""Grad-CAM through guided ReLUs (Selvaraju et al., IJCV 2020, appendix on design choices).

The weights are the mean of gradients for which the ReLUs between the layer and the score are those of
guided backpropagation (``relus.py``). Where there is no ReLU in between, as after the last convolution
of most networks, this is Grad-CAM itself and not offered.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from konkyo.models.explain import register
from konkyo.models.explain.gradcam import weighted_sum
from konkyo.models.explain.gradients import LayerGradient
from konkyo.models.explain.relus import ModifiedCut, guided_relu


@register
class GradCAMGuided(LayerGradient):
    """Features weighted by their mean gradient through guided ReLUs, signed.

    Args:
        network: with a ``hook``.
        layer: one with ReLUs behind it; default: the network's own choice.

    Raises:
        TypeError: the network cannot be cut, or has activations other than ReLU after the layer.
        ValueError: it cannot be cut there, or there is no ReLU after the layer.

    Example:
        >>> import torch
        >>> from konkyo.models.cnn import CNN
        >>> method = GradCAMGuided(CNN(10).eval(), "features.20")
        >>> method(torch.rand(1, 3, 32, 32), torch.tensor([[-1, 3]]))[1].shape
        torch.Size([1, 2, 8, 8])
    """

    name: ClassVar[str] = "gradcam-guided"
    relu = staticmethod(guided_relu)
    cut: ModifiedCut

    def __init__(self, network: nn.Module, layer: str | None = None) -> None:
        super().__init__(network, layer)
        self.cut.require(self.name, "gradcam", network, layer)

    def cut_network(self) -> ModifiedCut:
        """See ``LayerGradient.cut_network``."""
        return ModifiedCut(self.hook.root, self.hook.layer, self.relu)

    def combine(self, features: Tensor, gradients: Tensor) -> Tensor:
        """See ``LayerGradient.combine``."""
        return weighted_sum(features, gradients.mean(dim=(-2, -1)))
