"""What every method promises, over the registry."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from konkyo.errors import InvalidParameter, UnsupportedMethod
from konkyo.imaging import UInt8
from konkyo.perturbation import explain, methods
from konkyo.perturbation.base import Floats, Perturbation, softmax
from konkyo.perturbation.fill import filling

IMAGE = np.random.default_rng(0).integers(0, 256, (12, 15, 3), dtype=np.uint8)
WEIGHTS = np.random.default_rng(1).normal(0, 2, (4, *IMAGE.shape))
FEW: dict[str, dict[str, Any]] = {"occlusion": {"patch": 4, "stride": 3}, "rise": {"masks": 30, "cells": 3}}
"""Parameters for some thirty images; a new method has its defaults."""

NAMES = list(methods())


def linear(images: UInt8) -> Floats:
    """Each image by itself, so that its logits do not depend on its batch: (b, H, W, 3) -> (b, 4)."""
    return np.stack([(WEIGHTS * (image / 255)).mean(axis=(1, 2, 3)) * 40 for image in images])


def begun(name: str, targets: list[int], **parameters: Any) -> Perturbation:
    kind = methods()[name]
    return kind(IMAGE, targets, kind.parameters(**{**FEW.get(name, {}), **parameters}))


@pytest.mark.parametrize("name", NAMES)
def test_a_map_for_each_target_at_the_size_of_the_image(name: str) -> None:
    maps = explain(linear, IMAGE, [2, -1, 0], method=name, **FEW.get(name, {}))
    assert maps.shape == (3, 12, 15)
    assert maps.dtype == np.float32
    assert all(np.ptp(map_) > 0 for map_ in maps)


@pytest.mark.parametrize("name", NAMES)
def test_several_targets_at_once_are_those_one_by_one(name: str) -> None:
    together = explain(linear, IMAGE, [3, -1, 0, 3], method=name, **FEW.get(name, {}))
    alone = [
        explain(linear, IMAGE, [target], method=name, **FEW.get(name, {}))[0] for target in (3, -1, 0, 3)
    ]
    assert np.array_equal(together, alone)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_the_batch_does_not_matter(name: str, batch_size: int) -> None:
    expected = explain(linear, IMAGE, [1, 2], method=name, **FEW.get(name, {}))
    found = explain(linear, IMAGE, [1, 2], method=name, batch_size=batch_size, **FEW.get(name, {}))
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("name", NAMES)
def test_the_predicted_class_is_that_of_the_image_itself(name: str) -> None:
    predicted = int(linear(IMAGE[None]).argmax())
    maps = explain(linear, IMAGE, [-1, predicted], method=name, **FEW.get(name, {}))
    assert np.array_equal(maps[0], maps[1])


@pytest.mark.parametrize("name", NAMES)
def test_no_target_is_no_map(name: str) -> None:
    assert explain(linear, IMAGE, [], method=name, **FEW.get(name, {})).shape == (0, 12, 15)


@pytest.mark.parametrize("name", NAMES)
def test_images_go_out_in_order_and_progress_counts_them(name: str) -> None:
    explanation = begun(name, [-1])
    assert (explanation.done, explanation.logits) == (0, None)
    first = explanation.take(5)
    assert np.array_equal(first, explanation.take(5))  # taking is not feeding
    assert np.array_equal(first[0], IMAGE)
    assert all((image != IMAGE).any() for image in first[1:])
    assert not explanation.maps.any()
    explanation.feed(linear(first))
    assert explanation.done == 5
    assert explanation.logits is not None
    assert np.array_equal(explanation.logits, linear(IMAGE[None])[0])
    rest = explanation.take(1000)
    assert len(rest) == explanation.total - 5
    explanation.feed(linear(rest))
    assert explanation.done == explanation.total
    assert explanation.take(8).shape == (0, 12, 15, 3)
    with pytest.raises(ValueError, match="1 logits for 0 images"):
        explanation.feed(linear(first[:1]))


@pytest.mark.parametrize("name", NAMES)
def test_progress_is_told_after_each_batch(name: str) -> None:
    told: list[tuple[int, int]] = []
    total = begun(name, [0]).total
    explain(
        linear, IMAGE, [0], method=name, batch_size=9,
        on_progress=lambda *progress: told.append(progress), **FEW.get(name, {}),
    )  # fmt: skip
    assert told == [(min(done, total), total) for done in range(9, total + 9, 9)]


@pytest.mark.parametrize("name", NAMES)
def test_the_image_is_left_as_it_was(name: str) -> None:
    image = IMAGE.copy()
    explain(linear, image, [-1], method=name, **FEW.get(name, {}))
    assert np.array_equal(image, IMAGE)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("target", [-2, 4])
def test_no_such_class(name: str, target: int) -> None:
    with pytest.raises(ValueError, match="of 4 classes"):
        explain(linear, IMAGE, [0, target], method=name, **FEW.get(name, {}))


@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_it_does_not_know(name: str) -> None:
    with pytest.raises(ValidationError, match="colour"):
        explain(linear, IMAGE, [0], method=name, colour="red")


def test_a_method_that_is_not_there() -> None:
    with pytest.raises(UnsupportedMethod, match="guess") as caught:
        explain(linear, IMAGE, method="guess")
    assert caught.value.detail == {"methods": ["occlusion", "rise"]}
    assert isinstance(caught.value, InvalidParameter)


def test_fillings() -> None:
    image = np.array([[[10, 20, 30], [11, 20, 36]]], np.uint8)
    assert (filling(image, "grey") == 128).all()
    assert (filling(image, "black") == 0).all()
    assert filling(image, "mean").tolist() == [[[10, 20, 33], [10, 20, 33]]]  # 10.5 rounds to even


def test_a_blur_keeps_the_colour_and_not_the_shape() -> None:
    stripes = np.zeros((60, 60, 3), np.uint8)
    stripes[:, ::2] = (200, 100, 0)
    blurred = filling(stripes, "blur").astype(int)
    assert np.abs(blurred - (100, 50, 0)).max() <= 2


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=6), st.floats(-1e4, 1e4))
def test_softmax_sums_to_one_and_does_not_see_a_shift(logits: list[float], shift: float) -> None:
    row = np.array([logits])
    assert softmax(row).sum() == pytest.approx(1)
    assert np.allclose(softmax(row + shift), softmax(row), atol=1e-9)
