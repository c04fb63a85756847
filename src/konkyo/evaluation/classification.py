"""How well the classes are told apart, for data whose classes are uneven or ordered.

Thin, typed fronts of scikit-learn.

Shape legend: n images, N classes.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from sklearn.metrics import cohen_kappa_score, confusion_matrix, recall_score

Int64 = npt.NDArray[np.int64]


def confusion(labels: Int64, predictions: Int64, classes: int) -> Int64:
    """How many images of each class were taken for which.

    Args:
        labels: class indices (n,).
        predictions: class indices (n,).
        classes: N.

    Returns:
        (N, N) counts; the row is the true class, the column the predicted one.

    Raises:
        ValueError: no images, not as many labels as predictions, or an index that is no class.
    """
    _check(labels, predictions, classes)
    counts: Int64 = confusion_matrix(labels, predictions, labels=np.arange(classes))
    return counts


def balanced_accuracy(labels: Int64, predictions: Int64, classes: int) -> float:
    """The mean over the classes of the share of their images that is found.

    A class without images has no such share and does not count.

    Args:
        labels: class indices (n,).
        predictions: class indices (n,).
        classes: N.

    Returns:
        In [0, 1]; a constant answer has 1 over the number of classes that occur.

    Raises:
        ValueError: as ``confusion``.
    """
    _check(labels, predictions, classes)
    # scikit-learn's own balanced_accuracy_score is this, and warns of classes that are only predicted.
    return float(recall_score(labels, predictions, labels=np.unique(labels), average="macro"))


def quadratic_weighted_kappa(labels: Int64, predictions: Int64, classes: int) -> float:
    """Agreement beyond chance, for ordered classes; an error counts by the square of its distance.

        k = 1 - sum_ij (i - j)^2 O_ij / sum_ij (i - j)^2 E_ij

    with O the confusion and E the one that chance would give with the same sums of rows and columns
    (Cohen, 1968).

    Args:
        labels: grades (n,), whose order is that of their indices.
        predictions: grades (n,).
        classes: N; grades that do not occur still keep the others apart.

    Returns:
        1 for full agreement, 0 for chance, down to -1; NaN where one grade is all that occurs.

    Raises:
        ValueError: as ``confusion``.
    """
    _check(labels, predictions, classes)
    if len(np.union1d(labels, predictions)) == 1:
        return math.nan
    grades = np.arange(classes)
    return float(cohen_kappa_score(labels, predictions, labels=grades, weights="quadratic"))


def _check(labels: Int64, predictions: Int64, classes: int) -> None:
    if len(labels) != len(predictions) or not len(labels):
        raise ValueError(
            f"a prediction is needed for each label: {len(labels)} labels, {len(predictions)} predictions"
        )
    found = np.union1d(labels, predictions)
    if found[0] < 0 or found[-1] >= classes:
        raise ValueError(f"classes are 0 to {classes - 1}, found {found[0]} to {found[-1]}")
