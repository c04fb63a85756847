"""What every converter gives: a network with its weights, and what its card will say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from konkyo.converters.errors import ConversionError
from konkyo.models.card import InputSpec
from konkyo.models.timm_net import TimmNet

IMAGENET = "ImageNet-1k (ILSVRC 2012)"


@dataclass(frozen=True)
class Converted:
    """A network that was trained elsewhere.

    Attributes:
        architecture: its name in the registry.
        network: with its weights.
        input: how its input was normalised, and how images were brought to its size.
        licence: of the weights, as far as it is known.
        data: what they were trained on, likewise.
        citation: how they want to be cited.
    """

    architecture: str
    network: TimmNet
    input: InputSpec
    licence: str
    data: str = IMAGENET
    citation: str | None = None

    @property
    def num_classes(self) -> int:
        """N."""
        return self.network.num_classes

    @property
    def arguments(self) -> dict[str, Any]:
        """Of the constructor of the network."""
        return self.network.arguments()

    @property
    def method(self) -> str:
        """The explanation of the network."""
        return self.network.explanation

    def folded(self) -> Converted:
        """With its batch norms folded into the convolutions, where it has any."""
        norms = any(isinstance(module, _BatchNorm) for module in self.network.modules())
        return replace(self, network=self.network.folded()) if norms else self


def load_exactly(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Give a network its weights, every one of them and no other.

    Args:
        network: the module the names are of.
        state: its weights.
        source: where they are from, for the message.

    Raises:
        ConversionError: a weight is missing, unknown, or of another shape.
    """
    expected = network.state_dict()
    # Counters of batches, which older checkpoints lack, decide nothing.
    counters = {name for name in expected if name.endswith("num_batches_tracked")}
    if missing := sorted(expected.keys() - state.keys() - counters):
        raise ConversionError(f"{source}: {missing[0]} is missing, and {len(missing) - 1} more")
    if unknown := sorted(state.keys() - expected.keys()):
        raise ConversionError(
            f"{source}: {unknown[0]} is no part of the network, and {len(unknown) - 1} more"
        )
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            raise ConversionError(
                f"{source}: {name} is {list(tensor.shape)}, but the network has {list(expected[name].shape)}"
            )
    network.load_state_dict({**{name: expected[name] for name in counters}, **state})
