"""What the networks of the ABN family have in common: the attention branch, and edited maps.

Shape legend: B batch, N classes, C feature channels, S scales, h, w map grid, h', w' grid of an edit.
"""

from __future__ import annotations

import copy
from typing import NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AttentionOutputs(NamedTuple):
    """Everything the losses of the family are made of.

    Attributes:
        logits: the decision (B, N).
        auxiliary: logits (B, N) of every other part with a class output of its own.
        maps: one attention map (B, h, w) a scale, finest first, each on its own grid, in [0, 1].
        vectors: features (B, C) of the perception branch and of the attention branch, for losses on
            features; none where the network has no such loss.
        hidden_logits: decision (B, N) without the attended region; only of attention mining.
    """

    logits: Tensor
    auxiliary: tuple[Tensor, ...]
    maps: tuple[Tensor, ...]
    vectors: tuple[Tensor, ...] = ()
    hidden_logits: Tensor | None = None


@runtime_checkable
class AttentionNetwork(Protocol):
    """A network whose decision passes through an attention map that may be replaced."""

    num_classes: int

    @property
    def scales(self) -> int:
        """S, the number of maps."""
        ...

    def outputs(self, image: Tensor) -> AttentionOutputs:
        """Images (B, D, H, W), for training."""
        ...

    def attend(self, image: Tensor, attention: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Images (B, D, H, W) and an edit (B, h', w') -> logits (B, N), maps (B, S, h, w)."""
        ...

    def extractor(self) -> list[nn.Module]:
        """The modules of the feature extractor, which expert fine-tuning leaves as they are."""
        ...


class AttentionBranch(nn.Module):
    """Features to an attention map and a class output (Fukui et al., CVPR 2019, section 3.2).

    As in the authors' code: a stage at the grid of the features, batch norm without ReLU, a 1x1
    convolution to N channels, batch norm and ReLU give the tensor both outputs share; a 3x3
    convolution to one channel, batch norm and sigmoid give the map (the figure of the paper shows
    1x1; its numbers were made with 3x3); a 1x1 convolution and the global average give the logits.

    Args:
        stage: features (B, C', h, w) to (B, C, h, w).
        channels: C.
        num_classes: N.
    """

    def __init__(self, stage: nn.Module, channels: int, num_classes: int) -> None:
        super().__init__()
        self.stage = stage
        self.bn = nn.BatchNorm2d(channels)
        self.shared = nn.Sequential(
            nn.Conv2d(channels, num_classes, 1, bias=False), nn.BatchNorm2d(num_classes), nn.ReLU()
        )
        self.map = nn.Sequential(
            nn.Conv2d(num_classes, 1, 3, padding=1, bias=False), nn.BatchNorm2d(1), nn.Sigmoid()
        )
        self.classify = nn.Conv2d(num_classes, num_classes, 1, bias=False)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, C', h, w) -> map (B, h, w), logits (B, N), vectors (B, C)."""
        staged = self.stage(features)  # (B, C, h, w)
        shared = self.shared(self.bn(staged))  # (B, N, h, w)
        logits = self.classify(shared).mean(dim=(2, 3))
        return self.map(shared).squeeze(1), logits, staged.mean(dim=(2, 3))

    def attention_map(self, features: Tensor) -> Tensor:
        """Only the map: (B, C', h, w) -> (B, h, w)."""
        attention: Tensor = self.map(self.shared(self.bn(self.stage(features))))
        return attention.squeeze(1)


def at_stride_one(stage: nn.Module) -> nn.Module:
    """A copy of a stage that keeps the grid of its input.

    Strided convolutions get stride 1, and where their kernel is even a column and a row of zeros,
    without which the grid would shrink; pooling, as in the shortcuts of some ResNets, is left out.
    """
    copied = copy.deepcopy(stage)
    for name, module in list(copied.named_modules()):
        if isinstance(module, nn.Conv2d) and max(module.stride) > 1:
            module.stride = (1, 1)
            if module.kernel_size[0] % 2 == 0:
                copied.set_submodule(name, nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), module))
        elif isinstance(module, nn.AvgPool2d | nn.MaxPool2d):
            copied.set_submodule(name, nn.Identity())
    return copied


def edited(own: Tensor, attention: Tensor | None) -> Tensor:
    """Put a person's values in the place of a map's own, cell by cell.

        M' = M (1 - r(m)) + r(m a),    m = [a >= 0]

    Args:
        own: M, (B, h, w).
        attention: a, (B, h', w') or (1, h', w'), at any resolution; a negative cell leaves the
            network's own value. None leaves all of them.

    Returns:
        M', (B, h, w); r is ``area_resample``, so a coarse edit fills the cells it covers and a fine
        one counts by area.
    """
    if attention is None:
        return own
    given = (attention >= 0).to(own.dtype)
    size = own.shape[-2:]
    values = attention.to(own.dtype) * given
    return own * (1 - area_resample(given, size)) + area_resample(values, size)


def area_resample(maps: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Mean over the part of the map that each cell of another grid covers: exact, up or down.

    Args:
        maps: (B, h', w'), floating point.
        size: (h, w).

    Returns:
        (B, h, w); the map itself where the grids are the same.
    """
    rows = _overlap(maps.shape[-2], size[0], maps)  # (h, h')
    columns = _overlap(maps.shape[-1], size[1], maps)  # (w, w')
    return rows @ maps @ columns.T


def touched(masks: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """The map an expert would paint: every cell that the marked area touches, as a whole.

    The mean over the cell would make a defect of a few pixels a faint grey that nobody could tell
    from background, and the smallest defects are those a map is needed for.

    Args:
        masks: (B, H, W) in [0, 1], floating point, of any resolution.
        size: (h, w).

    Returns:
        (B, h, w): the largest value that each cell covers any part of.
    """
    return F.adaptive_max_pool2d(masks, tuple(size))


def _overlap(source: int, target: int, like: Tensor) -> Tensor:
    """Share of target cell i that source cell j covers: (target, source); rows sum to 1.

    Lengths are counted in 1/(source target) of the side, so they are whole numbers and exact.
    """
    i = torch.arange(target, device=like.device)[:, None]
    j = torch.arange(source, device=like.device)
    start = torch.maximum(i * source, j * target)
    end = torch.minimum((i + 1) * source, (j + 1) * target)
    return (end - start).clamp(min=0).to(like.dtype) / source
