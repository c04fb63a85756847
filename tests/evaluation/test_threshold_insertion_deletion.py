"""Insertion and deletion by threshold with a classifier whose every answer is known beforehand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from toys import Given, Linear, make_batch, make_candidate, make_example

from konkyo.evaluation.measures.base import Unsuited
from konkyo.evaluation.measures.threshold_insertion_deletion import (
    ThresholdInsertionDeletion,
    ThresholdInsertionDeletionParameters,
)
from konkyo.evaluation.pixels_by_threshold import THRESHOLDS, threshold_hits, threshold_insertion_deletion

GREY = (128, 128, 128)


def left_or_right(images):
    """Says 1 where the upper left 2 x 2 pixels are bright, else 0; looks at nothing else."""
    bright = images[:, :2, :2].double().mean(dim=(1, 2, 3)) - 200
    return torch.stack([-bright, bright], dim=1)


def bright_images(count=3):
    return torch.full((count, 4, 4, 3), 255, dtype=torch.uint8), torch.ones(count, dtype=torch.int64)


def region(count=3):
    """A map that is exactly what the classifier looks at."""
    maps = torch.zeros(count, 4, 4)
    maps[:, :2, :2] = 1
    return maps


def test_a_map_on_what_decides_is_perfect_in_insertion_and_in_deletion() -> None:
    found = threshold_insertion_deletion(left_or_right, *bright_images(), region(), fill=GREY)
    assert found.insertion.tolist() == [1] * 21
    assert found.deletion.tolist() == [0] * 21
    assert (found.insertion_area, found.deletion_area, found.score) == (1, 0, 1)
    # At threshold 0 all pixels are kept, above it the quarter.
    assert found.kept.tolist() == [1] + [0.25] * 20
    assert (found.images, found.flat) == (3, 0)


def test_a_map_on_all_else_has_the_lowest_score_there_is() -> None:
    found = threshold_insertion_deletion(
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
    found = threshold_insertion_deletion(
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
    maps = torch.full((3, 2, 2), level)
    found = threshold_insertion_deletion(
        left_or_right, *bright_images(), maps, fill=GREY, thresholds=[0, 0.5, 1]
    )
    assert found.kept.tolist() == [1, 0, 0]
    assert found.insertion.tolist() == [1, 0, 0]
    assert found.deletion.tolist() == [0, 1, 1]
    assert found.flat == 3


def test_every_map_is_scaled_by_its_own_ends() -> None:
    images, labels = bright_images(2)
    maps = torch.stack([region(1)[0] * 0.001 - 5, region(1)[0] * 1000 + 7])
    found = threshold_insertion_deletion(left_or_right, images, labels, maps, fill=GREY)
    assert (found.insertion_area, found.deletion_area) == (1, 0)


def test_coarse_maps_are_enlarged_bilinearly_and_then_scaled() -> None:
    # One row (0, 1) on four columns: 0, 1/4, 3/4, 1 by half-pixel centres, at both ends exact.
    images, labels = torch.zeros((1, 1, 4, 3), dtype=torch.uint8), torch.zeros(1, dtype=torch.int64)
    seen = []

    def record(batch):
        seen.extend(batch[:, 0, :, 0].tolist())
        return torch.zeros(len(batch), 2)

    found = threshold_insertion_deletion(
        record, images, labels, torch.tensor([[[0.2, 0.6]]]), fill=(9, 8, 7), thresholds=[0, 0.5, 0.8, 1]
    )
    insertion, deletion = seen[:4], seen[4:]
    assert insertion == [[0, 0, 0, 0], [9, 9, 0, 0], [9, 9, 9, 0], [9, 9, 9, 0]]
    assert deletion == [[9, 9, 9, 9], [0, 0, 9, 9], [0, 0, 0, 9], [0, 0, 0, 9]]
    assert found.kept == pytest.approx([1, 0.5, 0.25, 0.25])

    # A peak of one cell among three is below 1 between the pixels' centres; it still is the map's 1.
    seen.clear()
    images = torch.zeros((1, 1, 6, 3), dtype=torch.uint8)
    threshold_insertion_deletion(
        record, images, labels, torch.tensor([[[0.0, 1, 0]]]), fill=GREY, thresholds=[0, 1]
    )
    assert seen[1] == [128, 128, 0, 0, 128, 128]


def test_pixels_taken_away_have_the_stated_colour_and_the_others_stay() -> None:
    generator = np.random.default_rng(0)
    images = torch.from_numpy(generator.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8))
    seen = []

    def record(batch):
        assert batch.dtype == torch.uint8
        seen.extend(batch.numpy().copy())
        return torch.zeros(len(batch), 2)

    threshold_insertion_deletion(record, images, torch.zeros(2), region(2), fill=(1, 2, 3), thresholds=[0, 1])
    inside, images = region(2).bool().numpy(), images.numpy()
    # Of each image at 0 and at 1: all inserted, inserted; none left, deleted.
    inserted, deleted = np.stack(seen[1:4:2]), np.stack(seen[5::2])
    assert (inserted[inside] == images[inside]).all()
    assert (inserted[~inside] == (1, 2, 3)).all()
    assert (deleted[inside] == (1, 2, 3)).all()
    assert (deleted[~inside] == images[~inside]).all()


def test_the_share_of_right_answers_whatever_the_batches() -> None:
    images, labels = bright_images(5)
    labels[:2] = 0  # the classifier sees them bright, so it is wrong
    maps = torch.cat([region(4), torch.zeros(1, 4, 4)])
    for batch_size in (1, 2, 5, 64):
        sizes = []

        def classify(batch, sizes=sizes):
            sizes.append(len(batch))
            return left_or_right(batch)

        found = threshold_insertion_deletion(
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
        threshold_insertion_deletion(
            left_or_right, *bright_images(), region(), fill=GREY, thresholds=thresholds
        )


def test_arrays_that_do_not_fit_and_maps_that_are_not_finite_are_refused() -> None:
    images, labels = bright_images()
    with pytest.raises(ValueError, match="3 images, 3 labels, 2 maps"):
        threshold_insertion_deletion(left_or_right, images, labels, region(2), fill=GREY)
    with pytest.raises(ValueError, match="0 images"):
        threshold_insertion_deletion(left_or_right, images[:0], labels[:0], region(0), fill=GREY)
    with pytest.raises(ValueError, match="not finite"):
        threshold_insertion_deletion(left_or_right, images, labels, region() + torch.inf, fill=GREY)


def seer():
    """Sure of class 1 where the upper left 2 x 2 pixels of 4 x 4 are white, of class 0 where grey."""
    weights = torch.zeros(2, 4, 4)
    weights[1, :2, :2] = 100
    return make_candidate(Linear(weights, bias=[300.0, 0.0]), side=4)


def taken(candidate, maps, truths, **parameters):
    examples = [
        make_example(np.full((4, 4, 3), 255, np.uint8), truth, name=str(place))
        for place, truth in enumerate(truths)
    ]
    batch = make_batch(candidate, *examples)
    measure = ThresholdInsertionDeletion(
        candidate, Given(maps), ThresholdInsertionDeletionParameters(**parameters)
    )
    return measure, measure.records(batch, batch.logits.argmax(dim=1, keepdim=True), maps)


def test_the_measure_gives_the_figures_of_the_whole_set_and_leaves_out_unknown_classes() -> None:
    maps = torch.cat([region(3), region(1) * torch.nan, -region(1)])[:, None]
    measure, records = taken(seer(), maps, [1, None, 0, 1, 1], thresholds=3)
    assert [record.position for record in records] == [0, 2, 3, 4]
    right, wrong, unknown, negative = (record.values for record in records)
    assert right["insertion_curve"] == [1, 1, 1]
    assert right["deletion_curve"] == [0, 0, 0]
    assert right["kept_curve"] == [1, 0.25, 0.25]
    # White is never class 0, grey always is: wrong with the quarter, right without it.
    assert wrong["insertion_curve"] == [0, 0, 0]
    assert wrong["deletion_curve"] == [1, 1, 1]
    assert all(np.isnan(np.hstack(list(unknown.values()))))
    # What speaks against a class counts as nothing, so this map points nowhere.
    assert negative["flat"] == 1
    assert negative["insertion_curve"] == [1, 0, 0]
    assert negative["deletion_curve"] == [0, 1, 1]

    columns = {name: np.array([record.values[name] for record in records]) for name in right}
    figures = {statistic.name: statistic.of(columns) for statistic in measure.statistics()}
    maps = maps.nan_to_num(0).clamp(min=0)[[0, 2, 4], 0]
    whole = threshold_insertion_deletion(
        measure.candidate.logits, *bright_images(3)[:1], torch.tensor([1, 0, 1]), maps, fill=GREY,
        thresholds=[0, 0.5, 1],
    )  # fmt: skip
    assert figures["insertion"] == pytest.approx(whole.insertion_area)
    assert figures["deletion"] == pytest.approx(whole.deletion_area)
    assert figures["score"] == pytest.approx(whole.score)
    assert figures["kept"] == pytest.approx(whole.kept.mean())
    assert figures["flat"] == pytest.approx(1 / 3)


def test_images_of_no_known_class_have_no_records() -> None:
    assert taken(seer(), region(2)[:, None], [None, None])[1] == ()


@pytest.mark.parametrize(
    ("normalisation", "colour"),
    [({}, [128, 128, 128]), ({"mean": (0.5, 0.4, 0.0)}, [128, 102, 0])],
)
def test_the_colour_is_what_the_normalisation_subtracts_or_mid_grey(normalisation, colour) -> None:
    candidate = make_candidate(Linear(torch.zeros(2, 4, 4)), side=4, **normalisation)
    parameters = ThresholdInsertionDeletionParameters()
    measure = ThresholdInsertionDeletion(candidate, Given(region()), parameters)
    assert measure.settled() == {"fill": colour}
    parameters = ThresholdInsertionDeletionParameters(fill=(9, 8, 7))
    assert ThresholdInsertionDeletion(candidate, Given(region()), parameters).settled() == {"fill": [9, 8, 7]}


def test_the_colour_decides() -> None:
    # White pixels under white: nothing is ever taken away.
    _, [found] = taken(seer(), region(1)[:, None], [1], fill=(255, 255, 255))
    assert (found.values["insertion"], found.values["deletion"]) == (1, 1)


def test_no_maps_and_colours_that_are_none_are_refused() -> None:
    with pytest.raises(Unsuited, match="maps"):
        ThresholdInsertionDeletion(seer(), None, ThresholdInsertionDeletionParameters())
    with pytest.raises(ValidationError, match="fill"):
        ThresholdInsertionDeletionParameters(fill=(256, 0, 0))


def test_hits_of_an_image_do_not_depend_on_the_others() -> None:
    images, labels = bright_images(4)
    maps = torch.rand((4, 2, 2), generator=torch.Generator().manual_seed(0))
    together = threshold_hits(left_or_right, images, labels, maps, fill=GREY)
    alone = threshold_hits(left_or_right, images[2:3], labels[2:3], maps[2:3], fill=GREY, at_once=1)
    for whole, one in zip(together, alone, strict=True):
        assert torch.equal(whole[2:3], one)
