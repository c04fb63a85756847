"""Networks by name: every module of this package may add its own with ``@register``.

A network class states three facts the rest of the project relies on:

- ``stride``: the number that must divide both sides of its input;
- ``centred``: whether its input is normalised by the mean and deviation of the training data
  (GCM's is not: the product with the image only means something where black is zero);
- ``explanation``: the name of its own explanation method in ``models/explain``.

Its constructor takes ``num_classes`` and JSON values by keyword, so that a model card can rebuild it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Protocol, TypeVar, cast

from torch import Tensor, nn

from konkyo.models.cut import Hook
from konkyo.named import Named


class Network(Protocol):
    """What the registry holds: ``forward`` maps images (B, D, H, W) to logits (B, N)."""

    centred: ClassVar[bool]
    explanation: ClassVar[str]
    stride: int
    num_classes: int

    def __call__(self, image: Tensor) -> Tensor:
        """Images (B, D, H, W) to logits (B, N)."""
        ...

    def hook(self, layer: str | None = None) -> Hook:
        """Where it is cut to be explained by gradients: at a module by name, or where it is best.

        Raises:
            ValueError: it has no such layer, or cannot be explained there.
        """
        ...


N = TypeVar("N", bound=type[nn.Module])
_NETWORKS: Named[type[nn.Module]] = Named("konkyo.models", "network")


def register(name: str) -> Callable[[N], N]:
    """Class decorator: make a network buildable as ``name``.

    Raises:
        ValueError: the name is taken.
    """

    def add(network: N) -> N:
        _NETWORKS.add(name, network)
        return network

    return add


def names() -> tuple[str, ...]:
    """Every registered network, sorted."""
    return tuple(_NETWORKS.all())


def find(name: str) -> type[nn.Module]:
    """The class of a network.

    Raises:
        KeyError: no network has this name; the message lists those that exist.
    """
    networks = _NETWORKS.all()
    if name not in networks:
        raise KeyError(f"unknown network {name!r}; there are: {', '.join(networks)}")
    return networks[name]


def build(name: str, num_classes: int, /, **arguments: Any) -> nn.Module:
    """Construct a network.

    Raises:
        KeyError: no network has this name; the message lists those that exist.
        TypeError: the network does not take one of the arguments.
        ValueError: an argument has a value the network refuses.
    """
    return find(name)(num_classes, **arguments)


def as_network(module: nn.Module) -> Network:
    """View a built module as what the registry promises it is."""
    return cast(Network, module)
