"""Grad-CAM's weights in closed form where a vision transformer decides by its class token.

The last block of ViT (Dosovitskiy et al., ICLR 2021) and DeiT (Touvron et al., ICML 2021), cut at its
first norm. The head reads one row of its output, or two, so only that row is computed. With ``n_j``
the normed tokens, of one head of the attention:

    u = W_k' q / sqrt(d)       p = softmax(u n_j)       m = sum_j p_j n_j       o = W_v m + b_v

where neither keys nor values are ever made: what they would add alike to every token, softmax cancels.
The row then goes through projection, norm, MLP, norm and head, and back the same way for each class,
to a gradient by ``o``. With ``w = W_v' do`` that by a token is

    dy/dn_j = p_j w + p_j (n_j - m) w u

by its value and by its key; the query and the residual stream of a patch carry nothing, as no head reads
them. Its mean over the patches commutes with the sums, so K classes cost K rows, not K maps of tokens.

Shape legend: B batch, N classes, K targets, S tokens the heads read, T tokens, H heads of the attention
of d channels each, C feature channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Attention, Mlp  # type: ignore[attr-defined]
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from konkyo.models.cut import Hook
from konkyo.models.explain import resolve_targets
from konkyo.models.explain.rows import Normalised, class_rows, full_precision, gelu_slope, linear, wide


@dataclass(frozen=True)
class ClassToken:
    """The closed form of one network.

    Attributes:
        block: the last, cut at ``norm1``.
        norms: between it and the heads.
        heads: S of them; each reads the token of its place, and their logits are averaged.
        prefix_tokens: before those of the patches.
    """

    block: Any  # a Block, whose parts timm leaves untyped
    norms: tuple[nn.LayerNorm, ...]
    heads: tuple[nn.Linear, ...]
    prefix_tokens: int

    def __call__(self, features: Tensor, rest: Sequence[Any], targets: Tensor) -> tuple[Tensor, Tensor]:
        """See ``ClosedForm``: tokens (B, T, C), and beside them the residual stream (B, T, C)."""
        with full_precision(features):
            read = len(self.heads)
            tokens = wide(features)
            attention = _Attended.of(self.block.attn, tokens, read, self.prefix_tokens)
            update = linear(attention.output, self.block.attn.proj)  # (B, S, C)
            between = wide(rest[0][:, :read]) + _scaled(update, self.block.ls1)
            normed = Normalised.of(between, self.block.norm2)
            hidden = linear(normed.output(), self.block.mlp.fc1)
            update = linear(F.gelu(hidden), self.block.mlp.fc2)
            rows = between + _scaled(update, self.block.ls2)
            last = []
            for norm in self.norms:
                last.append(Normalised.of(rows, norm))
                rows = last[-1].output()
            each = [linear(rows[:, place], head) for place, head in enumerate(self.heads)]
            logits = torch.stack(each).mean(dim=0)  # (B, N)

            gradient = class_rows(self.heads, resolve_targets(logits, targets))  # (B, K, S, C)
            for step in reversed(last):
                gradient = step.gradient(gradient)
            inner = _scaled(gradient, self.block.ls2) @ wide(self.block.mlp.fc2.weight)
            inner = (inner * gelu_slope(hidden)[:, None]) @ wide(self.block.mlp.fc1.weight)
            gradient = gradient + normed.gradient(inner)
            gradient = _scaled(gradient, self.block.ls1) @ wide(self.block.attn.proj.weight)
            return logits, attention.mean_gradient(gradient)


@dataclass(frozen=True)
class _Attended:
    """What the tokens that are read attend to.

    Attributes:
        output: of the heads, side by side, (B, S, H d).
        values: W_v, (H, d, C).
        slopes: u, the gradient of a score by its token, (B, S, H, C).
        share: mean attention a patch gets, (B, S, H, 1).
        spread: mean over the patches of p_j (n_j - m), (B, S, H, C).
    """

    output: Tensor
    values: Tensor
    slopes: Tensor
    share: Tensor
    spread: Tensor

    @classmethod
    def of(cls, layer: Attention, tokens: Tensor, read: int, prefix: int) -> _Attended:
        heads = (layer.num_heads, layer.head_dim)
        w_q, w_k, w_v = wide(layer.qkv.weight).reshape(3, *heads, -1).unbind(0)  # each (H, d, C)
        queries = torch.einsum("bsc,hdc->bshd", tokens[:, :read], w_q)
        if layer.qkv.bias is not None:
            b_q, _, b_v = wide(layer.qkv.bias).reshape(3, *heads).unbind(0)  # each (H, d)
            queries = queries + b_q
        slopes = torch.einsum("bshd,hdc->bshc", queries * layer.scale, w_k)
        attention = torch.einsum("bshc,btc->bsht", slopes, tokens).softmax(dim=-1)
        of_prefix = torch.einsum("bsht,btc->bshc", attention[..., :prefix], tokens[:, :prefix])
        of_patches = torch.einsum("bsht,btc->bshc", attention[..., prefix:], tokens[:, prefix:])
        output = torch.einsum("bshc,hdc->bshd", of_prefix + of_patches, w_v)
        if layer.qkv.bias is not None:
            output = output + b_v
        patches = tokens.shape[1] - prefix
        inside = attention[..., prefix:].sum(dim=-1, keepdim=True)
        outside = attention[..., :prefix].sum(dim=-1, keepdim=True)
        # With p summing to 1 this is of_patches - inside * m, without the cancellation.
        spread = (outside * of_patches - inside * of_prefix) / patches
        return cls(output.flatten(2), w_v, slopes, inside / patches, spread)

    def mean_gradient(self, upstream: Tensor) -> Tensor:
        """Over the patches, by that of the output: (B, K, S, H d) -> (B, K, C)."""
        upstream = upstream.reshape(*upstream.shape[:-1], *self.values.shape[:2])  # (B, K, S, H, d)
        w = torch.einsum("bkshd,hdc->bkshc", upstream, self.values)
        by_key = (w * self.spread[:, None]).sum(dim=-1, keepdim=True) * self.slopes[:, None]
        return (w * self.share[:, None] + by_key).sum(dim=(2, 3))


def _scaled(rows: Tensor, scale: nn.Module) -> Tensor:
    gamma = getattr(scale, "gamma", None)
    return rows if gamma is None else rows * wide(gamma)


def find_class_token(hook: Hook) -> ClassToken | None:
    """The closed form of a network of this kind that is cut at the first norm of its last block."""
    network: Any = hook.root
    if (
        not isinstance(hook.root, VisionTransformer)
        or hook.layer != f"blocks.{len(network.blocks) - 1}.norm1"
    ):
        return None
    block = network.blocks[-1]
    if type(block) is not Block or network.global_pool != "token" or network.attn_pool is not None:
        return None
    attention: Any = block.attn
    mlp: Any = block.mlp
    if type(attention) is not Attention or attention.gate is not None or type(mlp) is not Mlp:
        return None
    inner = (attention.q_norm, attention.k_norm, attention.norm, mlp.norm)
    norms = [norm for norm in (network.norm, network.fc_norm) if not isinstance(norm, nn.Identity)]
    heads = [network.head]
    if isinstance(hook.root, VisionTransformerDistilled):
        heads.append(network.head_dist)
    plain = all(isinstance(norm, nn.Identity) for norm in inner) and isinstance(mlp.act, nn.GELU)
    if not plain or not all(isinstance(norm, nn.LayerNorm) for norm in (block.norm2, *norms)):
        return None
    return ClassToken(block, tuple(norms), tuple(heads), hook.layout.prefix_tokens)
