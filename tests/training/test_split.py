from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from konkyo.training.data import NO_MASK, ImageData, Images, UInt8, stratified_split
from konkyo.training.errors import DataError


def _images(count: int) -> Images:
    return Images(np.zeros((count, 8, 8, 3), np.uint8), np.zeros(count, np.int64))


@given(
    counts=st.lists(st.integers(3, 60), min_size=2, max_size=5),
    shares=st.tuples(st.floats(0.01, 0.3), st.floats(0.01, 0.3)),
    seed=st.integers(0, 2**32 - 1),
)
def test_parts_are_disjoint_complete_and_hold_every_class(
    counts: list[int], shares: tuple[float, float], seed: int
) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    parts = list(stratified_split(labels, shares, seed))
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    for part, share in zip(parts, [1 - sum(shares), *shares], strict=True):
        assert part.tolist() == sorted(part)
        kept = np.bincount(labels[part], minlength=len(counts))
        assert (kept >= 1).all()
        assert (np.abs(kept - share * np.array(counts)) <= 2).all()


def test_shares_are_exact_where_they_divide() -> None:
    labels = np.repeat([0, 1], [100, 50])
    rest, val, test = stratified_split(labels, [0.2, 0.1], seed=3)
    assert np.bincount(labels[rest]).tolist() == [70, 35]
    assert np.bincount(labels[val]).tolist() == [20, 10]
    assert np.bincount(labels[test]).tolist() == [10, 5]


def test_the_seed_decides() -> None:
    labels = np.arange(200) % 4
    first, again, other = (
        [part.tolist() for part in stratified_split(labels, [0.1], seed)] for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_a_class_too_small_is_refused() -> None:
    with pytest.raises(DataError, match="class 1 has 2 images, too few for 3 splits"):
        list(stratified_split(np.array([0, 0, 0, 1, 1]), [0.1, 0.1], seed=0))


def test_as_many_labels_as_images() -> None:
    with pytest.raises(DataError, match="2 images but 3 labels"):
        Images(np.zeros((2, 8, 8, 3), np.uint8), np.zeros(3, np.int64))


def test_take_copies_the_chosen() -> None:
    images = Images(np.arange(4 * 3, dtype=np.uint8).reshape(4, 1, 1, 3), np.array([5, 6, 7, 8]))
    taken = images.take(np.array([3, 1]))
    assert taken.labels.tolist() == [8, 6]
    assert taken.pixels.reshape(2, 3).tolist() == [[9, 10, 11], [3, 4, 5]]
    taken.pixels[:] = 0
    assert images.pixels[3, 0, 0].tolist() == [9, 10, 11]


def test_one_class_is_refused() -> None:
    with pytest.raises(DataError, match="one: a classifier needs at least 2 classes, found 1"):
        ImageData("one", ("a",), _images(1), _images(1), _images(1))


@pytest.mark.parametrize("empty", ["train", "val", "test"])
def test_an_empty_split_is_refused(empty: str) -> None:
    train, val, test = (_images(0 if split == empty else 1) for split in ("train", "val", "test"))
    with pytest.raises(DataError, match=f"the {empty} split is empty"):
        ImageData("set", ("a", "b"), train, val, test)


def test_size_is_height_and_width() -> None:
    wide = Images(np.zeros((1, 8, 24, 3), np.uint8), np.zeros(1, np.int64))
    assert ImageData("wide", ("a", "b"), wide, wide, wide).size == (8, 24)


class TestMasks:
    def _images(self, masks: UInt8 | None, count: int = 2) -> Images:
        return Images(np.zeros((count, 2, 3, 3), np.uint8), np.arange(count), masks)

    def test_are_taken_with_their_images(self) -> None:
        masks = np.array([[[0, 1, 0]] * 2, [[NO_MASK] * 3] * 2], np.uint8)
        taken = self._images(masks).take(np.array([1, 1, 0]))
        assert taken.masks is not None
        assert taken.masks.tolist() == [[[255] * 3] * 2, [[255] * 3] * 2, [[0, 1, 0]] * 2]
        taken.masks[:] = 7
        assert masks[0, 0, 0] == 0
        assert self._images(None).take(np.array([0])).masks is None

    @pytest.mark.parametrize("shape", [(1, 2, 3), (2, 3, 2), (2, 2, 3, 1)])
    def test_of_another_shape_are_refused(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(DataError, match=r"masks of shape \(.*\) for images of shape \(2, 2, 3, 3\)"):
            self._images(np.zeros(shape, np.uint8))

    def test_of_another_type_are_refused(self) -> None:
        with pytest.raises(DataError, match="masks are uint8, not bool"):
            self._images(np.zeros((2, 2, 3), bool))

    @pytest.mark.parametrize("swap", [False, True])
    def test_in_only_one_of_train_and_val_are_refused(self, swap: bool) -> None:
        masked, bare = self._images(np.zeros((2, 2, 3), np.uint8)), self._images(None)
        train, val = (bare, masked) if swap else (masked, bare)
        with pytest.raises(DataError, match="set: one of train and val has masks and the other has none"):
            ImageData("set", ("a", "b"), train, val, masked)
