"""Localisation when the class is told: whether the map of a thing's class has its box on the thing.

The rule of ``localization`` without its part about the class, for each marked thing by the map of its own
class. The field calls it GT-known localisation (Singh and Lee, ICCV 2017; there as the share
that is right).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.examples import Example
from konkyo.evaluation.measures import register
from konkyo.evaluation.measures.base import Mean, Statistic
from konkyo.evaluation.measures.localization import LocalizationParameters, best_iou, localization_box
from konkyo.evaluation.sources import Source
from konkyo.evaluation.things import MeanOfClasses, MeasureOfThings, Things, Values


@register
class LocalizationGivenClass(MeasureOfThings):
    """Every marked thing, by the map of its class."""

    name = "localization_given_class"
    title = "Localisation error given the class"
    reference = "Grad-CAM, section 4.1, without the error of the class"
    parameters = LocalizationParameters
    worst = "iou"

    def __init__(
        self, candidate: Candidate, source: Source | None, parameters: LocalizationParameters
    ) -> None:
        super().__init__(candidate, source, parameters)
        self.threshold, self.iou = parameters.threshold, parameters.iou

    def values(self, things: Things, examples: Sequence[Example]) -> Values:
        """See ``MeasureOfThings.values``; NaN where a thing has no box."""
        size = things.masks.shape[1], things.masks.shape[2]
        ious = [
            best_iou(localization_box(map_, self.threshold, size), thing.boxes)
            if len(thing.boxes)
            else math.nan
            for map_, thing in zip(things.maps, things.marked, strict=True)
        ]
        return {"iou": ious, "error": [iou if math.isnan(iou) else float(iou < self.iou) for iou in ious]}

    def statistics(self) -> Sequence[Statistic]:
        """See ``Measure.statistics``."""
        return (
            Statistic("error", Mean("error"), "lower", "localisation error, of all things"),
            Statistic("error_of_classes", MeanOfClasses("error"), "lower", "the same, mean of the classes"),
            Statistic("iou", Mean("iou"), "higher", "IoU with the nearest box"),
        )
