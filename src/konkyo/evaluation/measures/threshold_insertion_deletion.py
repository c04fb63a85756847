"""Insertion and deletion by threshold, as in the AMB paper (Iwayoshi et al.).

What is done, and how it is used as a library, is told in ``pixels_by_threshold``. The paper's maps are the
same for every class; of others the map of the predicted class is taken.

Shape legend: B batch, H, W input size, h, w grid of the maps, T thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from torch import Tensor

from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.examples import Batch
from konkyo.evaluation.measures import register
from konkyo.evaluation.measures.base import Curve, Mean, Measure, Parameters, Record, Statistic, Unsuited
from konkyo.evaluation.passes import for_many_passes
from konkyo.evaluation.pixels_by_threshold import Float64, area, threshold_hits
from konkyo.evaluation.sources import Source
from konkyo.evaluation.things import readable

Level = Annotated[int, Field(ge=0, le=255)]

MID_GREY = (128, 128, 128)


class ThresholdInsertionDeletionParameters(Parameters):
    """Parameters of ``ThresholdInsertionDeletion``."""

    thresholds: int = Field(default=21, ge=2, le=1001, description="their number, evenly from 0 to 1")
    fill: tuple[Level, Level, Level] | None = Field(
        default=None,
        description="colour, 0 to 255, of the pixels taken away; default: the mean that the network's "
        "normalisation subtracts, or mid-grey where it subtracts nothing",
    )


@register
class ThresholdInsertionDeletion(Measure):
    """Insertion and deletion by threshold, over the images whose class is known.

    Raises:
        Unsuited: no maps.
    """

    name = "threshold_insertion_deletion"
    title = "Insertion and deletion by threshold"
    reference = "Attention Mining Branch, Iwayoshi et al."
    wants = "predicted"
    parameters = ThresholdInsertionDeletionParameters
    worst = "score"

    def __init__(self, candidate: Candidate, source: Source | None, parameters: Parameters) -> None:
        super().__init__(candidate, source, parameters)
        assert isinstance(parameters, ThresholdInsertionDeletionParameters)
        if source is None:
            raise Unsuited("it cuts maps at thresholds")
        self._source = source
        last = parameters.thresholds - 1
        self._thresholds = tuple(step / last for step in range(last + 1))
        self._fill = parameters.fill or mean_colour(candidate)
        self._quick = for_many_passes(candidate)

    def records(self, batch: Batch, targets: Tensor, maps: Tensor) -> Sequence[Record]:
        """See ``Measure.records``; an image whose map is not finite has no figures."""
        places, truths = batch.labelled()
        if not places:
            return ()
        important, finite = readable(maps[places, 0], self._source)
        hits = threshold_hits(
            self._quick.logits,
            batch.pixels[places].to(maps.device),
            truths,
            important,
            fill=self._fill,
            thresholds=self._thresholds,
            at_once=self._quick.at_once,
        )
        return [
            Record(place, self._values([column[row].double().numpy() for column in hits], known=known))
            for row, (place, known) in enumerate(zip(places, finite.tolist(), strict=True))
        ]

    def _values(self, found: Sequence[Float64], *, known: bool) -> dict[str, float | Sequence[float]]:
        insertion, deletion, kept, flat = found if known else [np.full_like(part, math.nan) for part in found]
        steps = np.asarray(self._thresholds)
        inserted, deleted = area(insertion, steps), area(deletion, steps)
        return {
            "insertion": inserted,
            "deletion": deleted,
            "score": inserted - deleted,
            "kept": float(kept.mean()),
            "flat": float(flat),
            "insertion_curve": insertion.tolist(),
            "deletion_curve": deletion.tolist(),
            "kept_curve": kept.tolist(),
        }

    def statistics(self) -> Sequence[Statistic]:
        """See ``Measure.statistics``."""
        return (
            Statistic("score", Mean("score"), "higher", "insertion area less deletion area"),
            Statistic("insertion", Mean("insertion"), "higher", "area under the insertion curve"),
            Statistic("deletion", Mean("deletion"), "lower", "area under the deletion curve"),
            Statistic(
                "kept", Mean("kept"), "neither", "share of the pixels insertion keeps, of all thresholds"
            ),
            Statistic("flat", Mean("flat"), "lower", "share of images whose map is flat"),
        )

    def curves(self) -> Sequence[Curve]:
        """See ``Measure.curves``."""
        x_title = "threshold on the map, scaled to [0, 1]"
        return (
            Curve("insertion", "insertion_curve", self._thresholds, x_title, "accuracy"),
            Curve("deletion", "deletion_curve", self._thresholds, x_title, "accuracy"),
            Curve("kept", "kept_curve", self._thresholds, x_title, "share of the pixels kept"),
        )

    def settled(self) -> Mapping[str, Any]:
        """See ``Measure.settled``: the colour of the pixels taken away."""
        return {"fill": list(self._fill)}


def mean_colour(candidate: Candidate) -> tuple[int, ...]:
    """What the normalisation of a network subtracts, as a colour; mid-grey where it subtracts nothing."""
    mean = [round(255 * value) for value in candidate.classifier.mean.flatten().tolist()]
    return tuple(mean) if any(mean) else MID_GREY
