"""The attention map of an Attention Branch Network, its own and as a person edits it (``models/abn.py``).

The map is not derived from the decision either: the decision is computed through it. So it may be
replaced on the way, and the logits are those of the replaced map.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from konkyo.models.attention import AttentionNetwork
from konkyo.models.card import MapKind
from konkyo.models.explain import register


@register
class Attention(nn.Module):
    """One attention map a scale, in [0, 1], the same for every target.

    Example:
        >>> import torch
        >>> from konkyo.models.abn import ABN
        >>> image, targets = torch.rand(1, 3, 32, 32), torch.tensor([[-1]])
        >>> logits, maps = Attention(ABN(10))(image, targets, torch.full((1, 1, 1), -1.0))
        >>> maps.shape
        torch.Size([1, 1, 16, 16])
    """

    name: ClassVar[str] = "attention"
    map_kind: ClassVar[MapKind] = "attention_map"
    class_specific: ClassVar[bool] = False
    takes_attention: ClassVar[bool] = True
    takes_layer: ClassVar[bool] = False
    differentiates: ClassVar[bool] = False

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        if not isinstance(network, AttentionNetwork):
            raise TypeError(f"{type(network).__name__} has no attention map")
        self.network = network

    @property
    def scales(self) -> int:
        """S, the number of maps."""
        return self.network.scales

    def forward(
        self, image: Tensor, targets: Tensor, attention: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(B, D, H, W), (B, K), an edit (B, h', w') -> logits (B, N), maps (B, S, h, w).

        ``targets`` are not looked at: the map is one for all classes.
        """
        return self.network.attend(image, attention)
