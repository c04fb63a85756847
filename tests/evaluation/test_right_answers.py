"""The measure of right answers, by logits written down."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy
from toys import Linear, make_candidate, make_example

from konkyo.evaluation.examples import Batch
from konkyo.evaluation.measures.base import Columns
from konkyo.evaluation.measures.classification import (
    Classification,
    ClassificationParameters,
    ranks,
)

LOGITS = torch.tensor([
    [4.0, 3, 2, 1],
    [4.0, 3, 2, 1],
    [1.0, 9, 3, 0],
    [0.0, 0, 0, 0],
    [0.0, 0, 0, 0],
])  # fmt: skip
TRUTHS = (0, 2, 1, 0, 3)
RIGHT = [1, 0, 1, 1, 0]
"""Of equal logits the first is the answer."""


def measure(classes: int = 4, **settings: Any) -> Classification:
    candidate = make_candidate(Linear(torch.zeros(classes, 8, 8)), classes)
    return Classification(candidate, None, ClassificationParameters(**settings))


def columns_of(measured: Classification, logits: Tensor, truths: Sequence[int | None]) -> Columns:
    pixels = np.zeros((8, 8, 3), np.uint8)
    examples = [make_example(pixels, truth, name=str(place)) for place, truth in enumerate(truths)]
    batch = Batch(examples, torch.zeros(len(examples), 8, 8, 3, dtype=torch.uint8), logits)
    records = measured.records(
        batch, torch.empty(len(examples), 0).long(), torch.empty(len(examples), 0, 1, 1)
    )
    known = [place for place, truth in enumerate(truths) if truth is not None]
    assert [record.position for record in records] == known
    return {name: np.array([record.values[name] for record in records]) for name in records[0].values}


def figures(measured: Classification, columns: Columns) -> dict[str, float]:
    return {item.name: item.of(columns) for item in measured.statistics()}


def test_ranks_by_hand() -> None:
    assert ranks(LOGITS, torch.tensor(TRUTHS)).tolist() == [0, 2, 0, 0, 3]


def test_a_logit_that_is_no_number_is_never_right() -> None:
    logits = torch.tensor([[math.nan, 1.0], [math.inf, 0.0]])
    assert ranks(logits, torch.tensor([0, 0])).tolist() == [2, 2]


def test_figures_by_hand() -> None:
    measured = measure(k=3)
    columns = columns_of(measured, LOGITS, TRUTHS)
    assert columns["right"].tolist() == RIGHT
    assert columns["predicted"].tolist() == [0, 0, 1, 0, 0]
    found = figures(measured, columns)
    assert found.pop("confidence") == pytest.approx(LOGITS.softmax(dim=1).amax(dim=1).mean().item())
    assert found == pytest.approx({
        "accuracy": 3 / 5, "top_3": 4 / 5, "balanced_accuracy": (1 + 1 + 0 + 0) / 4,
        "recall_0": 1, "recall_1": 1, "recall_2": 0, "recall_3": 0,
    })  # fmt: skip


def test_accuracy_and_top_k_are_those_of_torchmetrics() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 12, generator=generator)
    truths = torch.randint(12, (200,), generator=generator)
    measured = measure(12)
    found = figures(measured, columns_of(measured, logits, truths.tolist()))
    for name, k in (("accuracy", 1), ("top_5", 5)):
        assert found[name] == pytest.approx(
            multiclass_accuracy(logits, truths, 12, top_k=k, average="micro").item()
        )


def test_kappa_is_for_grades_alone() -> None:
    columns = columns_of(measure(), LOGITS, TRUTHS)
    assert "kappa" not in figures(measure(), columns)
    # Observed: (0, 2) once 4, (3, 0) once 9. Rows (2, 1, 1, 1) and columns (4, 1, 0, 0) of 5 give by chance
    # (0,1) 2/5, (1,0) 4/5, 4 (2,0) 16/5, (2,1) 1/5, 9 (3,0) 36/5, 4 (3,1) 4/5: 63/5.
    assert figures(measure(ordered=True), columns)["kappa"] == pytest.approx(1 - 13 / (63 / 5))


def test_k_is_less_than_the_classes() -> None:
    assert (measure(4).k, measure(4).settled()) == (3, {"k": 3})
    assert measure(4, k=2).settled() == {"k": 2}
    assert not any(item.name.startswith("top") for item in measure(2).statistics())


def test_images_without_a_class_have_no_record() -> None:
    columns = columns_of(measure(), LOGITS, (0, None, None, 0, 3))
    assert columns["truth"].tolist() == [0, 0, 3]
    measured = measure()
    batch = Batch([make_example(np.zeros((8, 8, 3), np.uint8))], torch.zeros(1, 8, 8, 3), LOGITS[:1])
    assert measured.records(batch, torch.empty(1, 0).long(), torch.empty(1, 0, 1, 1)) == []


def test_what_is_confused_is_shown_and_named() -> None:
    measured = measure()
    columns = columns_of(measured, LOGITS[[0, 1, 1, 4]], (0, 2, 2, 3))
    (matrix,) = measured.matrices()
    assert (matrix.rows, matrix.row_title, matrix.column_title) == (matrix.columns, "true class", "answer")
    assert matrix.of(columns).tolist() == [[1, 0, 0, 0], [0, 0, 0, 0], [2, 0, 0, 0], [1, 0, 0, 0]]
    assert measured.notes(columns) == [
        "class 2 was taken for class 0 in 2 of 2 images.",
        "class 3 was taken for class 0 in 1 of 1 images.",
    ]


def test_of_many_classes_there_is_no_table_and_no_figure_each() -> None:
    assert measure(101).matrices() == ()
    assert len(measure(100).matrices()) == 1
    assert [item.name for item in measure(21).statistics()] == [
        "accuracy",
        "top_5",
        "balanced_accuracy",
        "confidence",
    ]
