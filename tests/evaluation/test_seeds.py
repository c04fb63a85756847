"""Seeds of segmentation: overlaps counted by hand, over thresholds, classes and images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score
from toys import SIDE, Given, make_example, mark, take

from konkyo.evaluation.measures.seeds import THRESHOLDS, Seeds, class_iou, seed_overlap

PIXELS = np.zeros((SIDE, SIDE, 3), np.uint8)


def overlap(map_, mask, *thresholds):
    intersections, unions = seed_overlap(map_[None], mask[None], thresholds)
    return intersections[0].tolist(), unions[0].tolist()


def test_counts_by_hand():
    """At the threshold itself a pixel is a seed; two of the three highest lie in the mask of four."""
    map_ = torch.tensor([[4.0, 3, 2], [1, 0, 2], [0, 0, 0]])
    mask = torch.tensor([[1, 0, 1], [1, 0, 1], [0, 0, 0]], dtype=torch.bool)
    assert overlap(map_, mask, 0, 0.25, 0.5, 0.51, 0.75, 1) == ([4, 4, 3, 1, 1, 1], [9, 5, 5, 5, 5, 4])


def test_a_map_that_is_its_mask_its_inverse_a_flat_one_and_one_of_zeros():
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[2:5, 1:7] = True
    assert overlap(mask.float(), mask, 0.2, 1) == ([18, 18], [18, 18])
    assert overlap(1 - mask.float(), mask, 0.2, 1) == ([0, 0], [64, 64])
    assert overlap(torch.ones(2, 2), mask, 0.2, 1) == ([18, 18], [64, 64])
    assert overlap(torch.zeros(2, 2), mask, 0, 1) == ([0, 0], [18, 18])
    assert np.isnan(overlap(torch.ones(2, 2), torch.zeros_like(mask), 0.5)).all()


def test_what_is_exactly_at_the_share_is_a_seed():
    everything = torch.ones(1, 2, dtype=torch.bool)
    for value, threshold in ((15.0, 0.15), (20.0, 0.2), (70.0, 0.7)):
        assert overlap(torch.tensor([[100.0, value]]), everything, threshold) == ([2], [2])


@given(seed=st.integers(0, 2**32 - 1), threshold=st.floats(0.01, 1))
def test_the_overlap_is_the_jaccard_index(seed, threshold):
    generator = np.random.default_rng(seed)
    map_, mask = generator.random((5, 4), np.float32), generator.random((5, 4)) < 0.4
    mask[2, 2] = True
    (intersection,), (union,) = overlap(torch.from_numpy(map_), torch.from_numpy(mask), threshold)
    seeds = map_ >= np.float32(threshold * float(map_.max()))
    assert intersection / union == pytest.approx(jaccard_score(mask.ravel(), seeds.ravel()))


def test_the_overlap_of_a_class_is_of_all_its_pixels_together():
    intersections = np.array([[1.0], [9], [2], [np.nan]])
    unions = np.array([[10.0], [10], [4], [np.nan]])
    assert class_iou(intersections, unions, np.array([7.0, 7, 3, 3])) == pytest.approx(
        [(10 / 20 + 2 / 4) / 2]
    )
    assert np.isnan(class_iou(intersections[3:], unions[3:], np.zeros(1))).all()


def test_things_of_two_classes_at_the_setting_and_at_the_best_threshold():
    left, top, nothing = np.zeros((3, SIDE, SIDE), np.bool_)
    left[:, :2] = top[:1] = True  # 16 and 8 pixels
    maps = torch.zeros(2, 3, SIDE, SIDE)
    maps[0, 0, :, :2], maps[0, 0, :, 2:4] = 1, 0.5  # from 0.5 down 32 pixels, over it exactly the thing
    maps[0, 1, 0] = 2
    maps[0, 2] = 1
    maps[1, 0, 0, 0] = 1  # one pixel of the thing
    things = mark(left, 0, name="cat"), mark(top, 1, name="dog"), mark(nothing, 1, name="dog")
    examples = make_example(PIXELS, marked=things), make_example(PIXELS, marked=things[:1])
    taken = take(Seeds, Given(maps), *examples)
    np.testing.assert_array_equal(taken.columns["iou"], [16 / 32, 1, np.nan, 1 / 16])
    assert taken.figures["iou"] == pytest.approx(((16 + 1) / (32 + 16) + 1) / 2)
    assert taken.figures["iou_all"] == pytest.approx((0.5 + 1 + 1 / 16) / 3)
    assert taken.figures["iou_best"] == pytest.approx(((16 + 1) / (16 + 16) + 1) / 2)
    assert take(Seeds, Given(maps), *examples, threshold=0.7).figures["iou"] == taken.figures["iou_best"]
    curve = taken.columns["ious"]
    assert curve.shape == (4, len(THRESHOLDS))
    assert curve[0].tolist() == [16 / 64] + [0.5] * 10 + [1] * 10
    assert taken.notes == ["1 of 4 marked things lie outside of what the network sees: left out."]


def test_a_map_that_is_not_finite_has_no_seed():
    mask = np.ones((SIDE, SIDE), np.bool_)
    taken = take(Seeds, Given(torch.full((2, 2), np.nan)), make_example(PIXELS, marked=(mark(mask),)))
    assert taken.figures["iou"] == 0
    assert taken.columns["union"].tolist() == [64]


def test_as_many_maps_as_masks():
    with pytest.raises(ValueError, match="1 maps, 2 masks"):
        seed_overlap(torch.zeros(1, 2, 2), torch.zeros(2, 4, 4, dtype=torch.bool), (0.5,))
