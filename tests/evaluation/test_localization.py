"""Boxes of maps, the rule of ILSVRC for one and five answers, and the class told."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toys import SIDE, Given, Linear, make_candidate, make_example, mark, take

from konkyo.evaluation.measures.localization import Localization, best_iou, localization_box
from konkyo.evaluation.measures.localization_given_class import LocalizationGivenClass

PIXELS = np.zeros((SIDE, SIDE, 3), np.uint8)


def block(rows, columns):
    mask = np.zeros((SIDE, SIDE), np.bool_)
    mask[rows, columns] = True
    return mask


def box(map_, threshold=0.15, size=None):
    found = localization_box(map_, threshold, size or map_.shape)
    return None if found is None else found.tolist()


def test_the_box_holds_what_reaches_the_threshold():
    map_ = torch.zeros(6, 8)
    map_[1, 2:6] = torch.tensor([15.0, 100, 50, 14])
    assert box(map_) == [2, 1, 5, 2]  # 15 % itself is in
    assert box(map_, 0.5) == [3, 1, 5, 2]
    assert box(map_, 1) == [3, 1, 4, 2]
    assert box(map_, 0.14) == [2, 1, 6, 2]


def test_the_largest_connected_part_counts_not_the_highest():
    map_ = torch.zeros(8, 8)
    map_[0, 7] = 10
    map_[4, 1] = map_[5, 2] = map_[6, 1] = 2  # meet in corners
    assert box(map_) == [1, 4, 3, 7]


def test_a_map_is_enlarged_before_it_is_cut():
    map_ = torch.tensor([[1.0, 0.0]])
    # Over 8 columns the values are 1, 1, 7/8, 5/8, 3/8, 1/8, 0, 0.
    assert box(map_, 0.15, (4, 8)) == [0, 0, 5, 4]
    assert box(map_, 0.125, (4, 8)) == [0, 0, 6, 4]


def test_no_box_of_a_map_of_zeros_and_all_of_a_flat_one():
    assert box(torch.zeros(3, 3)) is None
    assert box(torch.ones(2, 2), size=(5, 7)) == [0, 0, 7, 5]


def test_overlap_by_hand():
    boxes = np.array([[0, 0, 4, 4], [2, 0, 6, 2]], np.float64)
    assert best_iou(np.array([0, 0, 4, 2], np.float64), boxes) == pytest.approx(8 / 16)
    assert best_iou(np.array([2, 0, 4, 2], np.float64), boxes) == pytest.approx(4 / 8)
    assert best_iou(np.array([6, 6, 8, 8], np.float64), boxes) == 0
    assert best_iou(None, boxes) == 0


def one_answer(mask, target, map_, **settings):
    """The record of an image in which a mask of class 1 is marked and class 2 is predicted, then 1, 0."""
    candidate = make_candidate(Linear(torch.zeros(3, SIDE, SIDE), bias=[0.0, 1, 2]), classes=3)
    maps = torch.zeros(1, 3, SIDE, SIDE)
    maps[0, target] = torch.from_numpy(map_).float()
    return take(
        Localization,
        Given(maps),
        make_example(PIXELS, marked=(mark(mask, 1),)),
        candidate=candidate,
        **settings,
    )


def test_only_the_map_of_the_right_class_counts():
    mask = block(slice(0, 4), slice(0, 4))
    second = one_answer(mask, 1, mask).figures
    assert (second["error_top1"], second["error_top5"]) == (1, 0)
    assert (second["class_error_top1"], second["class_error_top5"]) == (1, 0)
    first = one_answer(mask, 0, mask).figures
    assert (first["error_top1"], first["error_top5"]) == (1, 1)


@pytest.mark.parametrize(("width", "error"), [(4, 0), (8, 0), (3, 1)])
def test_an_overlap_of_one_half_is_right(width, error):
    """The thing is 4 x 8; a map of 4 x 4 or 8 x 8 overlaps by exactly one half."""
    mask = block(slice(None), slice(0, 4))
    rows = slice(0, 4) if width < 8 else slice(None)
    assert one_answer(mask, 1, block(rows, slice(0, width))).figures["error_top5"] == error
    assert one_answer(mask, 1, block(rows, slice(0, width)), iou=0.51).figures["error_top5"] == 1


def test_any_box_of_the_class_and_the_share_of_images():
    """Class 1 is predicted: its map has the box of the second of two things; no box; a wrong class;
    nothing to find; nobody looked; out of sight."""
    candidate = make_candidate(Linear(torch.zeros(2, SIDE, SIDE), bias=[0.0, 1]))
    here, there = block(slice(2), slice(2)), block(slice(4, 8), slice(4, 8))
    examples = [
        make_example(PIXELS, marked=(mark(here, 1), mark(there, 0, 1))),
        make_example(PIXELS, marked=(mark(there, 1),)),
        make_example(PIXELS, marked=(mark(there, 0),)),
        make_example(PIXELS, marked=()),
        make_example(PIXELS),
        make_example(PIXELS, marked=(mark(np.zeros_like(here), 1),)),
    ]
    maps = torch.zeros(6, 2, SIDE, SIDE)
    maps[0, 0] = torch.from_numpy(there)
    maps[1, 0] = np.nan
    taken = take(Localization, Given(maps), *examples, candidate=candidate)
    assert [record.position for record in taken.records] == [0, 1, 2]
    assert taken.columns["error_top1"].tolist() == [0, 1, 1]
    assert taken.columns["iou_top1"].tolist() == [1, 0, 0]
    assert taken.columns["class_error_top1"].tolist() == [0, 0, 1]
    assert taken.columns["error_top5"].tolist() == [0, 1, 1]
    assert taken.figures["error_top1"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("turn", [lambda map_: map_[::-1], lambda map_: map_[:, ::-1], np.transpose])
def test_a_mirrored_or_transposed_map_is_wrong(turn):
    mask = block(slice(0, 3), slice(4, 8))
    assert one_answer(mask, 1, mask).figures["error_top5"] == 0
    assert one_answer(mask, 1, np.ascontiguousarray(turn(mask))).figures["error_top5"] == 1


def test_given_the_class_each_thing_is_judged_by_its_own_map():
    here, there, nothing = (
        block(slice(4), slice(4)),
        block(slice(4, 8), slice(4, 8)),
        block(slice(0), slice(0)),
    )
    things = mark(here, 0, name="cat"), mark(there, 1, name="dog"), mark(nothing, 0, name="cat")
    maps = torch.zeros(2, 3, SIDE, SIDE)
    maps[0, 0, :4, :2] = 1  # one half of the cat
    maps[0, 1, :4, :4] = 1  # not on the dog
    maps[1, 0] = 1
    taken = take(
        LocalizationGivenClass,
        Given(maps),
        make_example(PIXELS, marked=things),
        make_example(PIXELS, marked=things[:1]),
    )
    np.testing.assert_array_equal(taken.columns["iou"], [0.5, 0, np.nan, 0.25])
    np.testing.assert_array_equal(taken.columns["error"], [0, 1, np.nan, 1])
    assert taken.figures["error"] == pytest.approx(2 / 3)
    assert taken.figures["error_of_classes"] == pytest.approx((0.5 + 1) / 2)
    assert taken.figures["iou"] == pytest.approx(0.25)
    assert taken.notes == ["1 of 4 marked things lie outside of what the network sees: left out."]
