"""Energy inside the mask of each thing, and Quantus' relevance mass accuracy beside it."""

from __future__ import annotations

import numpy as np
import pytest
import quantus
import torch
from toys import SIDE, Given, Linear, make_example, mark, take

from konkyo.evaluation.measures.energy import Energy

PIXELS = np.zeros((SIDE, SIDE, 3), np.uint8)


def block(rows, columns):
    mask = np.zeros((SIDE, SIDE), np.bool_)
    mask[rows, columns] = True
    return mask


LEFT, CORNER, NOTHING = block(slice(None), slice(2)), block(slice(2), slice(6, 8)), block(slice(0), slice(0))


def test_a_map_that_is_its_mask_its_inverse_and_a_flat_one():
    examples = [make_example(PIXELS, marked=(mark(LEFT),))] * 4
    mask = torch.from_numpy(LEFT).float()
    maps = torch.stack([mask, 1 - mask, torch.ones_like(mask), torch.zeros_like(mask)])[:, None]
    taken = take(Energy, Given(maps), *examples)
    assert taken.columns["energy"].tolist() == [1, 0, 0.25, 0]
    assert taken.columns["lift"].tolist() == [4, 0, 1, 0]
    assert taken.columns["share"].tolist() == [0.25] * 4
    assert taken.figures["energy_all"] == pytest.approx(1.25 / 4)
    assert taken.figures["lift_all"] == pytest.approx(5 / 4)


def test_each_thing_by_its_own_map_and_a_thing_out_of_sight_by_none():
    example = make_example(
        PIXELS, marked=(mark(LEFT, 0, name="cat"), mark(CORNER, 1, name="dog"), mark(NOTHING, 1, name="fox"))
    )
    maps = torch.zeros(2, 3, 4, 4)
    maps[0, 0, :, 0] = 1  # all in the cat
    maps[0, 1, 0, 3], maps[0, 1, 3, 3] = 3, 1  # three of four in the dog
    maps[0, 2] = 1
    maps[1, 0, 0, 0] = np.inf
    only_cat = make_example(PIXELS, marked=(mark(LEFT, 0, name="cat"),))
    taken = take(Energy, Given(maps), example, only_cat)
    np.testing.assert_array_equal(taken.columns["energy"], [1, 0.75, np.nan, 0])
    assert taken.figures["energy"] == pytest.approx((0.5 + 0.75) / 2)
    assert taken.figures["energy_all"] == pytest.approx(1.75 / 3)
    assert taken.figures["lift"] == pytest.approx((2 + 0.75 * 16) / 2)
    assert taken.notes == [
        "1 of 4 marked things lie outside of what the network sees: left out.",
        "1 of 4 maps are not finite: they count as maps of zeros.",
    ]


def test_negative_values_have_no_mass():
    map_ = torch.where(torch.from_numpy(LEFT), 1.0, -5.0)
    assert take(Energy, Given(map_), make_example(PIXELS, marked=(mark(LEFT),))).figures["energy"] == 1


def test_by_size_of_the_thing():
    """The corner is 1/16 of the image, the left 1/4, a pixel 1/64: what a flat map has inside."""
    things = [mark(mask) for mask in (CORNER, LEFT, block(slice(1), slice(1)))]
    figures = take(
        Energy, Given(torch.ones(2, 2)), *(make_example(PIXELS, marked=(it,)) for it in things)
    ).figures
    assert figures["energy_to_10_percent"] == pytest.approx((1 / 16 + 1 / 64) / 2)
    assert figures["energy_to_100_percent"] == pytest.approx(1 / 4)
    assert np.isnan(figures["energy_to_0_1_percent"])
    assert np.isnan(figures["energy_to_1_percent"])


def by_quantus(maps, masks):
    """Quantus' relevance mass accuracy of maps (n, 1, H, W) and masks (n, H, W)."""
    accuracy = quantus.RelevanceMassAccuracy(normalise=False, disable_warnings=True)
    images, classes = np.zeros((len(maps), 3, SIDE, SIDE), np.float32), np.zeros(len(maps), np.int64)
    return accuracy(Linear(torch.zeros(2, SIDE, SIDE)), images, classes, maps.numpy(), masks[:, None])


def test_quantus_agrees_where_maps_are_not_negative_and_on_the_grid_of_the_masks():
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(16, 1, SIDE, SIDE, generator=generator)
    masks = (torch.rand(16, SIDE, SIDE, generator=generator) < 0.3).numpy()
    masks[3] = False
    taken = take(Energy, Given(maps), *(make_example(PIXELS, marked=(mark(mask),)) for mask in masks))
    with pytest.warns(UserWarning, match="segmentation"):
        found = by_quantus(maps, masks)
    np.testing.assert_allclose(taken.columns["energy"], found, rtol=1e-5)
    assert np.isnan(found).tolist() == [index == 3 for index in range(16)]


def test_quantus_lets_negative_values_count_and_says_nothing_of_a_map_of_zeros():
    """Of mass 3 in the corner, 1 in the left and -3 elsewhere, it has 3 of 1 in the corner."""
    map_ = torch.zeros(SIDE, SIDE)
    map_[0, 6], map_[0, 0], map_[7, 7] = 3, 1, -3
    maps, masks = torch.stack([map_, torch.zeros_like(map_)])[:, None], np.stack([CORNER, CORNER])
    with pytest.warns(RuntimeWarning, match="invalid value"):
        np.testing.assert_allclose(by_quantus(maps, masks), [3, np.nan])
    taken = take(Energy, Given(maps), *(make_example(PIXELS, marked=(mark(mask),)) for mask in masks))
    assert taken.columns["energy"].tolist() == [0.75, 0]
