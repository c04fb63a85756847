"""The pointing game: distances by hand, ties, what can be no hit, and Quantus beside it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import quantus
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from toys import SIDE, Given, Linear, make_candidate, make_example, mark, take

from konkyo.evaluation.examples import Example
from konkyo.evaluation.measures.pointing import Pointing, highest_points, pointing_distances, pointing_hits
from konkyo.evaluation.things import pixel_sides
from konkyo.imaging import Geometry


def peak(row, column, side=40):
    """A map (1, side, side) that is highest in one pixel."""
    map_ = torch.zeros(1, side, side)
    map_[0, row, column] = 1
    return map_


def region(*pixels, side=40):
    mask = torch.zeros(1, side, side, dtype=torch.bool)
    for row, column in pixels:
        mask[0, row, column] = True
    return mask


def by_quantus(maps, masks):
    """Quantus' pointing game of maps (n, H, W) and masks (n, H, W): 1 or 0 of each."""
    game = quantus.PointingGame(normalise=False, disable_warnings=True)
    images, classes = np.zeros((len(maps), 3, *maps.shape[1:]), np.float32), np.zeros(len(maps), np.int64)
    found = game(
        Linear(torch.zeros(2, *maps.shape[1:])),
        images,
        classes,
        maps.numpy()[:, None],
        masks.numpy()[:, None],
    )
    return [float(hit) for hit in found]


@pytest.mark.parametrize(
    ("row", "column", "distance"),
    [
        (20, 20, 0),
        (20, 35, 15),
        (20, 36, 16),
        (5, 20, 15),
        (4, 20, 16),
        (29, 32, 15),
        (11, 8, 15),
        (31, 31, 242**0.5),
    ],
)
def test_the_distance_is_between_centres_of_pixels_and_15_px_are_still_a_hit(row, column, distance):
    maps, mask = peak(row, column), region((20, 20))
    assert pointing_distances(maps, mask).tolist() == [distance]
    assert pointing_hits(maps, mask).tolist() == [float(distance <= 15)]
    assert pointing_hits(maps, mask, tolerance=0).tolist() == [float(distance == 0)]


def test_the_nearest_pixel_of_a_region_counts():
    mask = region((0, 0), (3, 30), (39, 39))
    assert pointing_distances(peak(7, 27), mask).tolist() == [5]
    assert pointing_distances(peak(7, 27), mask, torch.tensor([[3, 4]])).tolist() == [(12**2 + 12**2) ** 0.5]


@pytest.mark.parametrize(
    ("rows", "columns", "hit"), [(7, 0, 1), (8, 0, 0), (0, 15, 1), (0, 16, 0), (4, 12, 1), (5, 12, 0)]
)
def test_the_tolerance_is_in_pixels_of_the_original(rows, columns, hit):
    """A crop of 480 rows and 224 columns, squashed to 224 x 224: seven rows are 15 px."""
    mask = region((100, 20), side=224)[0].numpy()
    geometry = Geometry((900, 600), 1, (300, 60, 524, 540), (224, 224))
    example = Example("image", np.zeros((224, 224, 3), np.uint8), geometry, marked=(mark(mask),))
    maps = Given(peak(100 + rows, 20 + columns, side=224)[0])
    candidate = make_candidate(Linear(torch.zeros(2, 224, 224)), side=224)
    assert take(Pointing, maps, example, candidate=candidate).columns["hit"].tolist() == [hit]


def test_the_sides_of_a_pixel_of_the_input():
    """A crop of 480 rows and 224 columns at a height of 240 and a width of 112."""
    geometry = Geometry((900, 600), 1, (300, 60, 524, 540), (112, 240))
    example = Example("image", np.zeros((240, 112, 3), np.uint8), geometry)
    assert pixel_sides([example]).tolist() == [[2, 2]]
    wide = Example("image", np.zeros((120, 224, 3), np.uint8), replace(geometry, input=(224, 120)))
    assert pixel_sides([wide]).tolist() == [[4, 1]]


@given(seed=st.integers(0, 2**32 - 1))
def test_a_map_that_is_its_mask_hits_and_its_inverse_misses(seed):
    mask = torch.from_numpy(np.random.default_rng(seed).random((1, 6, 5)) < 0.3)
    assume(mask.any())
    assert pointing_hits(mask.float(), mask, tolerance=0).tolist() == [1]
    assert pointing_hits(1 - mask.float(), mask, tolerance=0).tolist() == [0]


@pytest.mark.parametrize("turn", [lambda map_: map_.flip(1), lambda map_: map_.flip(2), lambda map_: map_.mT])
def test_a_mirrored_or_transposed_map_misses(turn):
    mask = torch.zeros(1, 12, 12, dtype=torch.bool)
    mask[0, :3, 6:9] = True
    maps = torch.zeros(1, 4, 4)
    maps[0, 0, 2] = 1  # the cell of the mask
    assert pointing_hits(maps, mask, tolerance=0).tolist() == [1]
    assert pointing_hits(turn(maps), mask, tolerance=0).tolist() == [0]
    assert pointing_hits(turn(maps), turn(mask), tolerance=0).tolist() == [1]


@pytest.mark.parametrize("value", [1.0, 0.1, 1 / 3, 7e-5, 1234.567])
def test_where_an_enlarged_map_is_highest(value):
    middle = torch.zeros(1, 3, 3)
    middle[0, 1, 1] = value
    assert highest_points(middle, (9, 9)).tolist() == [[4, 4]]  # the centre of the cell is a pixel
    assert highest_points(middle, (6, 6)).tolist() == [[2, 2]]  # or between four: the first
    corner = torch.zeros(1, 7, 7)
    corner[0, 6, 0] = value
    # Beyond the centre of the cell at an edge nothing changes: rows 208 to 223, columns 0 to 15 are equal.
    assert highest_points(corner, (224, 224)).tolist() == [[215, 7]]
    assert highest_points(corner - value, (224, 224)).tolist() == [[215, 7]]


def test_of_two_places_of_one_height_one_is_the_point_and_not_the_middle():
    maps = peak(20, 5) + peak(20, 35)
    assert highest_points(maps, (40, 40)).tolist() == [[20, 5]]
    assert pointing_hits(maps, region((20, 20)), tolerance=14).tolist() == [0]


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 1e6])
@pytest.mark.parametrize("side", [7, 40])
def test_a_flat_map_misses_even_where_everything_is_marked(value, side):
    everything = torch.ones(1, 40, 40, dtype=torch.bool)
    flat = torch.full((1, side, side), value) * (1 + 1e-7 * torch.rand(1, side, side))
    assert pointing_hits(flat, everything).tolist() == [0]
    assert pointing_distances(flat, everything).tolist() == [np.inf]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_map_that_is_not_finite_misses(value):
    maps = peak(20, 20)
    maps[0, 3, 3] = value
    assert pointing_hits(maps, region((20, 20), (3, 3))).tolist() == [0]


def test_an_empty_mask_is_neither_hit_nor_missed():
    maps = torch.cat([peak(20, 20), torch.zeros(1, 40, 40)])
    assert pointing_hits(maps, torch.zeros(2, 40, 40, dtype=torch.bool)).isnan().all()
    assert pointing_hits(maps[:0], torch.zeros(0, 40, 40, dtype=torch.bool)).tolist() == []


def test_as_many_maps_as_masks():
    with pytest.raises(ValueError, match="2 maps, 1 masks"):
        pointing_hits(peak(1, 1).expand(2, -1, -1), region((1, 1)))


def test_quantus_agrees_where_a_map_has_one_highest_pixel_and_something_is_marked():
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(64, 16, 16, generator=generator)
    masks = torch.rand(64, 16, 16, generator=generator) < 0.4
    ours = pointing_hits(maps, masks, tolerance=0).tolist()
    assert ours == by_quantus(maps, masks)
    assert 10 < sum(ours) < 54


def test_quantus_counts_empty_masks_and_flat_maps_as_hits():
    """Its NaN of an empty mask is written into an array of bools, where it is True; and of a flat map, whose
    pixels are all highest, one that lies inside is enough."""
    maps = torch.cat([peak(20, 20), torch.ones(1, 40, 40), peak(20, 20)])
    masks = torch.cat([torch.zeros(1, 40, 40, dtype=torch.bool), region((7, 3)), region((7, 3))])
    assert by_quantus(maps, masks) == [1, 1, 0]
    np.testing.assert_array_equal(pointing_hits(maps, masks, tolerance=0), [np.nan, 0, 0])


def test_each_thing_by_its_own_map_and_the_mean_of_the_classes():
    """Two things in the first image, of which the second is in the corner; one in the second, none in the
    third; one out of sight in the fourth."""
    left, right, nothing = (np.zeros((SIDE, SIDE), np.bool_) for _ in range(3))
    left[:, :2] = right[:, 6:] = True
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    examples = [
        make_example(pixels, marked=(mark(left, 0, name="cat"), mark(right, 1, name="dog"))),
        make_example(pixels, marked=(mark(left, 0, name="cat"),)),
        make_example(pixels, marked=()),
        make_example(pixels),
        make_example(pixels, marked=(mark(nothing, 1, name="dog"),)),
        make_example(pixels, marked=(mark(left, 0, name="cat"),)),
    ]
    maps = torch.zeros(6, 2, SIDE, SIDE)
    maps[0, 0, 4, 1] = 1  # in the cat
    maps[0, 1, 4, 6] = 1  # in the dog
    maps[1, 0, 4, 3] = 1  # two columns beside the cat
    maps[4] = maps[0]
    maps[5, 0, 4, 0] = np.nan
    taken = take(Pointing, Given(maps), *examples, tolerance=1)
    assert [(record.position, record.about) for record in taken.records] == [
        (0, "cat"), (0, "dog"), (1, "cat"), (4, "dog"), (5, "cat"),
    ]  # fmt: skip
    np.testing.assert_array_equal(taken.columns["hit"], [1, 1, 0, np.nan, 0])
    np.testing.assert_array_equal(taken.columns["distance"], [0, 0, 2, np.nan, np.nan])
    assert taken.figures["accuracy"] == pytest.approx((1 / 3 + 1) / 2)
    assert taken.figures["accuracy_all"] == pytest.approx(2 / 4)
    assert taken.figures["distance"] == pytest.approx(2 / 3)
    assert taken.notes == [
        "1 of 5 marked things lie outside of what the network sees: left out.",
        "1 of 5 maps are not finite: they count as maps of zeros.",
    ]
    wider = take(Pointing, Given(maps), *examples, tolerance=2)
    assert wider.figures["accuracy_all"] == pytest.approx(3 / 4)
    assert wider.figures["inside_all"] == pytest.approx(2 / 4)
    assert wider.figures["inside"] == taken.figures["inside"] == pytest.approx((1 / 3 + 1) / 2)


def test_a_map_that_speaks_against_its_class_points_nowhere_unless_its_size_counts():
    mask = np.zeros((SIDE, SIDE), np.bool_)
    mask[2, 2] = True
    against = torch.full((SIDE, SIDE), -1.0)
    against[2, 2] = -2
    example = make_example(np.zeros((SIDE, SIDE, 3), np.uint8), marked=(mark(mask),))
    maps = Given(against)
    assert take(Pointing, maps, example, tolerance=0).figures["accuracy"] == 0
    maps.importance = "absolute"
    assert take(Pointing, maps, example, tolerance=0).figures["accuracy"] == 1


def test_where_nothing_is_marked_there_are_no_records():
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    assert (
        take(Pointing, Given(torch.ones(1, 1)), make_example(pixels), make_example(pixels, marked=())).records
        == ()
    )
