"""Decline ratios of networks whose maps are the score, and of maps whose sums are counted by hand."""

from __future__ import annotations

import math
from functools import cache

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import SIDE, Given, Linear, make_candidate, make_example, take

from konkyo.evaluation.measures.base import Unsuited
from konkyo.evaluation.measures.decline import Decline, DeclineParameters
from konkyo.evaluation.sources import BASELINES, MethodSource, Source, find_source
from konkyo.evaluation.visual_maps import construct, right
from konkyo.models.cnn import CNN
from konkyo.models.gcm import GCM

CLASSES = 4


def pictures(count: int, side: int = 16):
    """Coloured clouds: of noise every average would be the same."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, 3, 3, 3), np.uint8)
    return [
        make_example(cv2.resize(cloud, (side, side), interpolation=cv2.INTER_CUBIC), truth=index % CLASSES)
        for index, cloud in enumerate(coarse)
    ]


def pixels_of(examples):
    return torch.from_numpy(np.stack([example.pixels for example in examples]))


@pytest.fixture(scope="module")
def cnn(settled):
    """A network that tells the clouds apart, by its maps and by its bias."""
    torch.manual_seed(0)
    image = pixels_of(pictures(40)).permute(0, 3, 1, 2) / 255
    network = settled(CNN(CLASSES), (image - 0.5) / 0.2)
    candidate = make_candidate(network, CLASSES, 16, "cam", mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    network.fc.bias -= candidate.logits(pixels_of(pictures(40))).mean(dim=0)
    return candidate


@pytest.fixture(scope="module")
def gcm(settled):
    torch.manual_seed(0)
    network = settled(GCM(CLASSES), pixels_of(pictures(40)).permute(0, 3, 1, 2) / 255)
    return make_candidate(network, CLASSES, 16, "gcm")


def own(candidate, method: str) -> Source:
    return MethodSource(method, method, None, "positive", class_specific=True)


def predicted_truths(candidate, examples):
    """The same pictures, with what the network says of each as the truth: its accuracy is 1."""
    classes = candidate.logits(pixels_of(examples)).argmax(dim=1).tolist()
    assert len(set(classes)) > 1, "a network that says one thing proves nothing"
    return [make_example(item.pixels, truth) for item, truth in zip(examples, classes, strict=True)]


@pytest.mark.parametrize("method", ["cam", "gradcam", "hirescam"])
def test_cam_with_its_signs_and_the_bias_is_the_score(cnn, method: str) -> None:
    found = take(Decline, own(cnn, method), *predicted_truths(cnn, pictures(40)), candidate=cnn)
    assert found.columns["with_bias"].tolist() == [1] * 40
    assert found.figures["accuracy"] == 1
    assert found.figures["decline_with_bias"] == 0
    # Without the bias it is not, on this network: what declines is what the bias decided.
    assert found.figures["cause_bias"] > 0.1
    assert ("cause_relu" in found.figures) == (method == "gradcam")
    assert "are the score" in found.notes[0]


def test_the_same_sum_comes_from_cam_and_from_grad_cam_before_its_relu(cnn) -> None:
    examples = predicted_truths(cnn, pictures(20))
    cam = take(Decline, own(cnn, "cam"), *examples, candidate=cnn)
    signed = take(Decline, own(cnn, "gradcam"), *examples, candidate=cnn, rectified=False)
    shown = take(Decline, own(cnn, "gradcam"), *examples, candidate=cnn)
    for name in ("signed", "raw", "absolute", "product"):
        assert signed.columns[name].tolist() == cam.columns[name].tolist()
    assert shown.columns["signed"].tolist() == cam.columns["raw"].tolist()
    # Of a map without a negative part the absolute value is the map.
    assert shown.columns["absolute"].tolist() == shown.columns["raw"].tolist()


def test_the_product_of_a_gcm_is_the_score_and_its_raw_map_is_not(gcm) -> None:
    found = take(Decline, own(gcm, "gcm"), *predicted_truths(gcm, pictures(40)), candidate=gcm)
    assert found.figures["decline_product"] == 0
    assert found.figures["decline_raw"] == found.figures["cause_no_picture"] > 0
    assert "cause_bias" not in found.figures
    assert "cause_picture" not in found.figures
    assert "product of map and picture" in found.notes[0]


@cache
def of_grad_cam() -> Decline:
    candidate = make_candidate(CNN(CLASSES), CLASSES, 16, "cam")
    return Decline(candidate, own(candidate, "gradcam"), DeclineParameters())


@given(st.lists(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=8, max_size=8), min_size=1, max_size=5))
def test_the_causes_on_the_way_to_a_construction_sum_to_its_decline(rows) -> None:
    names = ("signed", "raw", "absolute", "resampled", "scaled", "blend", "product", "network")
    columns = dict(zip(names, np.array(rows).T, strict=True)) | {"with_bias": np.array(rows).T[-1]}
    figures = {item.name: item.of(columns) for item in of_grad_cam().statistics()}
    if not columns["network"].any():
        assert all(math.isnan(value) for name, value in figures.items() if not name.startswith("accuracy"))
        return
    ways = {
        "raw": ("bias", "relu"),
        "absolute": ("bias", "relu", "absolute"),
        "blend": ("bias", "relu", "enlarging", "scaling", "colours"),
        "product": ("bias", "relu", "enlarging", "picture"),
    }
    for name, causes in ways.items():
        total = sum(figures[f"cause_{cause}"] for cause in causes)
        assert total == pytest.approx(figures[f"decline_{name}"])
        expected = 1 - columns[name].mean() / columns["network"].mean()
        assert figures[f"decline_{name}"] == pytest.approx(expected)


def test_sums_by_hand() -> None:
    maps = torch.tensor([[[[1.0, -3.0], [0.0, 1.0]], [[-0.5, -0.5], [0.0, 0.0]]]])
    pixels = torch.zeros(1, 2, 2, 3, dtype=torch.uint8)
    pixels[0, 0, 0] = 255
    pixels[0, 1, 1, 0] = 51  # a fifth of one channel
    found = construct(maps, pixels)
    assert found["raw"].tolist() == [[-1, -1]]
    assert found["absolute"].tolist() == [[5, 1]]
    assert found["resampled"].tolist() == [[-1, -1]]
    assert found["scaled"][0].tolist() == pytest.approx([5 / 3, 1 / 3])  # over the largest of the image, 3
    assert found["product"][0].tolist() == pytest.approx([3 + 0.2, -1.5])
    alone = construct(maps, pixels, "positive", "map")
    assert alone["scaled"].tolist() == [[2, 0]]
    signed = construct(maps, pixels, "signed", "map")
    assert signed["scaled"].tolist() == [[1 + 0 + 0.75 + 1, 0 + 0 + 1 + 1]]
    over_all = construct(maps, pixels, "signed", "image")
    assert over_all["scaled"][0].tolist() == pytest.approx([2.75, (2.5 + 2.5 + 3 + 3) / 4])


@pytest.mark.parametrize("colour_range", ["map", "image"])
@pytest.mark.parametrize("coloured", ["absolute", "positive", "signed"])
def test_the_blend_is_the_picture_that_opencv_draws(coloured: str, colour_range: str) -> None:
    generator = torch.Generator().manual_seed(1)
    maps = torch.randn(2, 3, 16, 16, generator=generator)
    pixels = torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8, generator=generator)
    found = construct(maps, pixels, coloured, colour_range)["blend"]
    values = {"absolute": maps.abs(), "positive": maps.clamp(min=0), "signed": maps}[coloured].numpy()
    for image in range(2):
        for class_ in range(3):
            one = values[image, class_]
            of = one if colour_range == "map" else values[image]
            low = of.min() if coloured == "signed" else 0
            levels = ((one - low) / (of.max() - low) * 255).astype(np.uint8)
            colours = cv2.applyColorMap(levels, cv2.COLORMAP_JET)[..., ::-1]
            blend = 0.7 * colours.astype(np.float64) + 0.2 * pixels[image].numpy()
            # A level may round to the other side where it is whole; a step of jet is at most 8 of 765.
            assert float(found[image, class_]) == pytest.approx(blend.sum(), abs=20)


def test_maps_are_enlarged_as_opencv_does_bicubically() -> None:
    maps = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(2))
    pixels = torch.randint(0, 256, (1, 32, 32, 3), dtype=torch.uint8)
    found = construct(maps, pixels)
    large = [cv2.resize(one.numpy(), (32, 32), interpolation=cv2.INTER_CUBIC) for one in maps[0]]
    assert found["resampled"][0].tolist() == pytest.approx([one.sum() for one in large], abs=1e-3)
    grey = pixels[0].numpy().sum(axis=2) / 255
    assert found["product"][0].tolist() == pytest.approx([(one * grey).sum() for one in large], abs=1e-2)


def test_flat_maps_have_one_colour_and_no_class() -> None:
    maps = torch.zeros(1, 3, 4, 4)
    found = construct(maps, torch.full((1, 4, 4, 3), 7, dtype=torch.uint8))
    assert found["blend"].unique().tolist() == pytest.approx(
        [16 * (0.7 * 128 + 0.2 * 21)]
    )  # jet begins at 128
    assert right(found["raw"], torch.tensor([2])).tolist() == [1 / 3]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [([1.0, 2, 3], 0), ([3.0, 2, 1], 1), ([3.0, 3, 1], 0.5), ([1.0, 3, 3], 0), ([math.nan, 1, 2], 0)],
)
def test_classes_that_share_the_highest_score_share_the_answer(scores, expected: float) -> None:
    assert right(torch.tensor([scores]), torch.tensor([0])).tolist() == [expected]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3e38])
@pytest.mark.parametrize("colour_range", ["image", "map"])
def test_one_value_that_is_no_number_is_never_right(value: float, colour_range: str) -> None:
    """Of one class in one place, beside large values; 3e38 becomes infinite where it is enlarged."""
    maps = torch.full((2, 2, 4, 4), 50.0)
    maps[1, 1, 0, 0] = value
    maps[:, 0, 2, 2] = 60  # what the sound maps say is class 0
    candidate = make_candidate(Linear(torch.zeros(2, SIDE, SIDE)))
    white = make_example(np.full((SIDE, SIDE, 3), 255, np.uint8), truth=0)
    found = take(Decline, Given(maps), white, white, candidate=candidate, colour_range=colour_range)
    for name in ("raw", "absolute", "blend", "product"):
        sound, broken = found.columns[name]
        assert (name, broken) == (name, 0)
        if name != "blend":
            assert (name, sound) == (name, 1)


def test_maps_that_always_name_one_class_are_right_where_that_is_the_class() -> None:
    # Bright pictures are class 1 and dark ones class 0; the maps say 1 whatever is shown.
    candidate = make_candidate(
        Linear(torch.stack([-torch.ones(SIDE, SIDE), torch.ones(SIDE, SIDE)]), [64.0, 0.0])
    )
    bright, dark = np.full((SIDE, SIDE, 3), 255, np.uint8), np.zeros((SIDE, SIDE, 3), np.uint8)
    maps = torch.zeros(4, 2, 2, 2)
    maps[:, 1] = 1
    examples = [make_example(bright, 1), make_example(dark, 0), make_example(dark, 0), make_example(dark, 1)]
    found = take(Decline, Given(maps), *examples, candidate=candidate)
    assert found.columns["network"].tolist() == [1, 1, 1, 0]
    assert found.columns["raw"].tolist() == [1, 0, 0, 1]
    assert found.figures["accuracy"] == 0.75
    assert found.figures["accuracy_raw"] == 0.5
    assert found.figures["decline_raw"] == pytest.approx((0.75 - 0.5) / 0.75)
    assert found.figures["accuracy_product"] == 1 / 4 + 1 / 8 * 3  # on black the products are both 0
    assert "right by 0.500, a decline of 0.333" in found.notes[-1]


def test_images_without_a_truth_are_left_out(cnn) -> None:
    first, second, third = pictures(3)
    second = make_example(second.pixels, None)
    found = take(Decline, own(cnn, "cam"), first, second, third, candidate=cnn)
    assert [record.position for record in found.records] == [0, 2]
    whole = take(Decline, own(cnn, "cam"), first, third, candidate=cnn)
    assert {name: values.tolist() for name, values in found.columns.items()} == {
        name: values.tolist() for name, values in whole.columns.items()
    }


def test_a_network_that_is_never_right_has_no_decline(cnn) -> None:
    examples = [
        make_example(item.pixels, (item.truth + 1) % CLASSES) for item in predicted_truths(cnn, pictures(8))
    ]
    found = take(Decline, own(cnn, "cam"), *examples, candidate=cnn)
    assert math.isnan(found.figures["decline_raw"])
    assert found.notes == ("The network is never right, so nothing can decline.",)


def test_maps_without_classes_and_too_many_classes_are_unsuited(cnn, gcm) -> None:
    def why(candidate, source, **settings) -> str:
        with pytest.raises(Unsuited) as error:
            Decline(candidate, source, DeclineParameters(**settings))
        return str(error.value)

    assert "same for every class" in why(cnn, None)
    assert "same for every class" in why(cnn, BASELINES["centre"]("centre"))
    assert "see gcm" in why(gcm, find_source("contribution", gcm))
    assert "4 classes" in why(cnn, own(cnn, "cam"), max_classes=3)
