"""How far a model's map is from the map an expert would paint (multi-scale ABN with expert knowledge).

The mean squared error on the grid of the map, where the expert's map is 1 in every cell that the marked
area touches and 0 elsewhere (``evaluation.attention.map_error``). The map is that of the predicted class,
and of several scales the deepest. An attention map is in [0, 1] by its making and is compared as it is.
What counts of any other map is divided by its own maximum, so that it reaches 1 somewhere.

The error is small for a map of zeros where little is marked: that map's own error is reported beside it,
and a model that does not come below it has learnt nothing of the expert. Images in which nothing is there
to be marked, whose expert's map is zero, have a figure of their own; the paper's data have none.

Shape legend: B batch, h, w grid of the maps, H, W input size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from konkyo.evaluation.attention import map_error
from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.examples import Batch
from konkyo.evaluation.measures import register
from konkyo.evaluation.measures.base import Columns, Mean, Measure, Parameters, Record, Statistic
from konkyo.evaluation.sources import Source
from konkyo.evaluation.things import FINITE, marked_mask, readable


def unit_range(maps: Tensor) -> Tensor:
    """Maps (B, h, w), not negative, divided by the maximum of each; one of zeros stays."""
    highest = maps.flatten(1).amax(dim=1)[:, None, None]
    return maps / highest.where(highest > 0, 1)


@register
class ExpertMap(Measure):
    """Every image that somebody looked at, by the map of the predicted class."""

    name = "expert_map"
    title = "Squared error to the expert's map"
    reference = "multi-scale ABN with expert knowledge, grading retinopathy"
    wants = "predicted"
    worst = "error"

    def __init__(self, candidate: Candidate, source: Source | None, parameters: Parameters) -> None:
        super().__init__(candidate, source, parameters)
        assert source is not None, "it wants maps"
        self._source = source
        kinds = {method.method: method.map_kind for method in candidate.card.methods}
        self._raw = kinds.get(source.name.partition(":")[0]) == "attention_map"

    def records(self, batch: Batch, targets: Tensor, maps: Tensor) -> Sequence[Record]:
        """See ``Measure.records``; ``of_zeros`` is the error of a map of zeros."""
        looked_at = [at for at, example in enumerate(batch.examples) if example.marked is not None]
        if not looked_at:
            return ()
        important, finite = readable(maps[looked_at, 0], self._source)
        shown = (important if self._raw else unit_range(important)).double().cpu().numpy()
        masks = np.stack([marked_mask(batch.examples[at]) for at in looked_at]).astype(np.uint8)
        known = np.array([bool(batch.examples[at].marked) for at in looked_at])
        errors, of_zeros = (map_error(each, masks, known) for each in (shown, np.zeros_like(shown)))
        of_nothing = np.square(shown).mean(axis=(1, 2))
        return [
            Record(
                position,
                {
                    # A map that is not finite is wrong everywhere, or it would pass as one of zeros.
                    "error": float(errors[at]) if is_finite or math.isnan(errors[at]) else 1.0,
                    "of_zeros": float(of_zeros[at]),
                    "error_of_nothing": math.nan
                    if known[at]
                    else float(of_nothing[at])
                    if is_finite
                    else 1.0,
                    FINITE: float(is_finite),
                },
            )
            for at, (position, is_finite) in enumerate(zip(looked_at, finite.tolist(), strict=True))
        ]

    def statistics(self) -> Sequence[Statistic]:
        """See ``Measure.statistics``."""
        return (
            Statistic("error", Mean("error"), "lower", "squared error where something is marked"),
            Statistic("of_zeros", Mean("of_zeros"), "neither", "the same of a map of zeros"),
            Statistic(
                "error_of_nothing", Mean("error_of_nothing"), "lower", "squared error where nothing is there"
            ),
        )

    def notes(self, columns: Columns) -> Sequence[str]:
        """See ``Measure.notes``."""
        how = "as they are" if self._raw else "divided by their maximum"
        broken = int((columns[FINITE] == 0).sum())
        return [f"Maps are compared {how}.", *([f"{broken} maps are not finite: error 1."] if broken else [])]
