"""The pointing game with rejection: does a map also say that its class is not there?

The extension of the pointing game in Grad-CAM, section 4.3: the maps of the five classes that score
highest play, and a map whose maximum is under a threshold rejects its class. Right are

    a class that is in the image:   maximum >= threshold, and the highest point hits the class
    one that is not:                maximum <  threshold

and the figure is the share of all maps that are right. A class is in the image if something marked is of
it; otherwise it counts as not there, also where nobody looked for it, so the figure asks for data on which
everything the network knows is marked.

The paper names neither the threshold nor its scale: both are ours to state. The raw values of maps differ
between methods by orders of magnitude, so by default the threshold is a share of the largest maximum of the
image's five maps; ``raw`` takes the values as they are. Rejecting everything is right for every class that
is not there: that share is reported, and must be beaten. The best threshold of these very images is
reported too; being chosen on them it is too good.

Shape legend: B batch, K classes, n maps, T thresholds, h, w grid of the maps, H, W input size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.examples import Batch, Example, Float64
from konkyo.evaluation.measures import register
from konkyo.evaluation.measures.base import Columns, Curve, Mean, Measure, Record, Statistic, Unsuited
from konkyo.evaluation.measures.pointing import PointingParameters, pointing_hits
from konkyo.evaluation.sources import Source
from konkyo.evaluation.things import marked_mask, pixel_sides, readable

THRESHOLDS = tuple(step / 20 for step in range(21))
"""Of the curve, on the scale of the image."""


def right_or_rejected(peaks: Float64, hits: Float64, threshold: float) -> Float64:
    """Which maps are right at a threshold.

    Args:
        peaks: (n,) the maximum of each.
        hits: (n,) 1 where its class is in the image and hit, 0 where it is missed, NaN where it is not there.
        threshold: under it a map rejects its class.

    Returns:
        (n,) 1 or 0.
    """
    return np.where(np.isnan(hits), peaks < threshold, (peaks >= threshold) & (hits == 1)).astype(np.float64)


def best_rejection(peaks: Float64, hits: Float64) -> float:
    """The share of right maps at the threshold where it is highest; arguments as ``right_or_rejected``.

    NaN of no maps.
    """
    if not len(peaks):
        return math.nan
    order = np.argsort(peaks)
    absent, hit = np.isnan(hits[order]), hits[order] == 1
    # With the c lowest rejected, c from 0 to n; maps of one maximum go together.
    right = np.concatenate([[0], np.cumsum(absent)]) + hit.sum() - np.concatenate([[0], np.cumsum(hit)])
    possible = np.concatenate([[True], np.diff(peaks[order]) > 0, [True]])
    return float(right[possible].max()) / len(peaks)


@dataclass(frozen=True)
class BestRejection:
    """``best_rejection`` of the columns of the measure."""

    def __call__(self, columns: Columns) -> float:
        """See ``Statistic.of``."""
        hits = np.where(columns["absent"] == 1, np.nan, columns["won"])
        return best_rejection(columns["peak"], hits)


class PointingRejectionParameters(PointingParameters):
    """Settings of the pointing game with rejection."""

    scale: Literal["image", "raw"] = Field(
        "image",
        description="of the threshold: share of the largest maximum of the image's maps, or raw values",
    )
    threshold: float = Field(0.5, ge=0, description="a map whose maximum is under it rejects its class")


@register
class PointingRejection(Measure):
    """Every image that somebody looked at, by the maps of the five classes that score highest."""

    name = "pointing_rejection"
    title = "Pointing game with rejection"
    reference = "Grad-CAM, section 4.3"
    wants = "top5"
    parameters = PointingRejectionParameters

    def __init__(
        self, candidate: Candidate, source: Source | None, parameters: PointingRejectionParameters
    ) -> None:
        super().__init__(candidate, source, parameters)
        assert source is not None, "it wants maps"
        if not source.class_specific:
            raise Unsuited("the map is the same for every class, so it cannot reject one")
        self._source = source
        self.tolerance, self.threshold = parameters.tolerance, parameters.threshold
        self.scale = parameters.scale

    def records(self, batch: Batch, targets: Tensor, maps: Tensor) -> Sequence[Record]:
        """See ``Measure.records``: a record for each map, ``hit`` NaN where its class is not there."""
        records: list[Record] = []
        for position, (example, classes) in enumerate(zip(batch.examples, targets.tolist(), strict=True)):
            kept = [
                order for order, index in enumerate(classes) if index >= 0 and can_be_judged(example, index)
            ]
            if kept:
                of_image, _ = readable(maps[position], self._source)
                peaks = of_image.flatten(1).amax(dim=1).double().cpu().numpy()  # (K,)
                largest = peaks[[index >= 0 for index in classes]].max() if self.scale == "image" else 1.0
                hits = self._hits(example, [classes[order] for order in kept], of_image[kept])
                labels = [self.candidate.card.labels[classes[order]] for order in kept]
                records += self._judged(position, labels, peaks[kept] / (largest or 1.0), hits)
        return records

    def _hits(self, example: Example, classes: Sequence[int], maps: Tensor) -> Float64:
        """Hits (n,) of the maps of classes (n,) in an image; NaN where the class is not there."""
        masks = torch.from_numpy(np.stack([marked_mask(example, index) for index in classes])).to(maps.device)
        sides = pixel_sides([example]).expand(len(classes), 2)
        return np.asarray(pointing_hits(maps, masks, self.tolerance, sides).cpu().numpy(), np.float64)

    def _judged(self, position: int, labels: Sequence[str], peaks: Float64, hits: Float64) -> list[Record]:
        right = right_or_rejected(peaks, hits, self.threshold)
        curves = np.stack([right_or_rejected(peaks, hits, threshold) for threshold in THRESHOLDS], axis=1)
        return [
            Record(
                position,
                {
                    "right": float(right[at]),
                    "peak": float(peaks[at]),
                    "hit": float(hits[at]),
                    "won": float(hits[at] == 1),
                    "absent": float(np.isnan(hits[at])),
                    "rights": curves[at].tolist(),
                },
                label,
            )
            for at, label in enumerate(labels)
        ]

    def statistics(self) -> Sequence[Statistic]:
        """See ``Measure.statistics``."""
        scale = "of the image's largest maximum" if self.scale == "image" else "as raw value"
        best = "right at the best threshold, which was chosen on these images: too good"
        return (
            Statistic(
                "accuracy", Mean("right"), "higher", f"right at a threshold of {self.threshold:g} {scale}"
            ),
            Statistic("accuracy_best", BestRejection(), "higher", best),
            Statistic("reject_all", Mean("absent"), "neither", "right if every class is rejected"),
            Statistic("hits", Mean("hit"), "higher", "hits of the classes that are there, none rejected"),
        )

    def curves(self) -> Sequence[Curve]:
        """See ``Measure.curves``; raw values have no range to draw it over."""
        if self.scale == "raw":
            return ()
        return (Curve("accuracy", "rights", THRESHOLDS, "threshold, share of the largest", "share right"),)


def can_be_judged(example: Example, index: int) -> bool:
    """Whether it is known that a class is not in an image, or else where in what the network sees.

    It is not where nobody marked anything, where the image is of the class and nothing of it is marked,
    as of a part without a defect, and where all of it lies outside of what the network sees.
    """
    if example.marked is None:
        return False
    if any(index in thing.classes for thing in example.marked):
        return bool(marked_mask(example, index).any())
    return index != example.truth
