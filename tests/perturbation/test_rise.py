from __future__ import annotations

import numpy as np
import pytest

from konkyo.imaging import UInt8
from konkyo.perturbation import explain
from konkyo.perturbation.base import Floats
from konkyo.perturbation.rise import Rise, RiseParameters

WHITE = np.full((12, 12, 3), 255, np.uint8)


def sees(row: int, column: int) -> Floats:
    """A classifier whose probability of class 0 is the brightness of one pixel."""

    def predict(images: UInt8) -> Floats:
        seen = images[:, row, column, 0].astype(np.float64) / 255
        return np.log(np.stack([seen, 1 - seen], axis=1).clip(1e-300))

    return predict


def begun(image: UInt8, **parameters: object) -> Rise:
    return Rise(image, [0], RiseParameters(**parameters))


def test_one_mask_by_hand() -> None:
    """N = 1 and a score of 0.75 make S = 0.75 M / p."""
    rise = begun(WHITE, masks=1, cells=3, probability=0.4)
    rise.feed(np.log([[0.5, 0.5], [0.75, 0.25]]))
    assert np.allclose(rise.maps[0], 0.75 * rise.mask(0) / 0.4, atol=1e-6)
    assert np.ptp(rise.maps[0]) > 0


def test_a_mask_shows_the_image_and_hides_it_behind_the_fill() -> None:
    image = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    rise = begun(image, masks=3, fill="grey")
    mask = rise.mask(2).astype(np.float64)[..., None]
    assert np.abs(rise.take(4)[3] - (mask * image + (1 - mask) * 128)).max() <= 0.5 + 1e-4


@pytest.mark.parametrize(("height", "width", "cells"), [(12, 12, 3), (32, 20, 7), (5, 9, 8), (14, 14, 1)])
def test_masks_are_crops_of_a_bilinear_enlargement(height: int, width: int, cells: int) -> None:
    """Against torch's, of the same grid; the crop is found among all there are."""
    torch = pytest.importorskip("torch")
    rise = begun(np.zeros((height, width, 3), np.uint8), cells=cells, seed=5)
    down, across = -(-height // cells), -(-width // cells)
    for number in range(8):
        grid = np.random.default_rng((5, number)).random((cells, cells)) < 0.5
        enlarged = torch.nn.functional.interpolate(
            torch.from_numpy(grid.astype(np.float64))[None, None],
            size=((cells + 1) * down, (cells + 1) * across), mode="bilinear",
        )[0, 0].numpy()  # fmt: skip
        crops = np.lib.stride_tricks.sliding_window_view(enlarged, (height, width))
        crops = crops[: down + 1, : across + 1]
        assert np.abs(crops - rise.mask(number)).max(axis=(2, 3)).min() < 1e-5


def test_every_shift_of_up_to_a_cell_comes_up() -> None:
    rise = begun(np.zeros((4, 4, 3), np.uint8), cells=2, masks=200)
    edges = {tuple(np.rint(rise.mask(number)[0] * 3).astype(int)) for number in range(200)}
    # (1, 0) enlarged from 2 cells to 3 of 2 pixels is 3, 3, 2, 1, 0, 0 thirds
    assert {(3, 3, 2, 1), (3, 2, 1, 0), (2, 1, 0, 0)} <= edges


def test_it_converges_to_its_expectation() -> None:
    """E[M(u) M(v)] / p at each v, for a classifier that sees u alone, from the weights of the cells.

    A term lies in [0, 1 / p]: by Hoeffding's inequality a pixel is further off than the bound once in
    10^9; the 8 bits of the images add half a step.
    """
    cells, p, masks, u = 3, 0.5, 4000, (6, 5)
    [map_] = explain(sees(*u), WHITE, [0], method="rise", masks=masks, cells=cells, probability=p)

    expected = np.zeros((12, 12))
    basis = _basis(cells, (cells + 1) * 4)  # (16, cells) of an axis
    for top in range(5):
        for left in range(5):
            down, across = basis[top : top + 12], basis[left : left + 12]
            # sum over the cells of w(u) w(v), by axis
            shared = np.outer(down @ down[u[0]], across @ across[u[1]])
            expected += (p * p + p * (1 - p) * shared) / p / 25
    bound = np.sqrt(np.log(2e9) / (2 * masks)) / p + 1 / 255
    assert np.abs(map_ - expected).max() < bound
    assert expected[6, 5] - expected[0, 11] > 2 * bound  # so the bound can tell them apart
    assert np.unravel_index(map_.argmax(), map_.shape) == u


def _basis(cells: int, size: int) -> Floats:
    """Weight of each cell in each of ``size`` pixels, bilinear: (size, cells)."""
    places = ((np.arange(size) + 0.5) * cells / size - 0.5).clip(0, cells - 1)
    return np.maximum(1 - np.abs(places[:, None] - np.arange(cells)), 0)


def test_a_map_on_the_way_is_that_of_fewer_masks() -> None:
    rise = begun(WHITE, masks=50, cells=4)
    rise.feed(sees(3, 3)(rise.take(21)))
    [fewer] = explain(sees(3, 3), WHITE, [0], method="rise", masks=20, cells=4)
    assert np.array_equal(rise.maps[0], fewer)


def test_the_seed_makes_the_masks() -> None:
    first, same, other = (begun(WHITE, cells=4, seed=seed).mask(3) for seed in (7, 7, 8))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


def test_masks_lie_between_0_and_1_with_the_mean_that_was_asked_for() -> None:
    rise = begun(np.zeros((20, 30, 3), np.uint8), cells=5, probability=0.2)
    masks = np.stack([rise.mask(number) for number in range(1000)])
    assert masks.min() >= 0
    assert masks.max() <= 1
    assert abs(masks.mean() - 0.2) < 0.02
