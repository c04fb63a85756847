"""Calibration: by hand, against torchmetrics, and of models that are as sure as they are right."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss
from torchmetrics.functional.classification import multiclass_calibration_error
from toys import Linear, make_candidate, make_example

from konkyo.evaluation.examples import Batch
from konkyo.evaluation.measures.base import Columns
from konkyo.evaluation.measures.calibration import Calibration, CalibrationParameters, calibration_error


def measure(classes: int, bins: int = 15) -> Calibration:
    candidate = make_candidate(Linear(torch.zeros(classes, 8, 8)), classes)
    return Calibration(candidate, None, CalibrationParameters(bins=bins))


def columns_of(measured: Calibration, logits: torch.Tensor, truths: torch.Tensor) -> Columns:
    examples = [make_example(np.zeros((8, 8, 3), np.uint8), truth) for truth in truths.tolist()]
    batch = Batch(examples, torch.zeros(len(examples), 8, 8, 3, dtype=torch.uint8), logits)
    nothing = torch.empty(len(examples), 0)
    records = measured.records(batch, nothing.long(), nothing[..., None, None])
    return {name: np.array([record.values[name] for record in records]) for name in records[0].values}


def some(classes: int, count: int = 300, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    truths = torch.randint(classes, (count,), generator=generator)
    logits = torch.randn(count, classes, generator=generator)
    logits[torch.arange(count), truths] += 1
    return logits, truths


def test_errors_by_hand() -> None:
    """Two bins: 0.2 and 0.4, of which one is right; 0.6 and 0.9, both right."""
    confidences, right = np.array([0.2, 0.4, 0.6, 0.9]), np.array([0.0, 1, 1, 1])
    assert calibration_error(confidences, right, 2, "l1") == pytest.approx(0.5 * 0.2 + 0.5 * 0.25)
    assert calibration_error(confidences, right, 2, "max") == pytest.approx(0.25)
    assert calibration_error(confidences, right, 1, "l1") == pytest.approx(0.75 - 0.525)


def test_a_model_that_is_as_sure_as_it_is_right_has_no_error() -> None:
    confidences = np.repeat([0.25, 0.75], 400)
    right = np.concatenate([np.arange(400) % 4 == 0, np.arange(400) % 4 > 0]).astype(float)
    assert calibration_error(confidences, right, 15, "l1") == pytest.approx(0)


def test_of_no_images_there_is_none() -> None:
    assert math.isnan(calibration_error(np.zeros(0), np.zeros(0), 15, "l1"))


@pytest.mark.parametrize("classes", [2, 7])
@pytest.mark.parametrize("bins", [1, 10, 15])
def test_it_is_the_error_of_many_classes_of_torchmetrics(classes: int, bins: int) -> None:
    logits, truths = some(classes)
    measured = measure(classes, bins)
    columns = columns_of(measured, logits, truths)
    found = {item.name: item.of(columns) for item in measured.statistics()}
    probabilities = logits.double().softmax(dim=1)
    for name, norm in (("expected_error", "l1"), ("largest_error", "max")):
        theirs = multiclass_calibration_error(probabilities, truths, classes, bins, norm)
        assert found[name] == pytest.approx(theirs.item(), abs=1e-6)  # theirs is in float32


def test_scores_are_those_of_scikit_learn() -> None:
    logits, truths = some(5)
    measured = measure(5)
    columns = columns_of(measured, logits, truths)
    found = {item.name: item.of(columns) for item in measured.statistics()}
    probabilities = logits.double().softmax(dim=1).numpy()
    labels = np.arange(5)
    assert found["nll"] == pytest.approx(log_loss(truths.numpy(), probabilities, labels=labels))
    brier = brier_score_loss(truths.numpy(), probabilities, labels=labels, scale_by_half=False)
    assert found["brier"] == pytest.approx(brier)
    sure, answers = probabilities.max(axis=1), probabilities.argmax(axis=1)
    assert found["overconfidence"] == pytest.approx(sure.mean() - (answers == truths.numpy()).mean())


def test_the_curve_is_the_accuracy_of_each_bin() -> None:
    logits, truths = some(3)
    measured = measure(3, bins=10)
    columns = columns_of(measured, logits, truths)
    (curve,) = measured.curves()
    assert curve.x == pytest.approx(np.arange(0.05, 1, 0.1))
    sure, answers = logits.double().softmax(dim=1).max(dim=1)
    for place in range(10):
        inside = (sure >= place / 10) & (sure < (place + 1) / 10)
        values = columns[curve.column][:, place]
        assert np.array_equal(~np.isnan(values), inside.numpy())
        assert np.array_equal(values[inside], (answers == truths)[inside])


@given(st.floats(0, 1), st.integers(1, 40))
def test_every_confidence_has_one_bin(confidence: float, bins: int) -> None:
    row = measure(2, bins)._in_bin(confidence, 1.0)
    assert len(row) == bins
    assert np.isnan(row).sum() == bins - 1


def test_logits_that_are_no_numbers_count_in_no_figure_but_the_answers() -> None:
    logits, truths = torch.tensor([[math.nan, 0.0], [3.0, 0.0]]), torch.tensor([0, 0])
    measured = measure(2)
    columns = columns_of(measured, logits, truths)
    assert columns["right"].tolist() == [0, 1]
    assert np.isnan(columns["reliability"][0]).all()
    assert measured.statistics()[0].of(columns) == pytest.approx(1 - torch.tensor(3.0).sigmoid().item())
