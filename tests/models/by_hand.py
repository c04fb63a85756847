"""Layers recomputed from a state dict, for tests that must not call the modules they test."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]


def norm(x: Tensor, state: State, name: str) -> Tensor:
    """Batch norm by the running statistics."""
    parts = ("running_mean", "running_var", "weight", "bias")
    return F.batch_norm(x, *(state[f"{name}.{part}"] for part in parts))


def conv(x: Tensor, state: State, name: str, *, stride: int = 1, padding: int = 0) -> Tensor:
    return F.conv2d(x, state[f"{name}.weight"], stride=stride, padding=padding)


def basic_layer(x: Tensor, state: State, name: str, *, blocks: int, stride: int) -> Tensor:
    """A layer of a ResNet of basic blocks; the first has the stride, and a projection where it needs one."""
    for block in range(blocks):
        here, step = f"{name}.{block}", stride if block == 0 else 1
        y = F.relu(norm(conv(x, state, f"{here}.conv1", stride=step, padding=1), state, f"{here}.bn1"))
        y = norm(conv(y, state, f"{here}.conv2", padding=1), state, f"{here}.bn2")
        if f"{here}.downsample.0.weight" in state:
            x = norm(conv(x, state, f"{here}.downsample.0", stride=step), state, f"{here}.downsample.1")
        x = F.relu(x + y)
    return x


def attention_branch(staged: Tensor, state: State, name: str) -> tuple[Tensor, Tensor]:
    """What follows the stage of an attention branch: (B, C, h, w) -> map (B, h, w), logits (B, N)."""
    shared = conv(norm(staged, state, f"{name}.bn"), state, f"{name}.shared.0")
    shared = F.relu(norm(shared, state, f"{name}.shared.1"))
    attention = norm(conv(shared, state, f"{name}.map.0", padding=1), state, f"{name}.map.1").sigmoid()
    return attention[:, 0], conv(shared, state, f"{name}.classify").mean(dim=(2, 3))
