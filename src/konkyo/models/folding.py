"""Batch norms folded into the convolutions before them: fewer operations, and no statistics to store.

scale = weight / sqrt(var + eps)        W' = W scale        b' = (b - mean) scale + bias
"""

from __future__ import annotations

from collections import Counter

import torch
from timm.layers import BatchNormAct2d, Conv2dSame  # type: ignore[attr-defined]
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from konkyo.models.cut import Trace

_CONVOLUTIONS = (nn.Conv2d, Conv2dSame)
_NORMS = (nn.BatchNorm2d, BatchNormAct2d)
"""These types and none that inherit from them, which may do something else with their weights."""


@torch.no_grad()
def fold_batch_norms(network: nn.Module) -> int:
    """Fold, in place, every batch norm that alone takes the output of a convolution.

    A batch norm leaves an identity behind, or the activation that timm joins to it, under its old name;
    the convolution has a bias afterwards. In eval mode the network computes what it computed before.

    Returns:
        How many were folded.

    Raises:
        ValueError: the network cannot be traced into a graph.
    """
    graph = Trace(network, whole=_NORMS).graph
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    modules = dict(network.named_modules())
    folded = 0
    for node in graph.nodes:
        norm = _called(node, modules)
        if not isinstance(norm, nn.BatchNorm2d) or type(norm) not in _NORMS or norm.running_mean is None:
            continue
        source = _behind_identities(node.args[0], modules)
        conv = _called(source, modules)
        alone = len(source.users) == calls[source.target] == calls[node.target] == 1
        if isinstance(conv, nn.Conv2d) and type(conv) in _CONVOLUTIONS and alone:
            _fold(conv, norm)
            network.set_submodule(node.target, _rest(norm))
            folded += 1
    return folded


def _called(node: fx.Node, modules: dict[str, nn.Module]) -> nn.Module | None:
    return modules[str(node.target)] if node.op == "call_module" else None


def _behind_identities(node: fx.Node, modules: dict[str, nn.Module]) -> fx.Node:
    while (
        isinstance(_called(node, modules), nn.Identity)
        and len(node.users) == 1
        and isinstance(node.args[0], fx.Node)
    ):
        node = node.args[0]
    return node


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """In double precision, so that the only rounding is that of the result."""
    parts = (conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    weight, bias, mean, var, scale, shift = (part if part is None else part.double() for part in parts)
    fused = fuse_conv_bn_weights(weight, bias, mean, var, norm.eps, scale, shift)  # type: ignore[arg-type]
    conv.weight, conv.bias = (nn.Parameter(part.to(conv.weight.dtype)) for part in fused)


def _rest(norm: nn.Module) -> nn.Module:
    """What the norm does beside normalising."""
    if isinstance(norm, BatchNormAct2d):
        return nn.Sequential(norm.drop, norm.act).train(norm.training)
    return nn.Identity().train(norm.training)
