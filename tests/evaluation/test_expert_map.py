"""Maps against the map an expert would paint: attention maps as they are, others by their maximum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toys import SIDE, Given, make_candidate, make_example, mark, take

from konkyo.evaluation.measures.expert_map import ExpertMap
from konkyo.models.registry import build

PIXELS = np.zeros((SIDE, SIDE, 3), np.uint8)


def block(rows, columns):
    mask = np.zeros((SIDE, SIDE), np.bool_)
    mask[rows, columns] = True
    return mask


CORNER, DOT = block(slice(4), slice(4)), block(slice(7, 8), slice(7, 8))


def errors(map_, *marked, name="given", candidate=None):
    example = make_example(PIXELS, marked=marked)
    return take(ExpertMap, Given(torch.tensor(map_), name), example, candidate=candidate).figures


def test_the_cells_a_mask_touches_are_one():
    """On a grid of 2 x 2 the expert marks the first cell, and the last by a single pixel."""
    found = errors([[2.0, 0.0], [0.0, 1.0]], mark(CORNER), mark(DOT))
    assert found["error"] == pytest.approx(0.25 / 4)
    assert found["of_zeros"] == pytest.approx(2 / 4)
    assert np.isnan(found["error_of_nothing"])


def test_a_map_that_is_its_mask_its_inverse_and_a_flat_one():
    mask = CORNER.astype(np.float32)
    assert errors(mask * 7, mark(CORNER))["error"] == 0
    assert errors(1 - mask, mark(CORNER))["error"] == 1
    assert errors(np.ones((2, 2), np.float32), mark(CORNER))["error"] == pytest.approx(3 / 4)
    assert errors(np.zeros((2, 2), np.float32), mark(CORNER))["error"] == pytest.approx(1 / 4)
    assert errors([[1.0, -9.0], [0.0, 0.0]], mark(CORNER))["error"] == 0  # what speaks against does not count


def test_an_attention_map_is_compared_as_it_is():
    abn = make_candidate(build("abn", 2), side=32, method="attention")
    example = make_example(np.zeros((32, 32, 3), np.uint8), marked=(mark(np.ones((32, 32), np.bool_)),))
    half = torch.full((4, 4), 0.5)
    for name, error in (("attention", 0.25), ("attention:1", 0.25), ("gradcam", 0.0)):
        taken = take(ExpertMap, Given(half, name), example, candidate=abn)
        assert taken.figures["error"] == pytest.approx(error)
        assert taken.notes == [f"Maps are compared {'as they are' if error else 'divided by their maximum'}."]


def test_an_image_where_nothing_is_there_has_a_figure_of_its_own():
    found = errors([[0.5, 1.0], [0.0, 0.0]])
    assert np.isnan(found["error"])
    assert found["error_of_nothing"] == pytest.approx((0.25 + 1) / 4)


def test_a_map_that_is_not_finite_is_wrong_everywhere_and_a_thing_out_of_sight_is_left_out():
    examples = [
        make_example(PIXELS, marked=(mark(CORNER),)),
        make_example(PIXELS, marked=(mark(block(slice(0), slice(0))),)),
        make_example(PIXELS),
        make_example(PIXELS, marked=()),
    ]
    taken = take(ExpertMap, Given(torch.full((2, 2), np.nan)), *examples)
    np.testing.assert_array_equal(taken.columns["error"], [1, np.nan, np.nan])
    np.testing.assert_array_equal(taken.columns["of_zeros"], [0.25, np.nan, np.nan])
    np.testing.assert_array_equal(taken.columns["error_of_nothing"], [np.nan, np.nan, 1])
    assert [record.position for record in taken.records] == [0, 1, 3]
    assert taken.notes[1] == "3 maps are not finite: error 1."
