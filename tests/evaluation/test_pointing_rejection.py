"""Pointing with rejection: which of an image's five maps are right at which threshold, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import SIDE, Given, Linear, make_candidate, make_example, mark, take

from konkyo.evaluation.measures.base import Unsuited
from konkyo.evaluation.measures.pointing_rejection import (
    THRESHOLDS,
    PointingRejection,
    best_rejection,
    right_or_rejected,
)

PIXELS = np.zeros((SIDE, SIDE, 3), np.uint8)
SIX = make_candidate(Linear(torch.zeros(6, SIDE, SIDE), bias=[5.0, 4, 3, 2, 1, 0]), classes=6)
NAN = np.nan


def dot(row, column):
    mask = np.zeros((SIDE, SIDE), np.bool_)
    mask[row, column] = True
    return mask


def test_right_is_to_hit_what_is_there_and_to_reject_what_is_not():
    peaks, hits = np.array([0.5, 0.5, 0.5, 0.4, 0.4, 0.4]), np.array([1, 0, NAN, 1, 0, NAN])
    assert right_or_rejected(peaks, hits, 0.5).tolist() == [1, 0, 0, 0, 0, 1]
    assert right_or_rejected(peaks, hits, 0.0).tolist() == [1, 0, 0, 1, 0, 0]
    assert right_or_rejected(peaks, hits, 0.6).tolist() == [0, 0, 1, 0, 0, 1]


def test_the_best_threshold_by_hand():
    peaks, hits = np.array([0.9, 0.7, 0.3, 0.1, 0.2]), np.array([1, 1, NAN, NAN, 0])
    assert best_rejection(peaks, hits) == 4 / 5
    assert best_rejection(np.full(5, 0.5), hits) == 2 / 5  # maps of one maximum cannot be told apart
    assert np.isnan(best_rejection(np.zeros(0), np.zeros(0)))


@given(
    maps=st.lists(
        st.tuples(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.sampled_from([0.0, 1.0, NAN])), min_size=1
    )
)
def test_the_best_threshold_is_the_best_of_all(maps):
    peaks, hits = np.array(maps).T
    best = max(right_or_rejected(peaks, hits, threshold).mean() for threshold in (*peaks, np.inf))
    assert best_rejection(peaks, hits) == pytest.approx(best)


def five(example, maps, **settings):
    return take(PointingRejection, Given(torch.stack(maps)[None]), example, candidate=SIX, **settings)


def at(row, column, value):
    map_ = torch.zeros(SIDE, SIDE)
    map_[row, column] = value
    return map_


MAPS = [at(1, 1, 10.0), at(1, 1, 6.0), at(6, 6, 5.0), at(6, 6, 4.0), torch.zeros(SIDE, SIDE)]


def test_an_image_of_two_things():
    """Class 0 is hit, 2 is missed, 1, 3 and 4 are not there; on the scale of the image their maxima are
    1, 0.6, 0.5, 0.4 and 0."""
    example = make_example(PIXELS, marked=(mark(dot(1, 1), 0), mark(dot(0, 0), 2)))
    taken = five(example, MAPS, tolerance=0)
    assert [record.about for record in taken.records] == [f"class {index}" for index in range(5)]
    np.testing.assert_array_equal(taken.columns["hit"], [1, NAN, 0, NAN, NAN])
    assert taken.columns["peak"].tolist() == pytest.approx([1, 0.6, 0.5, 0.4, 0])
    assert taken.columns["right"].tolist() == [1, 0, 0, 1, 1]
    assert taken.figures == {"accuracy": 3 / 5, "accuracy_best": 4 / 5, "reject_all": 3 / 5, "hits": 1 / 2}
    assert five(example, MAPS, tolerance=0, threshold=0.7).figures["accuracy"] == 4 / 5
    assert five(example, MAPS, tolerance=9).figures["hits"] == 1
    curve = dict(zip(THRESHOLDS, taken.columns["rights"].mean(axis=0), strict=True))
    assert (curve[0], curve[0.3], curve[0.5], curve[1]) == pytest.approx((1 / 5, 2 / 5, 3 / 5, 4 / 5))


def test_the_threshold_may_be_a_raw_value():
    example = make_example(PIXELS, marked=(mark(dot(1, 1), 0),))
    taken = five(example, MAPS, tolerance=0, scale="raw", threshold=5)
    assert taken.columns["peak"].tolist() == [10, 6, 5, 4, 0]
    assert taken.columns["right"].tolist() == [1, 0, 0, 1, 1]


def test_a_class_is_judged_only_where_it_is_known_whether_and_where_it_is():
    """Of an image without a defect: nothing of its own class 0 is marked. Class 1 lies out of sight."""
    clean = make_example(PIXELS, truth=0, marked=())
    assert [record.about for record in five(clean, MAPS).records] == [
        f"class {index}" for index in (1, 2, 3, 4)
    ]
    unseen = make_example(PIXELS, truth=1, marked=(mark(np.zeros((SIDE, SIDE), np.bool_), 1),))
    assert [record.about for record in five(unseen, MAPS).records] == [
        f"class {index}" for index in (0, 2, 3, 4)
    ]
    assert five(make_example(PIXELS), MAPS).records == []


def test_maps_of_zeros_and_maps_that_are_not_finite_reject():
    example = make_example(PIXELS, marked=(mark(dot(1, 1), 0),))
    broken = [map_ + NAN for map_ in MAPS]
    assert five(example, broken).columns["right"].tolist() == [0, 1, 1, 1, 1]
    assert five(example, [0 * map_ for map_ in MAPS], scale="raw").columns["right"].tolist() == [
        0,
        1,
        1,
        1,
        1,
    ]


def test_one_map_for_all_classes_cannot_reject():
    attention = Given(torch.ones(2, 2))
    attention.class_specific = False
    with pytest.raises(Unsuited, match="the same for every class"):
        take(PointingRejection, attention, make_example(PIXELS))
