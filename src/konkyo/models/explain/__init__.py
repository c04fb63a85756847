"""Explanation methods by name, one a file.

A method is a module that turns a network and an image into logits and maps in one pass. It states

- ``name``: as in cards and in the ``method`` parameter;
- ``map_kind``: what its maps are (``ModelCard.explanation.map_kind``);
- ``class_specific``: whether there is one map for each target;
- ``takes_attention``: whether the map may be replaced by an edited one, given as a third argument;
- ``takes_layer``: whether its constructor takes the layer to explain at;
- ``differentiates``: whether it needs autograd, and so cannot be exported.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor, nn

from konkyo.models.card import MapKind
from konkyo.named import Named


class Explanation(Protocol):
    """A way to explain networks of one kind."""

    name: ClassVar[str]
    map_kind: ClassVar[MapKind]
    class_specific: ClassVar[bool]
    takes_attention: ClassVar[bool]
    takes_layer: ClassVar[bool]

    def __init__(self, network: nn.Module, **options: Any) -> None:
        """Raises ``TypeError`` if the network is not of the kind this method explains.

        Where ``takes_layer``, ``layer`` names a module of the network; ``ValueError`` if it has none, or
        cannot be explained there.
        """

    @property
    def differentiates(self) -> bool:
        """Whether autograd is needed for this network."""
        ...

    @property
    def scales(self) -> int:
        """Maps for each target, or for all of them: more than 1 only for several scales."""
        ...

    def __call__(self, image: Tensor, targets: Tensor, *attention: Tensor | None) -> tuple[Tensor, Tensor]:
        """Normalised image (B, D, H, W), targets (B, K) int64 -> logits (B, N), maps (B, M, h, w).

        Where ``takes_attention``, a third argument (B, h', w') float32 is the edit.
        """


E = TypeVar("E", bound=type[Explanation])
_METHODS: Named[type[Explanation]] = Named(__name__, "explanation")


def register(method: E) -> E:
    """Class decorator: make a method findable by its ``name``.

    Raises:
        ValueError: the name is taken.
    """
    _METHODS.add(method.name, method)
    return method


def methods() -> dict[str, type[Explanation]]:
    """Every registered method by name."""
    return _METHODS.all()


def resolve_targets(logits: Tensor, targets: Tensor) -> Tensor:
    """Replace −1 by the predicted class: logits (B, N), targets (B, K) -> (B, K)."""
    return torch.where(targets < 0, logits.argmax(dim=1, keepdim=True), targets)


def select_maps(maps: Tensor, targets: Tensor) -> Tensor:
    """Pick the maps of the targets: (B, N, h, w), (B, K) in [0, N) -> (B, K, h, w).

    One gather of whole maps, so that it costs a copy of K maps in every runtime.
    """
    batch, classes = maps.shape[:2]
    first = torch.arange(batch, device=maps.device)[:, None] * classes
    flat = (first + targets).flatten()  # (B K,)
    return maps.flatten(0, 1).index_select(0, flat).view(*targets.shape, *maps.shape[2:])
