from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score, confusion_matrix, recall_score

from konkyo.evaluation.classification import (
    balanced_accuracy,
    confusion,
    quadratic_weighted_kappa,
    recalls,
)

# Three of class 0 (one taken for 1), one of class 1 (right), two of class 2 (both taken for 0 and 1).
LABELS = np.array([0, 0, 0, 1, 2, 2])
PREDICTIONS = np.array([0, 0, 1, 1, 0, 1])


def test_confusion_by_hand() -> None:
    assert confusion(LABELS, PREDICTIONS, 4).tolist() == [
        [2, 1, 0, 0],
        [0, 1, 0, 0],
        [1, 1, 0, 0],
        [0, 0, 0, 0],
    ]


def test_balanced_accuracy_by_hand() -> None:
    assert balanced_accuracy(LABELS, PREDICTIONS, 3) == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_classes_without_images_do_not_count_also_where_they_are_predicted() -> None:
    assert balanced_accuracy(np.array([0, 0, 2]), np.array([0, 1, 2]), 4) == pytest.approx((0.5 + 1) / 2)


def test_a_constant_answer_is_right_by_one_over_the_classes() -> None:
    labels = np.repeat([0, 1, 2, 3], [90, 5, 3, 2])
    assert balanced_accuracy(labels, np.zeros(100, dtype=np.int64), 4) == 0.25


def test_quadratic_weighted_kappa_by_hand() -> None:
    # Rows 3, 1, 2 and columns 3, 3, 0 of 6. Observed: 1 + 4 + 1 = 6 (distances 1, 2, 1).
    # Expected: (0,1) 3*3/6 = 1.5, (1,0) 1*3/6 = 0.5, (2,1) 2*3/6 = 1, and 4 times (2,0) 2*3/6 = 1: 7.
    assert quadratic_weighted_kappa(LABELS, PREDICTIONS, 3) == pytest.approx(1 - 6 / 7)


def test_grades_that_do_not_occur_keep_the_others_apart() -> None:
    # Were 0, 1, 4 counted as neighbours, the error of 3 grades would weigh as one of 1.
    # Observed: 9. Rows and columns (1, 1, 1), (1, 2, 0) of 3. Expected: (0,1) 2/3, (1,0) 1/3,
    # 16 times (4,0) 1/3, 9 times (4,1) 2/3: 37/3.
    labels, predictions = np.array([0, 1, 4]), np.array([0, 1, 1])
    assert quadratic_weighted_kappa(labels, predictions, 5) == pytest.approx(1 - 9 / (37 / 3))


def test_kappa_of_full_agreement_of_chance_and_of_full_disagreement() -> None:
    labels = np.array([0, 0, 1, 1])
    assert quadratic_weighted_kappa(labels, labels, 2) == 1
    assert quadratic_weighted_kappa(labels, np.array([0, 1, 0, 1]), 2) == 0
    assert quadratic_weighted_kappa(labels, 1 - labels, 2) == -1
    assert quadratic_weighted_kappa(labels, np.zeros_like(labels), 2) == 0


def test_kappa_of_one_grade_alone_is_not_a_number() -> None:
    assert math.isnan(quadratic_weighted_kappa(np.array([1, 1]), np.array([1, 1]), 3))


@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 6))
def test_kappa_is_its_formula_and_symmetric(seed: int, classes: int) -> None:
    generator = np.random.default_rng(seed)
    labels, predictions = generator.integers(0, classes, (2, 12))
    if len(np.union1d(labels, predictions)) == 1:
        return
    counts = confusion(labels, predictions, classes)
    distance = np.square(np.subtract.outer(np.arange(classes), np.arange(classes)))
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / 12
    kappa = quadratic_weighted_kappa(labels, predictions, classes)
    assert kappa == pytest.approx(1 - (distance * counts).sum() / (distance * expected).sum())
    assert kappa == pytest.approx(quadratic_weighted_kappa(predictions, labels, classes))


@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 6))
def test_scikit_learn_says_the_same(seed: int, classes: int) -> None:
    generator = np.random.default_rng(seed)
    labels, predictions = generator.integers(0, classes, (2, 12))
    every = np.arange(classes)
    assert np.array_equal(
        confusion(labels, predictions, classes), confusion_matrix(labels, predictions, labels=every)
    )
    there = np.unique(labels)
    shares = recall_score(labels, predictions, labels=there, average=None)
    found = recalls(labels, predictions, classes)
    assert found[there] == pytest.approx(shares)
    assert np.isnan(found).sum() == classes - len(there)
    assert balanced_accuracy(labels, predictions, classes) == pytest.approx(shares.mean())
    if len(np.union1d(labels, predictions)) > 1:
        assert quadratic_weighted_kappa(labels, predictions, classes) == pytest.approx(
            cohen_kappa_score(labels, predictions, labels=every, weights="quadratic")
        )


@pytest.mark.parametrize("measure", [confusion, recalls, balanced_accuracy, quadratic_weighted_kappa])
def test_what_cannot_be_counted_is_refused(measure) -> None:
    none = np.zeros(0, dtype=np.int64)
    with pytest.raises(ValueError, match="0 labels, 0 predictions"):
        measure(none, none, 3)
    with pytest.raises(ValueError, match="6 labels, 5 predictions"):
        measure(LABELS, PREDICTIONS[:5], 3)
    with pytest.raises(ValueError, match="classes are 0 to 1, found 0 to 2"):
        measure(LABELS, PREDICTIONS, 2)
    with pytest.raises(ValueError, match="found -100 to 1"):
        measure(np.full(6, -100), PREDICTIONS, 3)
