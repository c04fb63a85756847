"""Insertion and deletion with a classifier whose every answer is known beforehand."""

from __future__ import annotations

import numpy as np
import pytest

from konkyo.evaluation.insertion_deletion import THRESHOLDS, insertion_deletion

GREY = (128, 128, 128)


def left_or_right(images):
    """Says 1 where the upper left 2 x 2 pixels are bright, else 0; looks at nothing else."""
    bright = images[:, :2, :2].astype(np.float64).mean(axis=(1, 2, 3)) - 200
    return np.stack([-bright, bright], axis=1)


def bright_images(count=3):
    return np.full((count, 4, 4, 3), 255, dtype=np.uint8), np.ones(count, dtype=np.int64)


def region(count=3):
    """A map that is exactly what the classifier looks at."""
    maps = np.zeros((count, 4, 4), dtype=np.float32)
    maps[:, :2, :2] = 1
    return maps


def test_a_map_on_what_decides_is_perfect_in_insertion_and_in_deletion() -> None:
    found = insertion_deletion(left_or_right, *bright_images(), region(), fill=GREY)
    assert found.insertion.tolist() == [1] * 21
    assert found.deletion.tolist() == [0] * 21
    assert (found.insertion_area, found.deletion_area, found.score) == (1, 0, 1)
    # At threshold 0 all pixels are kept, above it the quarter.
    assert found.kept.tolist() == [1] + [0.25] * 20
    assert (found.images, found.flat) == (3, 0)


def test_a_map_on_all_else_has_the_lowest_score_there_is() -> None:
    found = insertion_deletion(
        left_or_right, *bright_images(), 1 - region(), fill=GREY, thresholds=[0, 0.5, 1]
    )
    # Insertion is right only where all is kept, deletion only where nothing is filled.
    assert found.insertion.tolist() == [1, 0, 0]
    assert found.deletion.tolist() == [0, 1, 1]
    assert (found.insertion_area, found.deletion_area, found.score) == (0.25, 0.75, -0.5)


def test_areas_are_trapezoids_over_the_range_of_the_thresholds() -> None:
    # Attention of the region 0.5, of one pixel 1, of the rest 0: the region is kept up to 0.5.
    maps = region() / 2
    maps[:, 3, 3] = 1
    found = insertion_deletion(
        left_or_right, *bright_images(), maps, fill=GREY, thresholds=[0.2, 0.5, 0.6, 1.0]
    )
    assert found.insertion.tolist() == [1, 1, 0, 0]
    assert found.deletion.tolist() == [0, 0, 1, 1]
    assert found.kept == pytest.approx([5 / 16, 5 / 16, 1 / 16, 1 / 16])
    assert found.insertion_area == pytest.approx((0.3 + 0.1 / 2) / 0.8)
    assert found.deletion_area == pytest.approx((0.1 / 2 + 0.4) / 0.8)
    assert found.score == pytest.approx(-0.1 / 0.8)


@pytest.mark.parametrize("level", [0.0, 0.7, -3.0])
def test_a_flat_map_points_nowhere(level: float) -> None:
    maps = np.full((3, 2, 2), level)
    found = insertion_deletion(left_or_right, *bright_images(), maps, fill=GREY, thresholds=[0, 0.5, 1])
    assert found.kept.tolist() == [1, 0, 0]
    assert found.insertion.tolist() == [1, 0, 0]
    assert found.deletion.tolist() == [0, 1, 1]
    assert found.flat == 3


def test_every_map_is_scaled_by_its_own_ends() -> None:
    images, labels = bright_images(2)
    maps = np.stack([region(1)[0] * 0.001 - 5, region(1)[0] * 1000 + 7])
    found = insertion_deletion(left_or_right, images, labels, maps, fill=GREY)
    assert (found.insertion_area, found.deletion_area) == (1, 0)


def test_coarse_maps_are_enlarged_bilinearly_and_then_scaled() -> None:
    # One row (0, 1) on four columns: 0, 1/4, 3/4, 1 by half-pixel centres, at both ends exact.
    images, labels = np.zeros((1, 1, 4, 3), dtype=np.uint8), np.zeros(1, dtype=np.int64)
    seen = []

    def record(batch):
        seen.append(batch[0, 0, :, 0].tolist())
        return np.zeros((len(batch), 2))

    found = insertion_deletion(
        record, images, labels, np.array([[[0.2, 0.6]]]), fill=(9, 8, 7), thresholds=[0, 0.5, 0.8, 1]
    )
    insertion, deletion = seen[::2], seen[1::2]
    assert insertion == [[0, 0, 0, 0], [9, 9, 0, 0], [9, 9, 9, 0], [9, 9, 9, 0]]
    assert deletion == [[9, 9, 9, 9], [0, 0, 9, 9], [0, 0, 0, 9], [0, 0, 0, 9]]
    assert found.kept == pytest.approx([1, 0.5, 0.25, 0.25])

    # A peak of one cell among three is below 1 between the pixels' centres; it still is the map's 1.
    seen.clear()
    images = np.zeros((1, 1, 6, 3), dtype=np.uint8)
    insertion_deletion(record, images, labels, np.array([[[0.0, 1, 0]]]), fill=GREY, thresholds=[0, 1])
    assert seen[2] == [128, 128, 0, 0, 128, 128]


def test_pixels_taken_away_have_the_stated_colour_and_the_others_stay() -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    batches = []

    def record(batch):
        assert batch.dtype == np.uint8
        batches.append(batch)
        return np.zeros((len(batch), 2))

    insertion_deletion(record, images, np.zeros(2, np.int64), region(2), fill=(1, 2, 3), thresholds=[0, 1])
    inside = region(2).astype(bool)
    inserted, deleted = batches[2:]
    assert (inserted[inside] == images[inside]).all()
    assert (inserted[~inside] == (1, 2, 3)).all()
    assert (deleted[inside] == (1, 2, 3)).all()
    assert (deleted[~inside] == images[~inside]).all()


def test_the_share_of_right_answers_whatever_the_batches() -> None:
    images, labels = bright_images(5)
    labels[:2] = 0  # the classifier sees them bright, so it is wrong
    maps = np.concatenate([region(4), np.zeros((1, 4, 4), dtype=np.float32)])
    for batch_size in (1, 2, 5, 64):
        sizes = []

        def classify(batch, sizes=sizes):
            sizes.append(len(batch))
            return left_or_right(batch)

        found = insertion_deletion(
            classify, images, labels, maps, fill=GREY, thresholds=[0, 0.5, 1], batch_size=batch_size
        )
        # Bright and kept: two of the three labelled 1, and at 0 the flat one too. Grey is class 0.
        assert found.insertion == pytest.approx([3 / 5, 2 / 5, 2 / 5])
        assert found.deletion == pytest.approx([2 / 5, 3 / 5, 3 / 5])
        assert (found.images, found.flat) == (5, 1)
        assert max(sizes) <= batch_size
        assert sum(sizes) == 5 * 3 * 2


def test_by_default_the_thresholds_go_from_0_to_1_by_twentieths() -> None:
    assert (len(THRESHOLDS), THRESHOLDS[0], THRESHOLDS[7], THRESHOLDS[-1]) == (21, 0, 0.35, 1)


@pytest.mark.parametrize("thresholds", [[], [0.5], [0.5, 0.5], [1, 0], [-0.1, 1], [0, 1.1], [0, np.nan, 1]])
def test_thresholds_without_a_range_are_refused(thresholds) -> None:
    with pytest.raises(ValueError, match="thresholds"):
        insertion_deletion(left_or_right, *bright_images(), region(), fill=GREY, thresholds=thresholds)


def test_arrays_that_do_not_fit_and_maps_that_are_not_finite_are_refused() -> None:
    images, labels = bright_images()
    with pytest.raises(ValueError, match="3 images, 3 labels, 2 maps"):
        insertion_deletion(left_or_right, images, labels, region(2), fill=GREY)
    with pytest.raises(ValueError, match="0 images"):
        insertion_deletion(left_or_right, images[:0], labels[:0], region(0), fill=GREY)
    with pytest.raises(ValueError, match="not finite"):
        insertion_deletion(left_or_right, images, labels, region() + np.inf, fill=GREY)
