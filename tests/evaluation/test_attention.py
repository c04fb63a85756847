from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from konkyo.evaluation.attention import (
    SIZE_EDGES,
    defect_share,
    energy_inside,
    lift,
    map_error,
    mean_by_size,
)

MEASURES = [energy_inside, lift, map_error]
ONE = np.array([True])

# A defect of 2 x 2 in 4 x 4 pixels; on the grid of 2 x 2 it is the upper left cell.
MASK = np.zeros((1, 4, 4), dtype=np.uint8)
MASK[0, :2, :2] = 1


def test_the_share_of_the_mass_inside_by_hand() -> None:
    maps = np.array([[[0.6, 0.2], [0.4, 0.0]]])
    assert defect_share(MASK, ONE).tolist() == [0.25]
    assert energy_inside(maps, MASK, ONE) == pytest.approx([0.5])
    assert lift(maps, MASK, ONE) == pytest.approx([2])


def test_the_error_of_the_map_by_hand() -> None:
    maps = np.array([[[0.6, 0.2], [0.4, 0.0]]])
    assert map_error(maps, MASK, ONE) == pytest.approx([(0.16 + 0.04 + 0.16 + 0) / 4])
    assert map_error(MASK.astype(np.float32), MASK, ONE).tolist() == [0]


def test_the_mask_fills_cells_by_area_also_where_the_grids_do_not_divide() -> None:
    # The first of three columns is 2/3 of the first of two cells.
    mask = np.array([[[1, 0, 0]]], dtype=np.uint8)
    maps = np.array([[[0.5, 0.5]]], dtype=np.float32)
    assert energy_inside(maps, mask, ONE) == pytest.approx([1 / 3])
    assert lift(maps, mask, ONE) == pytest.approx([1])


def test_the_error_is_against_the_cells_the_defect_touches() -> None:
    mask = np.array([[[0, 1, 0, 0, 0, 0]]], dtype=np.uint8)
    maps = np.array([[[0.5, 0.0]]], dtype=np.float32)
    assert map_error(maps, mask, ONE) == pytest.approx([0.25 / 2])
    wide = np.array([[[0, 0, 1, 1, 0, 0]]], dtype=np.uint8)
    assert map_error(maps, wide, ONE) == pytest.approx([(0.25 + 1) / 2])


def test_a_map_all_on_a_defect_smaller_than_its_cell_has_the_lift_of_the_cell() -> None:
    mask = np.zeros((1, 8, 8), dtype=np.uint8)
    mask[0, 0, 0] = 1
    maps = np.array([[[1.0, 0.0], [0.0, 0.0]]])
    assert energy_inside(maps, mask, ONE) == pytest.approx([1 / 16])
    assert lift(maps, mask, ONE) == pytest.approx([4])


@given(seed=st.integers(0, 2**32 - 1), level=st.floats(0.01, 1))
def test_a_flat_map_is_chance_on_any_mask(seed: int, level: float) -> None:
    masks = np.random.default_rng(seed).integers(0, 2, (3, 7, 5), dtype=np.uint8)
    masks[:, 3, 3] = 1
    maps = np.full((3, 4, 3), level)
    known = np.array([True, True, True])
    assert lift(maps, masks, known) == pytest.approx(np.ones(3), rel=1e-5)
    assert energy_inside(maps, masks, known) == pytest.approx(defect_share(masks, known), rel=1e-5)


@pytest.mark.parametrize("measure", MEASURES)
def test_images_of_unknown_mask_and_without_a_defect_are_not_measured(measure) -> None:
    masks = np.stack(
        [np.full((4, 4), 255, dtype=np.uint8), np.zeros((4, 4), dtype=np.uint8), MASK[0], MASK[0]]
    )
    known = np.array([False, True, True, False])
    found = measure(np.full((4, 2, 2), 0.5), masks, known)
    assert np.isnan(found).tolist() == [True, True, False, True]
    assert np.isnan(defect_share(masks, known)).tolist() == [True, True, False, True]


def test_only_what_is_positive_has_mass_and_without_mass_none_is_inside() -> None:
    maps = np.array([[[1.0, -9.0], [1.0, 0.0]], [[-1.0, 0.0], [0.0, 0.0]]])
    masks, known = np.repeat(MASK, 2, axis=0), np.array([True, True])
    assert energy_inside(maps, masks, known) == pytest.approx([0.5, 0])
    assert lift(maps, masks, known) == pytest.approx([2, 0])


def test_means_by_the_size_of_the_defect() -> None:
    shares = np.array([0.0005, 0.001, 0.005, 0.3, 1.0, np.nan])
    values = np.array([1.0, 0.5, 0.25, 0.0, 1.0, np.nan])
    bins = mean_by_size(values, shares)
    assert [(low, high) for low, high, *_ in bins] == list(itertools.pairwise(SIZE_EDGES))
    assert [(found.images, found.mean) for found in (bins[0], bins[1], bins[3])] == [
        (2, 0.75),
        (1, 0.25),
        (2, 0.5),
    ]
    assert bins[2].images == 0
    assert math.isnan(bins[2].mean)
    assert mean_by_size(values, shares, (0, 1)) == ((0, 1, 5, 0.55),)


@pytest.mark.parametrize("measure", MEASURES)
def test_arrays_that_do_not_fit_and_maps_that_are_not_finite_are_refused(measure) -> None:
    maps = np.zeros((1, 2, 2))
    with pytest.raises(ValueError, match="1 maps, 2 masks, 1 entries"):
        measure(maps, np.repeat(MASK, 2, axis=0), ONE)
    with pytest.raises(ValueError, match="1 maps, 1 masks, 2 entries"):
        measure(maps, MASK, np.array([True, True]))
    maps[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        measure(maps, MASK, ONE)
