"""Whether the model knows how sure it may be: of images with a confidence of 0.8, 80 % should be right.

Shape legend: B batch, N classes, n records, T bins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor
from torchmetrics.functional.classification import binary_calibration_error

from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.examples import Batch, Float64
from konkyo.evaluation.measures import register
from konkyo.evaluation.measures.base import Columns, Curve, Mean, Measure, Parameters, Record, Statistic
from konkyo.evaluation.measures.classification import ranks
from konkyo.evaluation.sources import Source


def calibration_error(confidences: Float64, right: Float64, bins: int, norm: Literal["l1", "max"]) -> float:
    """How far confidence and accuracy are apart, over bins of equal width of the confidence.

        l1:   sum_t n_t / n |accuracy_t − confidence_t|        (expected calibration error)
        max:  max_t |accuracy_t − confidence_t|                (maximum calibration error)

    (Naeini et al., AAAI 2015; Guo et al., ICML 2017, section 2.) Of the answer's probability alone, so a
    constant model that is as sure as it is right has 0. Bins are closed below, and 1 is a bin of its own,
    as in torchmetrics, which computes it.

    Args:
        confidences: (n,) probability of the answer, in [0, 1].
        right: (n,) 1 where the answer is right and 0 where not.
        bins: T.
        norm: see above.

    Returns:
        In [0, 1]; NaN of no images.
    """
    if not len(confidences):
        return math.nan
    # Top-label calibration of many classes is that of the binary question whether the answer is right.
    sure, hit = torch.from_numpy(confidences), torch.from_numpy(right.astype(np.int64))
    return float(binary_calibration_error(sure, hit, bins, norm, validate_args=False))


class CalibrationParameters(Parameters):
    """Settings of ``calibration``."""

    bins: int = Field(15, ge=1, le=1000, description="of the confidence, from 0 to 1, of equal width")


@dataclass(frozen=True)
class _Error:
    """``calibration_error`` of the columns."""

    bins: int
    norm: Literal["l1", "max"]

    def __call__(self, columns: Columns) -> float:
        """See ``Statistic.of``."""
        known = ~np.isnan(columns["confidence"])
        return calibration_error(columns["confidence"][known], columns["right"][known], self.bins, self.norm)


@register
class Calibration(Measure):
    """Every image whose class is known."""

    name = "calibration"
    title = "Calibration"
    reference = "Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 2"
    wants = "nothing"
    parameters = CalibrationParameters
    worst = "nll"

    def __init__(
        self, candidate: Candidate, source: Source | None, parameters: CalibrationParameters
    ) -> None:
        super().__init__(candidate, source, parameters)
        self.bins = parameters.bins

    def records(self, batch: Batch, targets: Tensor, maps: Tensor) -> Sequence[Record]:
        """See ``Measure.records``: of the bin of the image's confidence whether it is right, else NaN."""
        known, truths = batch.labelled()
        if not known:
            return []
        logits = batch.logits[known].double()
        probabilities = logits.softmax(dim=1)
        confidences = probabilities.amax(dim=1)
        right = (ranks(logits, truths) == 0).double()
        losses = F.cross_entropy(logits, truths, reduction="none")
        brier = (probabilities - F.one_hot(truths, logits.shape[1])).square().sum(dim=1)
        columns = (column.tolist() for column in (confidences, right, losses, brier))
        return [
            Record(
                place,
                {
                    "confidence": sure,
                    "right": hit,
                    "excess": sure - hit,
                    "nll": loss,
                    "brier": square,
                    "reliability": self._in_bin(sure, hit),
                },
            )
            for place, sure, hit, loss, square in zip(known, *columns, strict=True)
        ]

    def _in_bin(self, confidence: float, right: float) -> list[float]:
        """(T,), NaN in all bins but one."""
        row = [math.nan] * self.bins
        if not math.isnan(confidence):
            row[min(int(confidence * self.bins), self.bins - 1)] = right
        return row

    def statistics(self) -> Sequence[Statistic]:
        """See ``Measure.statistics``."""
        expected, largest = _Error(self.bins, "l1"), _Error(self.bins, "max")
        return (
            Statistic("expected_error", expected, "lower", f"expected calibration error, {self.bins} bins"),
            Statistic("largest_error", largest, "lower", f"error of the worst of {self.bins} bins"),
            Statistic("overconfidence", Mean("excess"), "neither", "mean confidence less accuracy"),
            Statistic("nll", Mean("nll"), "lower", "negative log-likelihood of the true class, nats"),
            Statistic("brier", Mean("brier"), "lower", "Brier score, 0 to 2"),
        )

    def curves(self) -> Sequence[Curve]:
        """See ``Measure.curves``: it lies on the diagonal where confidence is what it says."""
        middles = tuple((place + 0.5) / self.bins for place in range(self.bins))
        return (Curve("reliability", "reliability", middles, "confidence", "share right"),)
