"""Layers on single rows of features, in full precision, with their gradients written out.

What closed forms of gradients are made of. Parameters are read off the modules at each call, so that
the network may move and learn; whatever its type and the mode of autocast, what is computed here is
float32 or wider, since gradients in half precision underflow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def wide(tensor: Tensor) -> Tensor:
    """As float32, or as it is where that is wider."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def full_precision(tensor: Tensor) -> AbstractContextManager[object]:
    """No autocast; no context at all where there is none, for the exporter's sake."""
    device = tensor.device.type
    if torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


def linear(rows: Tensor, layer: nn.Linear) -> Tensor:
    """(..., C) -> (..., C')."""
    return F.linear(rows, wide(layer.weight), None if layer.bias is None else wide(layer.bias))


def class_rows(heads: Sequence[nn.Module], targets: Tensor) -> Tensor:
    """The weights of the targets, of heads whose logits are averaged.

    Args:
        heads: S linear layers, or convolutions of one pixel, C to N.
        targets: (B, K) in [0, N).

    Returns:
        (B, K, S, C), divided by S: the gradient of each target's logit by what each head takes.
    """
    rows = [wide(_weight(head).flatten(1))[targets] for head in heads]  # each (B, K, C)
    return torch.stack(rows, dim=2) / len(heads)


def _weight(head: nn.Module) -> Tensor:
    weight = head.weight
    assert isinstance(weight, Tensor)
    return weight


def gelu_slope(rows: Tensor) -> Tensor:
    """Derivative of ``x Phi(x)``: ``Phi(x) + x phi(x)``."""
    below = 0.5 * (1 + torch.erf(rows / math.sqrt(2)))
    return below + rows * torch.exp(-0.5 * rows * rows) / math.sqrt(2 * math.pi)


@dataclass(frozen=True)
class Normalised:
    """Rows through a layer norm.

    Attributes:
        rows: (..., C) of mean 0 and deviation 1.
        inverse: 1 over the deviation they had, (..., 1).
        layer: whose scale and shift are applied to them.
    """

    rows: Tensor
    inverse: Tensor
    layer: nn.LayerNorm

    @classmethod
    def of(cls, rows: Tensor, layer: nn.LayerNorm) -> Normalised:
        """Normalise (..., C)."""
        centred = rows - rows.mean(dim=-1, keepdim=True)
        inverse = torch.rsqrt(centred.square().mean(dim=-1, keepdim=True) + layer.eps)
        return cls(centred * inverse, inverse, layer)

    def output(self) -> Tensor:
        """What the layer gives."""
        rows = self.rows if self.layer.weight is None else self.rows * wide(self.layer.weight)
        return rows if self.layer.bias is None else rows + wide(self.layer.bias)

    def gradient(self, upstream: Tensor) -> Tensor:
        """Of the input by that of the output, for each of K: (B, K, ..., C) -> (B, K, ..., C)."""
        u = upstream if self.layer.weight is None else upstream * wide(self.layer.weight)
        rows, inverse = self.rows[:, None], self.inverse[:, None]
        return (u - u.mean(dim=-1, keepdim=True) - rows * (u * rows).mean(dim=-1, keepdim=True)) * inverse
