"""Stability of a map in half precision: the same network in 16 bits against 32.

Weights, normalised image and features are in 16 bits; what our explanations compute in full precision in
any case, they do here too, and maps and logits leave in float32, as when such a network is served.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.measures import register
from konkyo.evaluation.measures.base import Parameters, Unsuited
from konkyo.evaluation.sources import Source
from konkyo.evaluation.stability import Again, Stability


class HalfParameters(Parameters):
    """Parameters of ``StabilityHalf``."""

    precision: Literal["float16", "bfloat16"] = Field(default="float16", description="of the second network")


@register
class StabilityHalf(Stability):
    """How far maps change in half precision.

    Raises:
        Unsuited: no maps, those of a baseline, or the network cannot be run so on this device.
    """

    name = "stability_half"
    title = "Stability in half precision"
    reference = "none: what happens in a server"
    parameters = HalfParameters
    asks_model = True

    def __init__(self, candidate: Candidate, source: Source | None, parameters: Parameters) -> None:
        super().__init__(candidate, source, parameters)
        assert isinstance(parameters, HalfParameters)
        precision = parameters.precision
        self._half = candidate.once(("in", precision), lambda: _halved(candidate, precision))
        try:
            self._half.logits(torch.zeros(1, *candidate.size, 3, dtype=torch.uint8))
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise Unsuited(f"the network does not run in {precision}: {reason}") from None

    def again(self, pixels: Tensor, targets: Tensor, maps: Tensor) -> Iterator[Again]:
        """See ``Stability.again``."""
        again = self._source.maps(self._half, pixels, targets)
        yield Again(maps[:, 0], again[:, 0], self._half.logits(pixels))


def _halved(candidate: Candidate, precision: str) -> Candidate:
    return candidate.with_classifier(copy.deepcopy(candidate.classifier).to(getattr(torch, precision)))
