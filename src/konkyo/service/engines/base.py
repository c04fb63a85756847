"""What runs a model: numpy in, numpy out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from konkyo.imaging import UInt8
from konkyo.models.card import ModelCard

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Outputs:
    """logits (B, N) float32, maps (B, M, h, w) float32, raw and signed."""

    logits: Float32
    maps: Float32


class Engine(Protocol):
    """A runtime holding one model.

    Attributes:
        name: of the runtime, as in the ``engine`` setting.
        device: what it really runs on, ``cpu`` or ``cuda``.
        faithful: whether its logits are the network's; a fake's are not.
        differentiates: whether its maps take a gradient, and so a queue and a thread of their own.
    """

    name: str
    device: str
    faithful: bool
    differentiates: bool

    def run(self, images: UInt8, targets: Int64, attention: Float32 | None = None) -> Outputs:
        """Images (B, H, W, 3) uint8, targets (B, K) int64 with −1 for the predicted class.

        ``attention`` (B, h', w') is an edit of the map, only for models whose card says that they take
        one; a negative cell, and None everywhere, is the network's own value.

        Called from one thread at a time. Raises whatever the runtime raises.
        """
        ...

    def warm_up(self) -> None:
        """Pay the costs of the first call before a caller would."""
        ...

    def close(self) -> None:
        """Release the model."""
        ...


@runtime_checkable
class GradientEngine(Protocol):
    """An engine that explains by any method of the network, and so also by those that take a gradient."""

    def explain(self, method: str, images: UInt8, targets: Int64) -> Outputs:
        """As ``Engine.run``, by a method that may be another than the model's own.

        Called from one thread at a time, which need not be the one that calls ``run``.

        Raises:
            UnsupportedMethod: the network cannot be explained so.
        """
        ...

    def close(self) -> None:
        """Release the model."""
        ...


def run_blank(engine: Engine, card: ModelCard) -> None:
    """Classify a black image, with a map, without, and with an edited one, to warm up an engine."""
    image = np.zeros((1, card.input.height, card.input.width, 3), np.uint8)
    for k in (1, 0):
        engine.run(image, np.full((1, k), -1, np.int64))
    if card.explanation.takes_attention:
        engine.run(image, np.full((1, 1), -1, np.int64), np.ones((1, 1, 1), np.float32))
