"""Grad-CAM's weights without a backward pass, for the heads that allow it.

Shape legend: B batch, N classes, K targets, C feature channels, h, w grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from konkyo.models.cut import Cut, Hook


class ClosedForm(Protocol):
    """The mean gradient of each target's logit by each channel."""

    def __call__(self, features: Tensor, rest: Sequence[Any], targets: Tensor) -> tuple[Tensor, Tensor]:
        """Features as they lie, what crosses the cut beside them, targets (B, K) -> (B, N), (B, K, C)."""
        ...


def find_closed_form(network: nn.Module, hook: Hook, cut: Cut) -> ClosedForm | None:
    """The closed form of what follows the cut, None if there is none here."""
    return None
