"""What the measures of stability share: a map is made a second time, and compared with the first.

Always the map of the class that was predicted the first time, so that maps compare also where the
prediction changes. Where a measure makes it several times, the worst of them counts: the lowest
correlation, the largest difference, the class if it is the same every time.

A map that is constant or not finite has neither correlation nor difference; ``without_order`` counts such
images.

Shape legend: B images, h, w the grid on which two maps are compared.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
from torch import Tensor

from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.examples import Batch
from konkyo.evaluation.measures.base import (
    Columns,
    Mean,
    Measure,
    Missing,
    Parameters,
    Record,
    Statistic,
    Unsuited,
)
from konkyo.evaluation.similarity import largest_difference, rank_correlation
from konkyo.evaluation.sources import Source


class Again(NamedTuple):
    """Maps made a second time.

    Attributes:
        first: (B, h, w), what they are compared with.
        second: (B, h, w).
        logits: (B, N) of the second time.
    """

    first: Tensor
    second: Tensor
    logits: Tensor


class Stability(Measure):
    """Base of the measures of stability.

    Raises:
        Unsuited: no maps.
    """

    wants = "predicted"
    worst = "correlation"
    asks_model: ClassVar[bool] = False
    """Whether only the model is changed, so that a map that asks none cannot change."""

    def __init__(self, candidate: Candidate, source: Source | None, parameters: Parameters) -> None:
        super().__init__(candidate, source, parameters)
        if source is None:
            raise Unsuited("it compares maps")
        if self.asks_model and source.baseline:
            raise Unsuited("a baseline asks no model")
        self._source = source

    @abstractmethod
    def again(self, pixels: Tensor, targets: Tensor, maps: Tensor) -> Iterator[Again]:
        """Make the maps again, in one way or in several.

        Args:
            pixels: (B, H, W, 3) uint8.
            targets: (B, 1), predicted the first time.
            maps: (B, 1, h', w') of the first time.
        """

    def records(self, batch: Batch, targets: Tensor, maps: Tensor) -> Sequence[Record]:
        """See ``Measure.records``."""
        found = list(self.again(batch.pixels, targets, maps))
        correlation = np.min([rank_correlation(one.first, one.second) for one in found], axis=0)
        difference = np.max([largest_difference(one.first, one.second) for one in found], axis=0)
        same = np.all([(one.logits.argmax(dim=1) == targets[:, 0]).cpu().numpy() for one in found], axis=0)
        values = {"correlation": correlation, "difference": difference, "same_class": same}
        return [
            Record(place, {name: float(column[place]) for name, column in values.items()})
            for place in range(len(batch))
        ]

    def statistics(self) -> Sequence[Statistic]:
        """See ``Measure.statistics``."""
        return (
            Statistic("correlation", Mean("correlation"), "higher", "rank correlation of the two maps"),
            Statistic(
                "difference",
                Mean("difference"),
                "lower",
                "largest difference, as a share of the larger range",
            ),
            Statistic(
                "largest_difference", _largest, "lower", "the same, of the image where it is largest", False
            ),
            Statistic(
                "same_class", Mean("same_class"), "higher", "share of images whose class stays the same"
            ),
            Statistic(
                "without_order",
                Missing("correlation"),
                "lower",
                "share of images without a correlation: a map is constant or not finite",
            ),
        )


def _largest(columns: Columns) -> float:
    return float(np.fmax.reduce(columns["difference"], initial=np.nan))
