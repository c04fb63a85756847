"""The linear classifier of DINO on a vision transformer (Caron et al., ICCV 2021).

It does not look at the last block alone: the class tokens after each of the last blocks, normed, lie
one after the other before one linear layer. For ViT-S these are 4 blocks of 384, so 1,536 numbers.

Shape legend: B batch, D input channels, H, W input size, N classes, T tokens, C width of a token.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.models import VisionTransformer
from torch import Tensor, nn

from konkyo.models.registry import register
from konkyo.models.timm_net import TimmNet


@register("dino-vit")
class DinoViT(TimmNet):
    """A vision transformer that decides by the class tokens of its last blocks.

    Args:
        num_classes: N, at least 2.
        name: of a plain vision transformer of timm: a class token, positions for all tokens, one norm
            at the end.
        blocks: how many of the last blocks the head sees.
        arguments: as of ``TimmNet``.

    Raises:
        ValueError: as of ``TimmNet``; the network is no such transformer, or has fewer blocks.

    Example:
        >>> network = DinoViT(10, name="vit_tiny_patch16_224", blocks=2)
        >>> network.network.head.in_features
        384
    """

    def __init__(
        self, num_classes: int, *, name: str = "vit_small_patch16_224.dino", blocks: int = 4, **arguments: Any
    ) -> None:
        super().__init__(num_classes, name=name, **arguments)
        self.blocks = blocks
        self.network = _LastTokens(self.network, num_classes, blocks)

    def arguments(self) -> dict[str, Any]:
        """See ``TimmNet.arguments``."""
        return {**super().arguments(), "blocks": self.blocks}


class _LastTokens(nn.Module):
    """The parts of a transformer under their own names, with another head."""

    def __init__(self, network: nn.Module, num_classes: int, blocks: int) -> None:
        super().__init__()
        if not isinstance(network, VisionTransformer) or not _plain(network):
            raise ValueError(f"{type(network).__name__} is no plain vision transformer with a class token")
        if not 1 <= blocks <= len(network.blocks):
            raise ValueError(
                f"the network has {len(network.blocks)} blocks, of which {blocks} cannot be seen"
            )
        self.pretrained_cfg = network.pretrained_cfg
        self.num_classes = num_classes
        self.patch_embed = network.patch_embed
        self.cls_token = _given(network.cls_token)
        self.pos_embed = _given(network.pos_embed)
        self.blocks = network.blocks
        self.norm = network.norm
        self.head = nn.Linear(blocks * network.embed_dim, num_classes)
        self._first = len(network.blocks) - blocks

    def forward(self, image: Tensor) -> Tensor:
        """Logits: (B, D, H, W) -> (B, N)."""
        patches = self.patch_embed(image)  # (B, T - 1, C)
        tokens = torch.cat([self.cls_token.expand(patches.shape[0], -1, -1), patches], dim=1)
        tokens = tokens + self.pos_embed  # (B, T, C)
        seen = []
        for position, block in enumerate(self.blocks):
            tokens = block(tokens)
            if position >= self._first:
                seen.append(self.norm(tokens[:, 0]))
        logits: Tensor = self.head(torch.cat(seen, dim=1))
        return logits


def _given(parameter: nn.Parameter | None) -> nn.Parameter:
    assert parameter is not None
    return parameter


def _plain(network: VisionTransformer) -> bool:
    positions = network.pos_embed
    return (
        network.num_prefix_tokens == 1
        and network.cls_token is not None
        and positions is not None
        and positions.shape[1] == network.patch_embed.num_patches + 1
        and isinstance(network.norm_pre, nn.Identity)
        and isinstance(network.norm, nn.LayerNorm)
    )
