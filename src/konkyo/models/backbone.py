"""A convolutional network as a sequence of stages that can be cut between any two of them.

Attention branches sit between stages, so they need a network that is nothing but its children, one
after the other: every timm network with a feature hierarchy whose forward pass is such a chain
(ResNet, ResNeXt, RegNet, VGG, EfficientNet, ConvNeXt and their kin) and the CIFAR ResNets of this
package. That the chain computes what the network computes is checked when it is built, on one small
image, because no name or base class tells it.

Shape legend: B batch, D input channels, H, W input size, N classes, C feature channels, h, w grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import timm
import torch
from torch import Tensor, nn

from konkyo.models.alexnet import AlexNet
from konkyo.models.cifar_resnet import DEPTHS, CIFARResNet
from konkyo.models.cut import Hook
from konkyo.models.registry import register

OWN = ("alexnet", *(f"cifar_resnet{depth}" for depth in DEPTHS))
"""Backbones of this package; every other name is timm's."""


@dataclass(frozen=True)
class Stage:
    """A place where the network may be cut.

    Attributes:
        name: of the module whose output is cut, such as ``layer3`` or ``blocks.4``.
        channels: C of its output.
        reduction: input pixels to one cell of its output, along a side.
        end: number of parts up to and including it.
    """

    name: str
    channels: int
    reduction: int
    end: int


@register("backbone")
class Backbone(nn.Module):
    """A network as a chain of parts.

    Args:
        num_classes: N, at least 2.
        name: ``cifar_resnet20`` and its kin, ``alexnet``, or a timm network.
        last_stage: end after this stage, in global average pooling and a linear layer: smaller,
            and of finer features, where the objects are small. Default: the network whole.

    Raises:
        ValueError: fewer than 2 classes, no such network, or one that is not a chain of stages with
            feature maps (B, C, h, w).

    Attributes:
        parts: the modules in order.
        head: position of the first part of the head, which takes the last feature map.
        channels: C of the output of each part before the head.
        stages: where it may be cut, first to last.
    """

    centred: ClassVar[bool] = True
    explanation: ClassVar[str] = "cam"
    stride = 1

    def __init__(
        self, num_classes: int, *, name: str = "cifar_resnet20", last_stage: str | None = None
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"a classifier needs at least 2 classes, not {num_classes}")
        self.num_classes = num_classes
        self.name = name
        network = _create(name, num_classes)
        features = _features(network, name)
        named = list(_flatten(network, features))
        self.parts = nn.ModuleList(module for _, module in named)
        self._names = tuple(name for name, _ in named)
        self._whole = True
        self.stages = tuple(self._stages(features))
        self.channels = self._require_chain(network)
        self.head = len(self.channels)
        if last_stage is not None:
            self.trim(self.stage(last_stage))
            pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
            self.parts.extend([pool, nn.Linear(self.channels[-1], num_classes)])
        self._averages = len(self.parts) == self.head + 2 and _averages(self.parts[self.head])

    def forward(self, image: Tensor) -> Tensor:
        """Logits: (B, D, H, W) -> (B, N)."""
        return self.run(image)

    def run(self, features: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """Only the parts from ``start`` to before ``stop``."""
        for part in self.parts[start:stop]:
            features = part(features)
        return features

    @property
    def fc(self) -> nn.Linear:
        """The linear head behind the global average.

        Raises:
            TypeError: the head is another.
        """
        head = self.parts[-1]
        if self._averages and isinstance(head, nn.Linear):
            return head
        raise TypeError(f"{self.name} has no head of global average pooling and one linear layer")

    def forward_features(self, image: Tensor) -> Tensor:
        """The last feature map: (B, D, H, W) -> (B, C, h, w)."""
        return self.run(image, stop=self.head)

    def forward_head(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> logits (B, N)."""
        return self.run(features, start=self.head)

    def hook(self, layer: str | None = None) -> Hook:
        """See ``Network.hook``: by default the last features; layers are named as in the original network."""
        if layer is None:
            return Hook(self, f"parts.{self.head - 1}")
        for position, name in enumerate(self._names[: len(self.parts)]):
            if layer == name or layer.startswith(f"{name}."):
                return Hook(self, f"parts.{position}{layer.removeprefix(name)}")
        raise ValueError(
            f"{self.name} has no layer {layer!r}; there are: {', '.join(self._names[: self.head])}"
        )

    def stage(self, name: str) -> int:
        """Position of a stage by name.

        Raises:
            ValueError: there is none of this name; the message lists those there are.
        """
        names = [stage.name for stage in self.stages]
        if name not in names:
            raise ValueError(f"{self.name} has no stage {name!r}; there are: {', '.join(names)}")
        return names.index(name)

    def end(self, name: str) -> int:
        """Number of parts up to and including one of the body by name, be it a stage or within one.

        Raises:
            ValueError: there is none of this name; the message lists those there are.
        """
        names = self._names[: self.head]
        if name not in names:
            raise ValueError(f"{self.name} has no part {name!r}; there are: {', '.join(names)}")
        return names.index(name) + 1

    def trim(self, stage: int) -> None:
        """Drop everything after a stage, for a network that decides by itself."""
        self.stages = self.stages[: stage + 1]
        self.parts = self.parts[: self.stages[stage].end]
        self._whole = False
        self.head = len(self.parts)
        self.channels = self.channels[: self.head]

    def load_pretrained(self, state: Mapping[str, Tensor]) -> None:
        """Take weights named as the original network names them; of the head only what fits.

        Args:
            state: of the network ``name``, of any number of classes.

        Raises:
            ValueError: the state is not of this network.
        """
        renamed = dict(self.state_dict())
        missing = {key for key in renamed if int(key.split(".")[1]) < self.head}
        for key, tensor in state.items():
            owners = [position for position, name in enumerate(self._names) if key.startswith(f"{name}.")]
            if not owners:
                raise ValueError(f"{self.name} has no {key}")
            name = f"parts.{owners[0]}{key.removeprefix(self._names[owners[0]])}"
            fits = name in renamed and renamed[name].shape == tensor.shape
            if owners[0] < self.head and not fits:
                raise ValueError(f"not the weights of {self.name}: it has no {key} of {list(tensor.shape)}")
            if owners[0] < self.head or (fits and self._whole):
                renamed[name] = tensor
                missing.discard(name)
        if missing:
            raise ValueError(f"not the weights of {self.name}: {len(missing)} are missing")
        self.load_state_dict(renamed)

    def _stages(self, features: list[Stage]) -> Iterator[Stage]:
        for feature in features:
            ends = [end for end, name in enumerate(self._names, 1) if name == feature.name]
            if not ends:
                raise ValueError(f"{self.name} cannot be cut after {feature.name}")
            yield Stage(feature.name, feature.channels, feature.reduction, ends[0])

    @torch.no_grad()
    def _require_chain(self, network: nn.Module) -> tuple[int, ...]:
        """Compare the chain with the network; channels of each part before the head.

        In double precision, because an untrained network may hand on so little that a wrong chain
        would differ by less than a float can show.
        """
        features = image = probe(torch.float64)
        network.eval().double()
        problem = ""
        channels: list[int] = []
        try:
            expected = network(image)
            if (self.run(image) - expected).abs().max() > 1e-10 * expected.abs().max():
                problem = "its forward pass is more than its parts one after the other"
            while (after := self.parts[len(channels)](features)).ndim == 4 and not _pools(features, after):
                features = after
                channels.append(features.shape[1])
            for stage in self.stages:
                if stage.end > len(channels) or channels[stage.end - 1] != stage.channels:
                    problem = f"{stage.name} gives no feature map (B, C, h, w)"
        except Exception as error:  # whatever a forward pass raises that takes something else
            reason = str(error).partition("\n")[0] or type(error).__name__
            problem = f"its parts cannot be run one after the other: {reason}"
        network.float().train()
        if problem:
            raise ValueError(f"{self.name} cannot be cut into stages: {problem}")
        return tuple(channels)


def probe(dtype: torch.dtype = torch.float32, side: int = 64) -> Tensor:
    """A small image (1, 3, side, side) to find out on what a network does; the same every time."""
    return torch.linspace(-1, 1, 3 * side * side, dtype=dtype).view(1, 3, side, side)


def _create(name: str, num_classes: int) -> nn.Module:
    if name == "alexnet":
        return AlexNet(num_classes)
    if name in OWN:
        return CIFARResNet(num_classes, depth=int(name.removeprefix("cifar_resnet")))
    if not timm.is_model(name):
        raise ValueError(f"unknown backbone {name!r}; there are: {', '.join(OWN)}, and timm's networks")
    return timm.create_model(name, pretrained=False, num_classes=num_classes)


def _features(network: nn.Module, name: str) -> list[Stage]:
    """The feature hierarchy a network states itself."""
    info = getattr(network, "feature_info", None)
    entries = getattr(info, "info", info) or []
    stages = [Stage(item["module"], item["num_chs"], item["reduction"], 0) for item in entries]
    if len(stages) < 2:
        raise ValueError(f"{name} states no feature hierarchy to cut it at")
    return stages


def _flatten(network: nn.Module, features: list[Stage], prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Children in order; one that holds a cut inside is replaced by its own children."""
    for child, module in network.named_children():
        name = f"{prefix}{child}"
        if any(feature.name.startswith(f"{name}.") for feature in features):
            yield from _flatten(module, features, f"{name}.")
        else:
            yield name, module


def _pools(before: Tensor, after: Tensor) -> bool:
    return after[0, 0].numel() == 1 < before[0, 0].numel()


def _averages(pool: nn.Module) -> bool:
    """Whether it is a global average, by what it does to a map that tells."""
    pool_type = getattr(pool, "pool_type", "avg")
    probe = torch.arange(8.0).view(1, 2, 2, 2)
    return bool(pool_type == "avg" and torch.equal(pool(probe).flatten(), probe.mean(dim=(2, 3)).flatten()))
