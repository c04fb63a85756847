"""How often the model is right: accuracy, top k, balanced accuracy, kappa, and what it confuses.

Shape legend: B batch, N classes, n records.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.classification import (
    Int64,
    balanced_accuracy,
    confusion,
    quadratic_weighted_kappa,
)
from konkyo.evaluation.examples import Batch
from konkyo.evaluation.measures import register
from konkyo.evaluation.measures.base import (
    Columns,
    Float64,
    Matrix,
    Mean,
    Measure,
    Parameters,
    Record,
    Statistic,
)
from konkyo.evaluation.sources import Source

MOST_ROWS = 100
"""Classes of which a table of confusions is shown."""
MOST_RECALLS = 20
"""Classes that have a figure each."""
PAIRS = 5
"""Confusions that are named."""


def ranks(logits: Tensor, truths: Tensor) -> Tensor:
    """How many classes come before the true one.

    Of equal logits the class with the lower index comes first, as ``argmax`` has it, so that the share of
    rank 0 is the accuracy. Where a logit is not finite, nothing was recognised: N.

    Args:
        logits: (B, N).
        truths: class indices (B,).

    Returns:
        (B,) int64 from 0.
    """
    theirs = logits.gather(1, truths[:, None])
    lower = torch.arange(logits.shape[1], device=logits.device) < truths[:, None]
    before = (logits > theirs) | ((logits == theirs) & lower)
    return before.sum(dim=1).where(logits.isfinite().all(dim=1), logits.shape[1])


class ClassificationParameters(Parameters):
    """Settings of ``classification``."""

    k: int = Field(
        5, ge=2, description="right if the true class is among so many; at most the classes less 1"
    )
    ordered: bool = Field(False, description="the classes are grades: their kappa too")


@dataclass(frozen=True)
class _OfPairs:
    """A figure of the true and the predicted classes."""

    figure: Callable[[Int64, Int64, int], float]
    classes: int

    def __call__(self, columns: Columns) -> float:
        """See ``Statistic.of``."""
        return self.figure(*_pairs(columns), self.classes)


@dataclass(frozen=True)
class _Recall:
    """The share of a class's images that is found."""

    index: int

    def __call__(self, columns: Columns) -> float:
        """See ``Statistic.of``."""
        return Mean("right")({"right": columns["right"][columns["truth"] == self.index]})


@register
class Classification(Measure):
    """Every image whose class is known."""

    name = "classification"
    title = "Right answers"
    reference = "kappa: Cohen, 1968; its use here: Multi-scale attention branch networks, evaluation"
    wants = "nothing"
    parameters = ClassificationParameters

    def __init__(
        self, candidate: Candidate, source: Source | None, parameters: ClassificationParameters
    ) -> None:
        super().__init__(candidate, source, parameters)
        self._labels = candidate.card.labels
        self.classes = len(self._labels)
        self.k = min(parameters.k, self.classes - 1)
        self.ordered = parameters.ordered

    def settled(self) -> dict[str, int]:
        """See ``Measure.settled``."""
        return {"k": self.k}

    def records(self, batch: Batch, targets: Tensor, maps: Tensor) -> Sequence[Record]:
        """See ``Measure.records``."""
        known, truths = batch.labelled()
        if not known:
            return []
        logits = batch.logits[known].double()
        predicted = logits.argmax(dim=1)
        rank = ranks(logits, truths)
        confidence = logits.softmax(dim=1).amax(dim=1)
        columns = [column.tolist() for column in (truths, predicted, rank, confidence)]
        return [
            Record(
                place,
                {
                    "truth": truth,
                    "predicted": prediction,
                    "right": float(before == 0),
                    "top_k": float(before < self.k),
                    "confidence": sure,
                },
            )
            for place, truth, prediction, before, sure in zip(known, *columns, strict=True)
        ]

    def statistics(self) -> Sequence[Statistic]:
        """See ``Measure.statistics``."""
        top = Statistic(f"top_{self.k}", Mean("top_k"), "higher", f"true class among the best {self.k}")
        kappa = Statistic("kappa", self._of(quadratic_weighted_kappa), "higher", "quadratic weighted kappa")
        each = [
            Statistic(f"recall_{index}", _Recall(index), "higher", f"share of {label} that is found")
            for index, label in enumerate(self._labels)
        ]
        return (
            Statistic("accuracy", Mean("right"), "higher", "accuracy"),
            *((top,) if self.k > 1 else ()),
            Statistic("balanced_accuracy", self._of(balanced_accuracy), "higher", "mean over the classes"),
            *((kappa,) if self.ordered else ()),
            Statistic("confidence", Mean("confidence"), "neither", "mean probability of the answer"),
            *(each if self.classes <= MOST_RECALLS else ()),
        )

    def _of(self, figure: Callable[[Int64, Int64, int], float]) -> _OfPairs:
        return _OfPairs(figure, self.classes)

    def matrices(self) -> Sequence[Matrix]:
        """See ``Measure.matrices``; of many classes none, its ``notes`` name what is most often confused."""
        if self.classes > MOST_ROWS:
            return ()
        title = "How many images of each class were taken for which"
        return (
            Matrix("confusion", title, self._confusion, self._labels, self._labels, "true class", "answer"),
        )

    def _confusion(self, columns: Columns) -> Float64:
        return confusion(*_pairs(columns), self.classes).astype(np.float64)

    def notes(self, columns: Columns) -> Sequence[str]:
        """See ``Measure.notes``: what was confused, most often first."""
        truths, predictions = _pairs(columns)
        there = np.bincount(truths, minlength=self.classes)
        wrong = truths != predictions
        pairs, counts = np.unique(truths[wrong] * self.classes + predictions[wrong], return_counts=True)
        said = []
        for place in np.argsort(-counts, kind="stable")[:PAIRS]:
            truth, taken = divmod(int(pairs[place]), self.classes)
            said.append(
                f"{self._labels[truth]} was taken for {self._labels[taken]} in {counts[place]:,} of "
                f"{there[truth]:,} images."
            )
        return said


def _pairs(columns: Columns) -> tuple[Int64, Int64]:
    """True and predicted classes (n,) both."""
    return columns["truth"].astype(np.int64), columns["predicted"].astype(np.int64)
