"""Maps as seeds of a segmentation: their overlap with the region, once they are cut at a threshold.

Weakly supervised segmentation grows regions from the places where a map is high (Grad-CAM, section 4.2;
Kolesnikov and Lampert, ECCV 2016, who cut at 20 % of the maximum, the default here). A seed
is the pixels of the map, enlarged bilinearly to the input, at or over a share of its maximum, and

    IoU of a class = sum of the intersections / sum of the unions, over all its things

as of PASCAL VOC; the figure is the mean over the classes. This is the overlap of the seeds themselves. The
figures of the Grad-CAM paper (49.6 on VOC 2012) are of a network that was trained on seeds, and are not to
be compared with it. The things of an image are cut one by one: seeds of two classes may overlap.

Shape legend: n things, T thresholds, h, w grid of the maps, H, W input size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.examples import Example, Float64
from konkyo.evaluation.measures import register
from konkyo.evaluation.measures.base import Columns, Curve, Mean, Parameters, Statistic
from konkyo.evaluation.sources import Source, enlarged
from konkyo.evaluation.things import CLASS, MeasureOfThings, Things, Values

THRESHOLDS = tuple(step / 20 for step in range(21))
"""Of the curve."""


def seed_overlap(maps: Tensor, masks: Tensor, thresholds: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Pixels that seeds and masks share, and that either has.

    Args:
        maps: (n, h, w) floating point, not negative.
        masks: (n, H, W) bool.
        thresholds: T shares of each map's maximum.

    Returns:
        Intersections and unions (n, T) float64; NaN where the mask is empty. A map of zeros has no seed.

    Raises:
        ValueError: not as many maps as masks.
    """
    if len(maps) != len(masks):
        raise ValueError(f"{len(maps)} maps, {len(masks)} masks")
    whole = enlarged(maps[None].float(), (masks.shape[1], masks.shape[2]))[0].flatten(1)  # (n, H W)
    inside = masks.flatten(1)
    highest = whole.amax(dim=1, keepdim=True)
    intersections, unions = [], []
    for threshold in thresholds:
        level = (threshold * highest.double()).float()  # what is exactly at the share is in
        seeds = (whole >= level) & (highest > 0)
        intersections.append((seeds & inside).sum(dim=1))
        unions.append((seeds | inside).sum(dim=1))
    seen = inside.any(dim=1, keepdim=True)
    both = (torch.stack(counts, dim=1).double().where(seen, torch.nan) for counts in (intersections, unions))
    return next(both), next(both)


def class_iou(intersections: Float64, unions: Float64, classes: Float64) -> Float64:
    """The mean over the classes of the overlap of all their things together.

    Args:
        intersections: (n, T) pixels, NaN of things that have no part in it.
        unions: (n, T).
        classes: (n,) a number for the class of each.

    Returns:
        (T,) in [0, 1]; NaN of no things.
    """
    known = ~np.isnan(intersections[:, 0])
    names, index = np.unique(classes[known], return_inverse=True)
    if not len(names):
        return np.full(intersections.shape[1], math.nan)
    together, either = (
        np.array([np.bincount(index, column) for column in values[known].T])
        for values in (intersections, unions)
    )  # (T, classes)
    return np.asarray((together / either).mean(axis=1))


@dataclass(frozen=True)
class ClassIoU:
    """``class_iou`` of two columns; of curves, at the threshold where it is highest."""

    intersections: str
    unions: str

    def __call__(self, columns: Columns) -> float:
        """See ``Statistic.of``."""
        intersections, unions = (
            np.atleast_2d(columns[name].T).T for name in (self.intersections, self.unions)
        )  # (n, T), of numbers T = 1
        return float(class_iou(intersections, unions, columns[CLASS]).max())


class SeedsParameters(Parameters):
    """Settings of the seeds."""

    threshold: float = Field(0.2, ge=0, le=1, description="share of a map's maximum from which it is a seed")


@register
class Seeds(MeasureOfThings):
    """Every marked thing, by the map of its class."""

    name = "seeds"
    title = "Overlap of segmentation seeds"
    reference = "Grad-CAM, section 4.2; Kolesnikov and Lampert, ECCV 2016"
    parameters = SeedsParameters
    worst = "iou_all"

    def __init__(self, candidate: Candidate, source: Source | None, parameters: SeedsParameters) -> None:
        super().__init__(candidate, source, parameters)
        self.threshold = parameters.threshold

    def values(self, things: Things, examples: Sequence[Example]) -> Values:
        """See ``MeasureOfThings.values``; counts in pixels."""
        intersections, unions = seed_overlap(things.maps, things.masks, (*THRESHOLDS, self.threshold))
        ious = intersections / unions
        return {
            "iou": ious[:, -1].tolist(),
            "intersection": intersections[:, -1].tolist(),
            "union": unions[:, -1].tolist(),
            "ious": ious[:, :-1].tolist(),
            "intersections": intersections[:, :-1].tolist(),
            "unions": unions[:, :-1].tolist(),
        }

    def statistics(self) -> Sequence[Statistic]:
        """See ``Measure.statistics``."""
        at = f"IoU of seeds at {100 * self.threshold:g} %"
        best = "IoU at the best threshold, which was chosen on these images: too good"
        return (
            Statistic("iou", ClassIoU("intersection", "union"), "higher", f"{at}, mean of the classes"),
            Statistic("iou_all", Mean("iou"), "higher", f"{at}, mean of all things"),
            Statistic("iou_best", ClassIoU("intersections", "unions"), "higher", best),
        )

    def curves(self) -> Sequence[Curve]:
        """See ``Measure.curves``."""
        return (
            Curve("iou", "ious", THRESHOLDS, "threshold, share of the maximum", "mean IoU of all things"),
        )
