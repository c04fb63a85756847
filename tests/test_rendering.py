"""Maps for the eye, against values worked out by hand."""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import numpy as np
import pytest
from PIL import Image

from konkyo import rendering
from konkyo.errors import InvalidParameter
from konkyo.imaging import Decoded, Geometry, prepare
from konkyo.models.card import MapKind
from konkyo.rendering import Frame
from konkyo.service.answers import Prepared, Shown
from konkyo.service.methods import Method
from konkyo.service.schemas import ExplainOptions

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def delta(height: int, width: int, row: int, column: int, value: float = 1.0) -> rendering.Float32:
    map_ = np.zeros((height, width), np.float32)
    map_[row, column] = value
    return map_


def grey(height: int, width: int, value: int = 128) -> rendering.UInt8:
    return np.full((height, width, 3), value, np.uint8)


def whole(width: int, height: int) -> Frame:
    return Frame((width, height), (0, 0, width, height))


# What a map says of itself


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ([[0.0, 1.0]], "ok"),
        ([[-5.0, 0.001]], "ok"),
        ([[0.0, 0.0]], "flat"),
        ([[3.0, 3.0]], "flat"),
        ([[-3.0, -3.0]], "flat"),
        ([[1e6, 1e6 + 0.5]], "flat"),  # a difference in the seventh digit is noise
        ([[-2.0, -1.0]], "all_negative"),
        ([[-2.0, 0.0]], "all_negative"),
        ([[np.nan, 1.0]], "non_finite"),
        ([[-np.inf, 1.0]], "non_finite"),
    ],
)
def test_status(values: list[list[float]], status: str) -> None:
    assert rendering.status(np.array(values, np.float32)) == status


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[1.0, 1.0], [1.0, 1.0]], 1.0),
        ([[-2.0, 2.0], [2.0, -2.0]], 1.0),  # strength counts, not sign
        ([[0.0, 7.0], [0.0, 0.0]], 0.0),
        ([[1.0, 1.0], [0.0, 0.0]], 0.5),  # log 2 / log 4
        ([[0.0, 0.0]], 1.0),
        ([[np.nan, 1.0]], 1.0),
    ],
)
def test_entropy(values: list[list[float]], expected: float) -> None:
    assert rendering.entropy(np.array(values, np.float32)) == pytest.approx(expected)


def test_contribution_is_the_map_times_the_grey_image() -> None:
    map_ = np.array([[2.0, -4.0]], np.float32)
    image = np.array([[[255, 255, 255], [51, 0, 0]]], np.uint8)  # grey 1 and 51 / 3 / 255 = 1 / 15
    np.testing.assert_allclose(rendering.contribution(map_, image), [[2.0, -4 / 15]], rtol=1e-6)


# Regions

TWO_BLOBS = np.array(
    [
        [0, 0, 0, 0, 0, 0],
        [4, 2, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 3],
        [0, -9, 0, 0, 3, 3],
        [0, 0, 0, 0, 0, 1],
    ],
    np.float32,
)


def test_regions_of_two_blobs() -> None:
    """Positive values sum to 16; from half of the maximum up, 6 on the left and 9 on the right."""
    first, second = rendering.regions(TWO_BLOBS, 0.5, (10, 0, 100, 0, 20, 200))
    assert first == {
        "box": [140, 240, 160, 280],  # columns 4 and 5, rows 2 and 3
        "peak": [155, 250],  # the middle of the first largest cell: column 5, row 2
        "area": pytest.approx(3 / 30),
        "mass": pytest.approx(9 / 16),
    }
    assert second == {
        "box": [100, 220, 120, 240],
        "peak": [105, 230],
        "area": pytest.approx(2 / 30),
        "mass": pytest.approx(6 / 16),
    }


def test_the_threshold_itself_belongs_to_the_region() -> None:
    map_ = np.array([[4, 2, 1]], np.float32)
    assert rendering.regions(map_, 0.5, IDENTITY)[0]["box"] == [0, 0, 2, 1]
    assert rendering.regions(map_, 0.5001, IDENTITY)[0]["box"] == [0, 0, 1, 1]
    assert rendering.regions(map_, 0.25, IDENTITY)[0]["box"] == [0, 0, 3, 1]


def test_cells_that_touch_at_a_corner_are_one_region() -> None:
    found = rendering.regions(np.eye(3, dtype=np.float32), 0.15, IDENTITY)
    assert [region["box"] for region in found] == [[0, 0, 3, 3]]
    assert found[0]["area"] == pytest.approx(3 / 9)


def test_a_peak_is_of_its_own_region() -> None:
    """The strong cell lies inside the box of the ring around it, and is not the ring's peak."""
    ring = np.ones((5, 5), np.float32)
    ring[1:4, 1:4] = 0
    ring[2, 2], ring[4, 0] = 5, 2
    found = {tuple(region["box"]): region["peak"] for region in rendering.regions(ring, 0.1, IDENTITY)}
    assert found == {(0, 0, 5, 5): [0.5, 4.5], (2, 2, 3, 3): [2.5, 2.5]}


def test_only_so_many_regions_the_heaviest_first() -> None:
    map_ = np.zeros((1, 40), np.float32)
    map_[0, ::2] = np.arange(20) + 10
    found = rendering.regions(map_, 0.15, IDENTITY)
    assert [region["peak"][0] for region in found] == [
        38.5 - 2 * rank for rank in range(rendering.MAX_REGIONS)
    ]


@pytest.mark.parametrize("values", [[[-1.0, -2.0]], [[0.0, 0.0]], [[np.nan, 1.0]], [[np.inf, 1.0]]])
def test_no_region_where_nothing_speaks_for_the_class(values: list[list[float]]) -> None:
    assert rendering.regions(np.array(values, np.float32), 0.15, IDENTITY) == []


# Alignment

SHAPES = [(96, 48), (48, 96), (101, 53), (640, 480), (32, 32), (20, 31)]


@pytest.mark.parametrize("mode", ["center_crop", "squash"])
@pytest.mark.parametrize("crop_fraction", [1.0, 0.7])
@pytest.mark.parametrize("size", SHAPES)
def test_a_cell_is_drawn_where_it_lies_in_the_original(
    size: tuple[int, int], crop_fraction: float, mode: Any
) -> None:
    decoded = Decoded(Image.new("RGB", size), 1, "PNG")
    _, geometry = prepare(decoded, (32, 32), mode=mode, crop_fraction=crop_fraction)
    frame = rendering.original_frame(geometry, max_pixels=10**6)
    a, _, c, _, e, f = geometry.to_original((8, 8))
    for row, column in [(0, 0), (3, 5), (7, 7), (6, 1)]:
        spread = frame.spread(delta(8, 8, row, column))
        assert spread.shape == size[::-1]
        y, x = np.unravel_index(spread.argmax(), spread.shape)
        assert abs(x + 0.5 - (a * (column + 0.5) + c)) <= a
        assert abs(y + 0.5 - (e * (row + 0.5) + f)) <= e


def test_outside_the_window_there_is_nothing() -> None:
    _, geometry = prepare(Decoded(Image.new("RGB", (96, 48)), 1, "PNG"), (32, 32))
    spread = rendering.original_frame(geometry, max_pixels=10**6).spread(np.ones((4, 4), np.float32))
    expected = np.zeros((48, 96))
    expected[:, 24:72] = 1
    np.testing.assert_array_equal(spread, expected)


@pytest.mark.parametrize("size", [(1, 9), (3, 1), (2, 1000), (5000, 3)])
@pytest.mark.parametrize("crop_fraction", [1.0, 0.1])
def test_slivers_can_be_drawn(size: tuple[int, int], crop_fraction: float) -> None:
    _, geometry = prepare(Decoded(Image.new("RGB", size), 1, "PNG"), (32, 32), crop_fraction=crop_fraction)
    spread = rendering.original_frame(geometry, max_pixels=1024).spread(np.ones((4, 4), np.float32))
    assert spread.max() == 1


def test_a_large_original_is_reduced_and_its_window_with_it() -> None:
    geometry = Geometry((4000, 2000), 1, (1000, 0, 3000, 2000), (32, 32))
    frame = rendering.original_frame(geometry, max_pixels=80_000)
    assert frame.size == (400, 200)
    assert frame.window == pytest.approx((100, 0, 300, 200))
    assert frame.fit(grey(2000, 4000)).shape == (200, 400, 3)


def test_the_input_frame_is_the_whole_input() -> None:
    frame = rendering.input_frame(Geometry((400, 200), 6, (100, 0, 300, 200), (32, 24)))
    assert frame == Frame((32, 24), (0, 0, 32, 24))


# Pictures


def test_a_spotlight_is_the_product() -> None:
    """Lit where the image speaks for the class, black where the map is 0 or less."""
    map_ = np.array([[1.0, 0.5, 0.0, -1.0]], np.float32)
    image = np.array([[[100, 200, 0], [100, 200, 0], [255] * 3, [255, 0, 0]]], np.uint8)
    drawn = rendering.spotlight(map_, image, whole(4, 1), "positive")[0].tolist()
    # The strongest product is -255, so the scale is 1 but for what may saturate.
    assert drawn[0] == pytest.approx([100, 200, 0], abs=2)
    assert drawn[1] == pytest.approx([50, 100, 0], abs=2)
    assert drawn[2:] == [[0, 0, 0], [0, 0, 0]]


def test_for_and_against_are_each_others_negation() -> None:
    generator = np.random.default_rng(0)
    map_ = generator.normal(size=(8, 8)).astype(np.float32)
    image = generator.integers(0, 256, (16, 16, 3), np.uint8)
    frame = whole(16, 16)
    positive = rendering.spotlight(map_, image, frame, "positive")
    negative = rendering.spotlight(map_, image, frame, "negative")
    np.testing.assert_array_equal(negative, rendering.spotlight(-map_, image, frame, "positive"))
    assert not (positive.any(axis=2) & negative.any(axis=2)).any()  # no pixel speaks for and against
    both = rendering.spotlight(map_, image, frame, "both")  # for above against, on one scale
    np.testing.assert_array_equal(both, np.concatenate([positive, negative]))


def test_a_blend_of_no_opacity_is_the_image() -> None:
    image = np.random.default_rng(1).integers(0, 256, (12, 9, 3), np.uint8)
    map_ = np.random.default_rng(2).normal(size=(3, 3)).astype(np.float32)
    for colormap in ("signed", "turbo", "viridis"):
        drawn = rendering.blend(map_, image, whole(9, 12), "both", colormap, 0.0)
        np.testing.assert_array_equal(drawn, image)


def test_signed_colours() -> None:
    """Warm for, cool against, the image itself at 0."""
    map_ = np.array([[2.0, 0.0, -2.0, 1.0]], np.float32)
    drawn = rendering.blend(map_, grey(1, 4, 100), whole(4, 1), "both", "signed", 1.0)[0]
    assert drawn[0].tolist() == [230, 97, 1]
    assert drawn[1].tolist() == [100, 100, 100]
    assert drawn[2].tolist() == [64, 105, 225]
    assert drawn[3].tolist() == pytest.approx([165, 98, 50], abs=1)  # half way
    against = rendering.blend(map_, grey(1, 4, 100), whole(4, 1), "negative", "signed", 1.0)[0]
    assert against.tolist() == [[100] * 3, [100] * 3, [64, 105, 225], [100] * 3]


def test_a_colormap_runs_from_its_first_to_its_last_colour() -> None:
    """viridis: dark violet (68, 1, 84) to yellow (253, 231, 37)."""
    map_ = np.array([[0.0, 1.0]], np.float32)
    drawn = rendering.blend(map_, grey(1, 2), whole(2, 1), "positive", "viridis", 1.0)[0]
    assert drawn[0].tolist() == pytest.approx([68, 1, 84], abs=2)
    assert drawn[1].tolist() == pytest.approx([253, 231, 37], abs=2)


def test_a_contour_draws_the_boundary_and_nothing_else() -> None:
    map_ = np.zeros((40, 40), np.float32)
    map_[10:30, 10:30] = 1
    image = grey(40, 40)
    drawn = rendering.contour(map_, image, whole(40, 40), "positive", 0.5)
    changed = (drawn != image).any(axis=2)
    assert drawn[changed].tolist() == [[230, 97, 1]] * int(changed.sum())
    expected = np.zeros((40, 40), bool)
    expected[10:30, 10:30] = True
    expected[11:29, 11:29] = False
    np.testing.assert_array_equal(changed, expected)
    assert (image == 128).all()  # drawn on a copy


def test_a_contour_of_the_other_side_is_cool() -> None:
    map_ = delta(5, 5, 2, 2, -1)
    assert (rendering.contour(map_, grey(5, 5), whole(5, 5), "positive", 0.5) == 128).all()
    assert rendering.contour(map_, grey(5, 5), whole(5, 5), "both", 0.5)[2, 2].tolist() == [64, 105, 225]


def test_a_range_scales_and_clips() -> None:
    found = rendering.normalised(np.array([[0.0, 0.2, 0.3], [0.5, 0.6, 1.0]], np.float32), (0.2, 0.6))
    np.testing.assert_allclose(found, [[0, 0, 0.25], [0.75, 1, 1]], atol=1e-6)
    assert found.dtype == np.float32
    assert rendering.normalised(np.full((1, 1), 0.5, np.float32), (0.5, 0.5)).tolist() == [[0]]


@pytest.mark.parametrize("value", [0.25, 0.5, 1.0])
def test_a_given_strength_makes_pictures_compare(value: float) -> None:
    """What else is in the map does not change how a cell is drawn."""
    image, frame = grey(1, 1, 100), whole(1, 1)
    map_ = np.full((1, 1), value, np.float32)
    assert rendering.spotlight(map_, image, frame, "positive", 1.0).tolist() == [[[int(100 * value)] * 3]]
    warm = 100 + (np.array([230, 97, 1]) - 100) * value
    found = rendering.blend(map_, image, frame, "positive", "signed", 1.0, 1.0)
    assert np.abs(found[0, 0] - warm).max() <= 1
    outlined = rendering.contour(map_, image, frame, "positive", 0.5, 1.0)
    assert (outlined != image).any() == (value >= 0.5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_can_be_drawn(bad: float) -> None:
    map_ = np.array([[bad, 0.0], [1.0, bad]], np.float32)
    frame = whole(2, 2)
    rendering.spotlight(map_, grey(2, 2), frame, "both")
    rendering.blend(map_, grey(2, 2), frame, "both", "jet", 0.5)
    rendering.contour(map_, grey(2, 2), frame, "both", 0.5)
    body = rendering.encode_png_map(map_, frame)
    assert (body["min"], body["max"]) == (0, 1)


# Encodings


def test_a_png_map_gives_its_values_back() -> None:
    map_ = np.random.default_rng(3).normal(size=(6, 5)).astype(np.float32)
    body = rendering.encode_png_map(map_, whole(5, 6))
    with Image.open(io.BytesIO(base64.b64decode(body["data"]))) as picture:
        assert picture.mode == "L"
        level = np.asarray(picture, np.float64)
    found = body["min"] + level / 255 * (body["max"] - body["min"])
    half_a_step = (body["max"] - body["min"]) / 255 / 2
    assert np.abs(found - map_).max() <= half_a_step * 1.001
    assert (body["width"], body["height"]) == (5, 6)
    assert (level.min(), level.max()) == (0, 255)


@pytest.mark.parametrize("value", [0.0, -3.5, 1e-40])
def test_a_flat_png_map_is_its_minimum(value: float) -> None:
    body = rendering.encode_png_map(np.full((2, 2), value, np.float32), whole(2, 2))
    assert body["min"] == body["max"] == pytest.approx(value)


def test_a_map_of_the_smallest_numbers_is_scaled_all_the_same() -> None:
    map_ = np.array([[0, 1e-44]], np.float32)
    body = rendering.encode_png_map(map_, whole(2, 1))
    with Image.open(io.BytesIO(base64.b64decode(body["data"]))) as picture:
        assert np.asarray(picture).tolist() == [[0, 255]]


def test_a_float32_map_is_exact() -> None:
    map_ = np.array([[1.1, -2.2, np.nan], [np.inf, 0, 1e-30]], np.float32)
    body = rendering.encode_float32_map(map_.T)  # not contiguous
    assert (body["width"], body["height"]) == (2, 3)
    found = np.frombuffer(base64.b64decode(body["data"]), "<f4").reshape(3, 2)
    np.testing.assert_array_equal(found, map_.T)
    assert body["min"] == pytest.approx(-2.2)
    assert body["max"] == pytest.approx(1.1)
    nothing = rendering.encode_float32_map(np.full((1, 1), math.nan, np.float32))
    assert (nothing["min"], nothing["max"]) == (None, None)


@pytest.mark.parametrize(("extension", "tolerance"), [("png", 0), ("jpeg", 3), ("webp", 6)])
def test_colours_keep_their_order(extension: Any, tolerance: int) -> None:
    image = np.broadcast_to(np.array([200, 100, 50], np.uint8), (16, 16, 3))
    with Image.open(io.BytesIO(rendering.encode_image(image, extension))) as picture:
        assert picture.format == extension.upper()
        found = np.asarray(picture.convert("RGB"), int)
    assert np.abs(found - [200, 100, 50]).max() <= tolerance


@pytest.mark.parametrize(("extension", "width"), [("webp", 16_384), ("jpeg", 65_536)])
def test_a_picture_too_long_for_its_format_is_refused(extension: Any, width: int) -> None:
    with pytest.raises(InvalidParameter, match="png"):
        rendering.encode_image(grey(1, width), extension)
    assert rendering.encode_image(grey(1, width))[:4] == b"\x89PNG"


# Maps as fine as an image


def test_grey_is_the_map_alone() -> None:
    map_ = np.array([[-2.0, -1.0, 0.0], [0.5, 1.0, 4.0]], np.float32)
    both = rendering.grey(map_, whole(3, 2), "both", strongest=2)
    assert both[..., 0].tolist() == [[0, 63, 127], [159, 191, 255]]
    assert (both == both[..., :1]).all()
    assert rendering.grey(map_, whole(3, 2), "positive")[..., 1].tolist() == [[0, 0, 0], [31, 63, 255]]
    assert rendering.grey(map_, whole(3, 2), "negative", strongest=2)[..., 2].tolist() == [
        [255, 127, 0],
        [0, 0, 0],
    ]


def test_one_pixel_does_not_set_the_scale() -> None:
    map_ = np.full((100, 100), -1.0, np.float32)
    map_[50, 50] = 1000
    assert rendering.strong(map_) == 1
    map_[0, 0] = np.nan
    assert rendering.strong(map_) == 1
    assert rendering.strong(np.full((2, 2), np.nan, np.float32)) == 0


def test_grains_that_lie_together_are_one_region() -> None:
    """Every second pixel of a square of 40: hundreds of regions, and smoothed a single one around it."""
    map_ = np.zeros((200, 200), np.float32)
    map_[100:140:2, 60:100:2] = 1
    assert len(rendering.regions(map_, 0.15, IDENTITY)) == rendering.MAX_REGIONS
    map_[101:140:2, 60:100:2] = -1  # as along an edge
    (region,) = rendering.regions(rendering.smoothed(map_, "positive"), 0.15, IDENTITY)
    assert region["mass"] > 0.95
    left, top, right, bottom = region["box"]
    assert (left, top, right, bottom) == pytest.approx((60, 100, 100, 140), abs=6)


def test_smoothing_keeps_the_sum_and_the_centre() -> None:
    map_ = delta(101, 101, 50, 50, 3) + delta(101, 101, 20, 20, -2)
    parts: dict[rendering.Part, float] = {"positive": 3, "negative": -2, "both": 1}
    for part, total in parts.items():
        spread = rendering.smoothed(map_, part)
        assert spread.sum() == pytest.approx(total, rel=1e-4)
        centre = (20, 20) if part == "negative" else (50, 50)
        assert np.unravel_index(np.abs(spread).argmax(), spread.shape) == centre
    assert np.isfinite(rendering.smoothed(delta(9, 9, 4, 4, np.nan), "both")).all()


def test_pictures_side_by_side_keep_their_pixels() -> None:
    left, right = grey(10, 300, 20), grey(10, 300, 200)
    both = rendering.beside([left, right])
    assert both.shape == (10, 606, 3)
    assert (both[:, :300] == 20).all()
    assert (both[:, 300:306] == 255).all()
    assert (both[:, 306:] == 200).all()
    assert rendering.beside([left]) is not left
    np.testing.assert_array_equal(rendering.beside([left]), left)


def shown(kind: MapKind, map_: rendering.Float32, **options: Any) -> Shown:
    height, width = map_.shape
    geometry = prepare(Decoded(Image.fromarray(grey(height, width)), 1, "PNG"), (width, height))[1]
    seen = Prepared(grey(height, width), geometry, None, 0, 0, 0, 0)
    return Shown(ExplainOptions(**options), seen, map_, Method("any", kind, True, "weights", "torch"))


@pytest.mark.parametrize("overlay", ["blend", "contour", "spotlight", "grey"])
def test_a_saliency_map_is_drawn_above_its_mean(overlay: rendering.Overlay) -> None:
    """A mean score that is high everywhere says nothing; only where it is higher does."""
    low = np.random.default_rng(0).uniform(0, 0.1, (16, 16)).astype(np.float32)
    low -= low.mean()
    picture = shown("class_activation_map", low).draw(overlay, 10_000)
    raised = shown("saliency_map", low + np.float32(0.75)).draw(overlay, 10_000)
    assert np.abs(picture.astype(int) - raised.astype(int)).max() <= 1
    assert (shown("class_activation_map", low + np.float32(0.75)).draw(overlay, 10_000) != picture).any()
    regions = [shown("saliency_map", low + add, regions=0.5).regions() for add in np.float32([0, 0.75])]
    assert regions[0]
    assert [region["box"] for region in regions[0]] == [region["box"] for region in regions[1]]


@pytest.mark.parametrize("kind", ["saliency_map", "input_gradient", "score_drop", "class_activation_map"])
def test_what_is_not_finite_can_be_shown_whatever_it_is(kind: MapKind) -> None:
    map_ = delta(16, 16, 3, 3, np.nan)
    map_[8, 8] = 1
    found = shown(kind, map_)
    for overlay in ("blend", "contour", "spotlight", "grey"):
        assert found.draw(overlay, 10_000).shape == (16, 16, 3)
    assert found.regions() == [] or kind == "input_gradient"


@pytest.mark.parametrize(
    ("kind", "overlay"),
    [
        ("class_weight_map", "spotlight"),
        ("class_activation_map", "blend"),
        ("attention_map", "blend"),
        ("input_gradient", "grey"),
        ("score_drop", "blend"),
        ("saliency_map", "blend"),
    ],
)
def test_each_kind_has_its_own_overlay(kind: MapKind, overlay: str) -> None:
    assert shown(kind, delta(4, 4, 1, 1)).natural_overlay == overlay
