from __future__ import annotations

import numpy as np
import pytest

from konkyo.training.data import Int64
from konkyo.training.errors import DataError
from konkyo.training.folds import fold_split

NAMES = ("crack", "free", "pit")


def _parts(
    labels: Int64,
    groups: Int64 | None,
    *,
    fold: int = 0,
    folds: int = 5,
    val_share: float = 0.1,
    seed: int = 0,
) -> tuple[Int64, Int64, Int64]:
    return fold_split(labels, groups, NAMES, fold=fold, folds=folds, val_share=val_share, seed=seed)


def _objects(counts: tuple[int, int, int], seed: int) -> tuple[Int64, Int64]:
    """Labels and groups: so many objects a class, of one to six images each, in random order."""
    generator = np.random.default_rng(seed)
    labels = np.repeat([0, 1, 2], counts)
    images = generator.integers(1, 7, len(labels))
    order = generator.permutation(images.sum())
    return labels.repeat(images)[order], np.arange(len(labels)).repeat(images)[order]


@pytest.mark.parametrize("counts", [(5, 20, 8), (9, 40, 20), (7, 33, 11)])
@pytest.mark.parametrize("fold", range(5))
@pytest.mark.parametrize("seed", range(3))
def test_no_group_is_in_two_splits(counts: tuple[int, int, int], fold: int, seed: int) -> None:
    labels, groups = _objects(counts, seed)
    train, val, test = _parts(labels, groups, fold=fold, seed=seed)
    assert sorted([*train, *val, *test]) == list(range(len(labels)))
    held = [set(groups[part].tolist()) for part in (train, val, test)]
    assert not held[0] & held[1] and not held[0] & held[2] and not held[1] & held[2]  # noqa: PT018
    assert set(labels[train]) == set(labels[test]) == {0, 1, 2}
    assert len(val)
    for part in (train, val, test):
        assert part.tolist() == sorted(part)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("grouped", [False, True])
def test_the_folds_are_a_partition_with_the_shares_of_the_classes(seed: int, grouped: bool) -> None:
    labels, groups = _objects((30, 120, 60), seed)
    tests = [_parts(labels, groups if grouped else None, fold=fold)[2] for fold in range(5)]
    assert sorted(np.concatenate(tests)) == list(range(len(labels)))
    shares = np.array([np.bincount(labels[test]) for test in tests]) / np.bincount(labels)
    assert (np.abs(shares - 0.2) < (0.06 if grouped else 0.02)).all()


def test_an_object_may_be_in_several_classes() -> None:
    """A defect and the clean side of the same tile: all its images go one way."""
    labels = np.tile([0, 1, 2, 1], 20)
    groups = np.arange(20).repeat(4)
    for part in _parts(labels, groups):
        assert (np.bincount(groups[part], minlength=20) % 4 == 0).all()


@pytest.mark.parametrize("grouped", [False, True])
def test_the_seed_moves_the_validation_and_never_the_test(grouped: bool) -> None:
    labels, groups = _objects((30, 120, 60), 3)
    first, again, other = (_parts(labels, groups if grouped else None, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first[2], other[2])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[1], other[1])


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2, 0.3])
@pytest.mark.parametrize("grouped", [False, True])
def test_val_share_is_of_all_images(share: float, grouped: bool) -> None:
    labels, groups = _objects((60, 240, 120), 4)
    val = _parts(labels, groups if grouped else None, val_share=share)[1]
    shares = np.bincount(labels[val]) / np.bincount(labels)
    assert shares == pytest.approx([share] * 3, abs=0.08 if grouped else 0.01)


def test_a_rare_class_is_rather_in_val_than_not() -> None:
    """Six objects of it: one is tested on, five are left, and eight parts are drawn to validate on."""
    labels, groups = np.repeat([0, 1, 2], [6, 60, 60]), np.arange(126)
    for seed in range(5):
        assert set(labels[_parts(labels, groups, seed=seed)[1]]) == {0, 1, 2}


@pytest.mark.parametrize(
    ("groups", "message"),
    [(None, "pit: 4 images are too few for 5 folds; 5 are needed"),
     (np.array([*range(40), 41, 41, 42, 42]), "pit: 2 groups are too few for 5 folds")],
)  # fmt: skip
def test_a_class_too_rare_is_named(groups: Int64 | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        _parts(np.repeat([0, 1, 2], [20, 20, 4]), groups)


def test_two_folds_need_three_of_a_class() -> None:
    labels = np.repeat([0, 1, 2], [20, 20, 2])
    with pytest.raises(DataError, match="pit: 2 groups are too few for 2 folds; 3 are needed"):
        _parts(labels, np.arange(42), folds=2)


def test_groups_that_cannot_be_split_are_refused() -> None:
    """The Fano plane: seven classes of three groups, of which no halves hold every class."""
    lines = [(0, 1, 2), (0, 3, 4), (0, 5, 6), (1, 3, 5), (1, 4, 6), (2, 3, 6), (2, 4, 5)]
    names = [f"line {line}" for line in lines]
    with pytest.raises(DataError, match="no 2 folds by group were found that each hold every class"):
        fold_split(
            np.arange(7).repeat(3), np.array(lines).ravel(), names, fold=0, folds=2, val_share=0.1, seed=0
        )


def test_train_keeps_every_class() -> None:
    """Three groups a class, the third as large as the others together: of the halves one leaves it alone."""
    labels = np.repeat([0, 1, 2], 8)
    groups = np.tile([0, 0, 1, 1, 2, 2, 2, 2], 3) + 3 * labels
    refused = 0
    for fold in range(2):
        try:
            train, _, test = _parts(labels, groups, fold=fold, folds=2, val_share=0.4)
        except DataError as error:
            assert "cannot be split so that train keeps every class" in str(error)  # noqa: PT017
            refused += 1
        else:
            assert set(labels[train]) == set(labels[test]) == {0, 1, 2}
    assert refused == 1


@pytest.mark.parametrize("fold", [-1, 5])
def test_there_are_no_other_folds(fold: int) -> None:
    with pytest.raises(DataError, match=f"there is no fold {fold} of 5; they are numbered from 0"):
        _parts(np.repeat([0, 1, 2], 20), None, fold=fold)
