"""Splits by fold and by group.

The folds of a cross-validation do not depend on the seed, so runs that differ in the seed share
their test images; the seed draws what of the rest validates. Images of one group (the same part
photographed more than once) are never in two splits: a network would recognise the part.

The folds are scikit-learn's, so another version of it may number or cut them otherwise.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import numpy as np

from konkyo.training.data import DataError, Int64, stratified_split

_TRIES = 20
"""Shuffles that are tried until every fold and what it leaves hold every class."""


def fold_split(
    labels: Int64,
    groups: Int64 | None,
    names: Sequence[str],
    *,
    fold: int,
    folds: int,
    val_share: float,
    seed: int,
) -> tuple[Int64, Int64, Int64]:
    """Split positions into train, val and test, the last being one of ``folds`` stratified folds.

    Args:
        labels: class indices (n,).
        groups: group indices (n,), or None where every image stands for itself.
        names: of the classes, for messages.
        fold: which fold is the test split, from 0.
        folds: how many there are, at least 2.
        val_share: share of all images kept for validation; with groups, roughly.
        seed: draws the validation split.

    Returns:
        Three sorted arrays of positions. Every class is in train and test; with groups a rare one
        may be missing in val.

    Raises:
        DataError: there is no such fold, or a class has too few images or groups.
    """
    if not 0 <= fold < folds:
        raise DataError(f"there is no fold {fold} of {folds}; they are numbered from 0")
    members, what = (np.arange(len(labels)), "images") if groups is None else (groups, "groups")
    for label, name in enumerate(names):
        count = len(np.unique(members[labels == label]))
        needed = max(3, folds)  # one a fold, and one each to train and validate on
        if count < needed:
            raise DataError(f"{name}: {count} {what} are too few for {folds} folds; {needed} are needed")
    test = _test_folds(labels, groups, folds)[fold]
    rest = np.setdiff1d(np.arange(len(labels)), test)
    share = val_share * folds / (folds - 1)
    if groups is None:
        train, val = stratified_split(labels[rest], [share], seed)
    else:
        train, val = _split_by_group(labels[rest], groups[rest], share, seed)
    return rest[train], rest[val], test


def _test_folds(labels: Int64, groups: Int64 | None, folds: int) -> list[Int64]:
    """The first folds of which each holds every class, and leaves every class to the others."""
    for attempt in range(_TRIES):
        tests = list(_folds(labels, groups, folds, attempt))
        if all(_in_both(labels, test) for test in tests):
            return tests
    raise DataError(f"no {folds} folds by group were found that each hold every class; try fewer folds")


def _in_both(labels: Int64, part: Int64) -> bool:
    """Whether every class is in the part and in the rest."""
    counts, totals = np.bincount(labels[part], minlength=labels.max() + 1), np.bincount(labels)
    return bool(((counts > 0) & (counts < totals)).all())


def _split_by_group(labels: Int64, groups: Int64, share: float, seed: int) -> tuple[Int64, Int64]:
    """Split positions into train and about ``share`` of them, no group in both.

    Of the folds that scikit-learn draws, the one is taken that leaves every class in train, of these
    one with the most classes, of these the one nearest to the share in every class.
    """
    totals = np.bincount(labels)
    number = min(max(2, round(1 / share)), len(np.unique(groups)), int(totals.max()))

    def misfit(part: Int64) -> tuple[int, int, float]:
        counts = np.bincount(labels[part], minlength=len(totals))
        lost, missing = (counts == totals).sum(), (counts == 0).sum()
        return int(lost), int(missing), float(np.abs(counts / totals - share).sum())

    val = min(_folds(labels, groups, number, seed), key=misfit)
    if misfit(val)[0]:
        raise DataError("the groups cannot be split so that train keeps every class; try fewer folds")
    return np.setdiff1d(np.arange(len(labels)), val), val


def _folds(labels: Int64, groups: Int64 | None, folds: int, seed: int) -> Iterator[Int64]:
    # Here, because only data that is split by fold or group needs scikit-learn.
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    splitter = kind(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of rare classes; what comes of them is checked
        parts = list(splitter.split(np.zeros(len(labels)), labels, groups))
    for _, held_out in parts:
        yield np.sort(held_out).astype(np.int64)
