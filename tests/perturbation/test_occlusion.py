from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from konkyo.errors import InvalidParameter
from konkyo.imaging import UInt8
from konkyo.perturbation import explain
from konkyo.perturbation.base import Floats, softmax
from konkyo.perturbation.occlusion import Occlusion, OcclusionParameters


def brightness(row: int, column: int) -> Any:
    """A classifier that looks at one pixel: logits are its red value and the negative of it."""

    def predict(images: UInt8) -> Floats:
        seen = images[:, row, column, 0].astype(np.float64)
        return np.stack([seen, -seen], axis=1)

    return predict


def test_by_hand_without_overlap() -> None:
    image = np.zeros((2, 4, 3), np.uint8)
    image[0, 2] = 200
    maps = explain(brightness(0, 2), image, [0, 1], patch=2, stride=2, fill="black", score="logit")
    assert maps[0].tolist() == [[0, 0, 200, 200], [0, 0, 200, 200]]
    assert maps[1].tolist() == [[0, 0, -200, -200], [0, 0, -200, -200]]  # this class gains by it


def test_by_hand_with_overlap() -> None:
    """Squares over columns 01, 12 and 23; the last two cover the pixel that counts."""
    image = np.zeros((2, 4, 3), np.uint8)
    image[:, 2] = 90
    [map_] = explain(brightness(1, 2), image, [0], patch=2, stride=1, fill="black", score="logit")
    assert map_[0].tolist() == [0, 45, 90, 90]
    assert map_[1].tolist() == map_[0].tolist()


def test_by_hand_as_a_probability() -> None:
    """Two classes, logits ±z: the probability is the sigmoid of 2 z, and 1/2 of a black pixel."""
    image = np.full((1, 2, 3), 3, np.uint8)
    [map_] = explain(brightness(0, 1), image, [-1], patch=1, fill="black")
    assert map_.tolist() == [[0, pytest.approx(1 / (1 + np.exp(-6)) - 0.5, abs=1e-7)]]


def test_the_last_squares_end_at_the_edge() -> None:
    parameters = OcclusionParameters(patch=3, stride=2)
    occlusion = Occlusion(np.zeros((5, 8, 3), np.uint8), [0], parameters)
    starts = [tuple(np.argwhere(image[..., 0])[0]) for image in occlusion.take(100)[1:]]
    assert starts == [(0, 0), (0, 2), (0, 4), (0, 5), (2, 0), (2, 2), (2, 4), (2, 5)]
    assert all((image == 128).sum() == 27 for image in occlusion.take(100)[1:])
    assert Occlusion.count((5, 8), parameters) == 8


@given(st.integers(3, 9), st.integers(3, 9), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**32))
def test_of_a_linear_classifier_it_is_known(
    height: int, width: int, patch: int, stride: int, seed: int
) -> None:
    """The drop of sum(w I) is the sum of w (I - fill) over the square, whatever is elsewhere."""
    stride = min(stride, patch)
    generator = np.random.default_rng(seed)
    image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    weights = generator.normal(size=(2, height, width, 3))

    def predict(images: UInt8) -> Floats:
        return np.einsum("nhwc,bhwc->bn", weights, images.astype(np.float64))

    local = (weights * (image.astype(np.float64) - 128)).sum(axis=3)  # (2, H, W)
    sums, count = np.zeros((2, height, width)), np.zeros((height, width))
    for top in {*range(0, height - patch, stride), height - patch}:
        for left in {*range(0, width - patch, stride), width - patch}:
            sums[:, top : top + patch, left : left + patch] += local[
                :, top : top + patch, left : left + patch
            ].sum(axis=(1, 2))[:, None, None]
            count[top : top + patch, left : left + patch] += 1
    maps = explain(predict, image, [0, 1], patch=patch, stride=stride, score="logit")
    assert np.allclose(maps, sums / count, rtol=1e-5, atol=1e-3)


def test_what_the_classifier_does_not_look_at_is_exactly_zero() -> None:
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (20, 20, 3), dtype=np.uint8)
    weights = generator.normal(size=(5, 4 * 4 * 3))

    def predict(images: UInt8) -> Floats:
        region = images[:, 8:12, 4:8].reshape(len(images), -1) / 255
        return np.stack([weights @ one for one in region])

    [map_] = explain(predict, image, [-1], patch=3, stride=1)
    reached = np.zeros((20, 20), bool)
    reached[6:14, 2:10] = True  # by a square that touches the region
    assert not map_[~reached].any()
    assert map_[reached].all()


def test_the_defaults_are_a_seventh_of_the_shorter_side_and_half_of_that() -> None:
    assert Occlusion.count((224, 224), OcclusionParameters()) == 13 * 13
    assert Occlusion.count((224, 224), OcclusionParameters(patch=32, stride=16)) == 13 * 13
    assert Occlusion.count((3, 3), OcclusionParameters()) == 9


@pytest.mark.parametrize(
    ("parameters", "name"), [({"patch": 7}, "patch"), ({"patch": 3, "stride": 4}, "stride")]
)
def test_parameters_that_do_not_fit(parameters: dict[str, int], name: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        explain(brightness(0, 0), np.zeros((6, 9, 3), np.uint8), [0], **parameters)
    assert caught.value.detail == {"parameter": name}


@pytest.mark.parametrize(("patch", "stride"), [(4, 4), (4, 2), (3, 1), (5, 3)])
def test_against_captum(patch: int, stride: int) -> None:
    """Where the squares fill the image evenly; elsewhere captum's last ones reach over the edge."""
    torch = pytest.importorskip("torch")
    attr = pytest.importorskip("captum.attr")
    side = patch + 3 * stride
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.LazyLinear(4)
    ).double()
    image = np.random.default_rng(patch).integers(0, 256, (side, side, 3), dtype=np.uint8)

    def logits(pixels: Any) -> Any:
        return network(pixels.double().permute(0, 3, 1, 2) / 255)

    def predict(images: UInt8) -> Floats:
        with torch.no_grad():
            return np.asarray(logits(torch.from_numpy(images)).numpy())

    def probabilities(pixels: Any) -> Any:
        return logits(pixels).softmax(dim=1)

    for score, forward in (("logit", logits), ("probability", probabilities)):
        maps = explain(predict, image, [2, 0], patch=patch, stride=stride, score=score)
        for map_, target in zip(maps, (2, 0), strict=True):
            expected = attr.Occlusion(forward).attribute(
                torch.from_numpy(image[None]).double(),
                sliding_window_shapes=(patch, patch, 3), strides=(stride, stride, 3),
                baselines=128, target=target,
            )  # fmt: skip
            assert np.abs(map_ - expected[0, ..., 0].numpy()).max() < 1e-6
    assert np.allclose(softmax(predict(image[None])).sum(), 1)
