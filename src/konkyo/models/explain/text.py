"""The importance of each neuron, for an explanation in words (Selvaraju et al., IJCV 2020, section 7).

Grad-CAM's weights alpha_k^c say how much a class rests on each channel of the layer, each of which may
stand for something that has a name. ``models/neurons.py`` makes words of them.

Shape legend: B batch, K targets, C feature channels, h, w grid.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from konkyo.models.card import MapKind
from konkyo.models.explain import register
from konkyo.models.explain.gradcam import GradCAM


@register
class NeuronImportances(GradCAM):
    """Grad-CAM's weights themselves, as maps (B, K, 1, C).

    Example:
        >>> import torch
        >>> from konkyo.models.cnn import CNN
        >>> _, maps = NeuronImportances(CNN(10).eval())(torch.rand(1, 3, 32, 32), torch.tensor([[-1, 3]]))
        >>> maps.shape
        torch.Size([1, 2, 1, 64])
    """

    name: ClassVar[str] = "text"
    map_kind: ClassVar[MapKind] = "neuron_importance"

    def weigh(self, features: Tensor, weights: Tensor) -> Tensor:
        """(B, C, h, w), (B, K, C) -> (B, K, 1, C)."""
        return weights[:, :, None]
