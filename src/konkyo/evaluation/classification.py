"""How well the classes are told apart, for data whose classes are uneven or ordered.

By counting, so that an interval by a thousand resamples takes a second; scikit-learn says the same.

Shape legend: n images, N classes.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]


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
    counts = np.bincount(labels * classes + predictions, minlength=classes**2)
    return counts.reshape(classes, classes)


def recalls(labels: Int64, predictions: Int64, classes: int) -> Float64:
    """Of each class the share of its images that is found (N,); NaN of a class without images.

    Args:
        labels: class indices (n,).
        predictions: class indices (n,).
        classes: N.

    Raises:
        ValueError: as ``confusion``.
    """
    _check(labels, predictions, classes)
    there = np.bincount(labels, minlength=classes)
    found = np.bincount(labels[labels == predictions], minlength=classes)
    shares: Float64 = np.divide(found, there, out=np.full(classes, math.nan), where=there > 0)
    return shares


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
    return float(np.nanmean(recalls(labels, predictions, classes)))


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
    observed = confusion(labels, predictions, classes)
    distances = np.square(np.subtract.outer(np.arange(classes), np.arange(classes)))
    expected = np.outer(observed.sum(axis=1), observed.sum(axis=0)) / len(labels)
    by_chance = (distances * expected).sum()
    return float(1 - (distances * observed).sum() / by_chance) if by_chance else math.nan


def _check(labels: Int64, predictions: Int64, classes: int) -> None:
    if len(labels) != len(predictions) or not len(labels):
        raise ValueError(
            f"a prediction is needed for each label: {len(labels)} labels, {len(predictions)} predictions"
        )
    lowest, highest = min(labels.min(), predictions.min()), max(labels.max(), predictions.max())
    if lowest < 0 or highest >= classes:
        raise ValueError(f"classes are 0 to {classes - 1}, found {lowest} to {highest}")
