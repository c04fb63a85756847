"""Where marked pixels and the boxes of instances land on the network's input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from konkyo.evaluation.marking import boxes, connected, cover, mark, require_aspect
from konkyo.imaging import Decoded, Geometry, ResizeMode, prepare


def geometry(
    width: int, height: int, side: int, mode: ResizeMode = "center_crop", kept: float = 1
) -> Geometry:
    decoded = Decoded(Image.new("RGB", (width, height)), 1, "PNG")
    return prepare(decoded, (side, side), mode=mode, crop_fraction=kept)[1]


def numbers(*rows: str) -> np.ndarray:
    return np.array([[int(cell.replace(".", "0")) for cell in row] for row in rows], np.int32)


def test_a_box_is_around_the_pixels_of_its_instance() -> None:
    instances = numbers(
        "1.......", "1..22...", "...22...", "........", "........", ".......3", "........", "........"
    )
    found = boxes(instances, geometry(8, 8, 8))
    assert found.tolist() == [[0, 0, 1, 2], [3, 1, 5, 3], [7, 5, 8, 6]]


def test_boxes_are_scaled_with_the_input() -> None:
    found = boxes(numbers("....", ".11.", "....", "...."), geometry(4, 4, 16))
    assert found.tolist() == [[4, 4, 12, 8]]


def test_instances_that_share_a_pixel_of_the_input_keep_their_boxes() -> None:
    """64 pixels become 8: both instances lie in pixel (0, 0) of the input."""
    instances = np.zeros((64, 64), np.int32)
    instances[1, 1], instances[4:6, 3] = 1, 2
    thing = mark("speck", (3,), instances, geometry(64, 64, 8))
    assert np.argwhere(thing.mask).tolist() == [[0, 0]]
    assert thing.boxes.tolist() == [[0.125, 0.125, 0.25, 0.25], [0.375, 0.5, 0.5, 0.75]]
    assert (thing.name, thing.classes) == ("speck", (3,))


def test_a_box_ends_where_the_crop_does() -> None:
    """Of 12x4 pixels the middle 4x4 are seen: the first instance is cut, the second is not seen."""
    instances = numbers("............", "..1111......", "..........22", "............")
    thing = mark("bar", (0,), instances, geometry(12, 4, 4))
    assert thing.boxes.tolist() == [[0, 1, 2, 2]]
    assert np.argwhere(thing.mask).tolist() == [[1, 0], [1, 1]]


def test_an_instance_that_a_crop_cuts_in_two_has_one_box() -> None:
    horseshoe = numbers("111111", "1.11.1", "1.11.1", "......", "......", "......")
    thing = mark("shoe", (0,), horseshoe, geometry(6, 6, 4, kept=4 / 6))  # rows and columns 1 to 4
    assert np.argwhere(thing.mask).tolist() == [[0, 1], [0, 2], [1, 1], [1, 2]]
    assert thing.boxes.tolist() == [[1, 0, 3, 2]]


def test_squash_changes_the_sides_of_a_box() -> None:
    found = boxes(numbers("11......", "11......"), geometry(8, 2, 4, "squash"))
    assert found.tolist() == [[0, 0, 1, 4]]


def test_what_lies_outside_of_the_crop_has_an_empty_mask_and_no_box() -> None:
    thing = mark("corner", (1,), numbers("1.......", "........"), geometry(8, 2, 4))
    assert not thing.mask.any()
    assert thing.boxes.shape == (0, 4)


def test_a_crowd_is_inside_and_has_no_box() -> None:
    instances = np.array([[-1, -1, 0, 1], [0, 0, 0, 0]], np.int32)
    thing = mark("bird", (1,), instances, geometry(4, 2, 2, "squash"))
    assert thing.mask.tolist() == [[True, True], [False, False]]
    assert thing.boxes.tolist() == [[1.5, 0, 2, 1]]


def test_pixels_that_meet_in_a_corner_are_connected() -> None:
    found = connected(numbers("1..1", ".1.1", "....") > 0)
    assert found.tolist() == [[1, 0, 0, 2], [0, 1, 0, 2], [0, 0, 0, 0]]


@given(
    width=st.integers(1, 24), height=st.integers(1, 24), side=st.integers(1, 12),
    squash=st.booleans(), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_the_mask_of_one_pixel_is_what_its_box_overlaps(
    width: int, height: int, side: int, squash: bool, seed: int
) -> None:
    """Mask and box come by two ways, and say the same."""
    generator = np.random.default_rng(seed)
    instances = np.zeros((height, width), np.int32)
    instances[generator.integers(height), generator.integers(width)] = 1
    where = geometry(width, height, side, "squash" if squash else "center_crop")
    found, covered = boxes(instances, where), cover(instances > 0, where)
    expected = np.zeros((side, side), bool)
    for left, top, right, bottom in found:
        cells = np.arange(side)
        down = (cells + 1 > top + 1e-6) & (cells < bottom - 1e-6)
        across = (cells + 1 > left + 1e-6) & (cells < right - 1e-6)
        expected |= down[:, None] & across
    assert np.array_equal(covered, expected)


def test_another_aspect_ratio_is_refused() -> None:
    require_aspect((10, 21), (20, 41))
    with pytest.raises(ValueError, match=r"mask of 9x6 pixels has another aspect .* its image of 20x40"):
        require_aspect((9, 6), (20, 40))
