"""The pictures of worst cases, pixel by pixel."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from konkyo.evaluation.report import Look
from konkyo.evaluation.report.pictures import LARGEST, SMALLEST, Picture, draw, outline, shown, turns


def pixels_of(picture: Picture) -> np.ndarray:
    data = base64.b64decode(picture.uri.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


GREY = np.full((224, 224, 3), 128, np.uint8)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((32, 32), (160, 160)), ((28, 28), (168, 168)), ((64, 48), (192, 144)), ((224, 224), (224, 224)),
     ((448, 224), (256, 128)), ((1, 2000), (1, 256))],
)  # fmt: skip
def test_inputs_are_shown_at_a_size_that_can_be_read(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert shown(np.zeros((*size, 3), np.uint8)).shape[:2] == expected
    assert SMALLEST <= max(expected) <= LARGEST


def test_a_small_input_is_enlarged_by_whole_pixels_and_kept_exactly() -> None:
    small = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    large = shown(small)
    assert (large[::5, ::5] == small).all()
    assert (large[4::5, 4::5] == small).all()
    picture = draw(Look(small, "a.png", "ship", 0.9))[0]
    assert (picture.width, picture.height) == (160, 160)
    np.testing.assert_array_equal(pixels_of(picture), small)


def test_a_map_is_warm_where_it_is_high_and_signed_where_it_has_both_signs() -> None:
    ramp = np.tile(np.linspace(0, 1, 8, dtype=np.float32), (8, 1))
    jet = pixels_of(draw(Look(GREY, "a", "ship", 0.9, map=ramp))[1])
    left, right = jet[112, 5], jet[112, 218]
    assert left[2] > left[0] + 40  # blue
    assert right[0] > right[2] + 40  # red
    signed = pixels_of(draw(Look(GREY, "a", "ship", 0.9, map=ramp * 2 - 1, signed=True))[1])
    assert signed[112, 5][2] > signed[112, 5][0] + 40  # cool
    assert signed[112, 218][0] > signed[112, 218][2] + 40  # warm
    assert np.abs(signed[112, 112] - 128).max() < 25  # nothing at 0
    counts = pixels_of(draw(Look(GREY, "a", "ship", 0.9, map=ramp * 2 - 1))[1])
    assert (counts[112, 5] == counts[112, 80]).all()  # the negative part does not count
    size = pixels_of(draw(Look(GREY, "a", "ship", 0.9, map=ramp * 2 - 1, importance="absolute"))[1])
    assert size[112, 5][0] > size[112, 5][2] + 40  # as strong as the other side


@pytest.mark.parametrize(
    ("value", "note"),
    [(0.5, "The map is the same everywhere."), (np.nan, "The map has values that are no numbers.")],
)
def test_a_map_that_says_nothing_says_so(value: float, note: str) -> None:
    picture = draw(Look(GREY, "a", "ship", 0.9, map=np.full((7, 7), value, np.float32)))[1]
    assert picture.note == note


def test_a_mask_is_outlined_and_its_inside_left_as_it_is() -> None:
    mask = np.zeros((112, 112), np.bool_)
    mask[20:60, 30:80] = True  # half the size of the picture
    drawn = outline(GREY, mask, None).astype(int)
    changed = (drawn != 128).any(axis=2)
    assert changed[40, 60]
    assert (drawn[40, 60] == 255).all()
    assert not changed[50:110, 70:150].any()
    assert not changed[:35].any()
    box = outline(GREY, np.zeros((112, 112), np.bool_), np.array([[10.0, 10.0, 100.0, 100.0]]))
    assert (box[20, 100] == 255).all()
    assert (box[100, 199] == 255).all()
    assert (box[60, 60] == 128).all()


def test_nothing_marked_is_no_picture() -> None:
    empty = np.zeros((224, 224), np.bool_)
    assert [picture.title for picture in draw(Look(GREY, "a", "ship", 0.9, mask=empty))] == ["image"]
    named = Look(GREY, "a", "ship", 0.9, map=np.eye(7, dtype=np.float32), mask=~empty)
    assert [picture.title for picture in draw(named)] == ["image", "map", "marked"]


def test_every_list_has_its_turn() -> None:
    assert list(turns([2, 0, 3])) == [(0, 0), (2, 0), (0, 1), (2, 1), (2, 2)]
    assert list(turns([])) == []
