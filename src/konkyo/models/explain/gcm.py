"""GCM's own explanation: the class weight map of each target (IPSJ TOM 10-2, 2017; ``models/gcm.py``).

    score_j = mean(tile(CWM_j) * I)

The map is not derived from the decision; the decision is computed from the map. Its product with
the image, which is what a person is shown, is left to rendering: the map is half of it already.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from konkyo.models.card import MapKind
from konkyo.models.explain import register, resolve_targets, select_maps
from konkyo.models.gcm import GCM, contribution_score


@register
class ClassWeightMap(nn.Module):
    """Class weight maps at the size of the input, signed unless the network is clipped.

    Example:
        >>> import torch
        >>> logits, maps = ClassWeightMap(GCM(10))(torch.rand(1, 3, 32, 32), torch.tensor([[3, -1]]))
        >>> maps.shape
        torch.Size([1, 2, 32, 32])
    """

    name: ClassVar[str] = "gcm"
    map_kind: ClassVar[MapKind] = "class_weight_map"
    class_specific: ClassVar[bool] = True
    takes_attention: ClassVar[bool] = False
    takes_layer: ClassVar[bool] = False
    differentiates: ClassVar[bool] = False
    scales: ClassVar[int] = 1

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        if not isinstance(network, GCM):
            raise TypeError(f"only GCM generates class weight maps, not {type(network).__name__}")
        self.network = network

    def forward(self, image: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D, H, W), (B, K) -> logits (B, N), maps (B, K, H, W)."""
        maps = self.network.class_weight_maps(image)  # (B, N, H, W)
        logits = contribution_score(maps, image)
        return logits, select_maps(maps, resolve_targets(logits, targets))
