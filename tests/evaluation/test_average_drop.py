"""Average drop and increase in confidence, by hand and beside the public libraries."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pytorch_grad_cam.metrics.cam_mult_image import DropInConfidence, IncreaseInConfidence
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from torch import nn
from torchcam.methods import GradCAM
from torchcam.metrics import ClassificationMetric
from toys import SIDE, Given, Linear, make_batch, make_candidate, make_example

from konkyo.evaluation.measures.average_drop import (
    AverageDrop,
    AverageDropParameters,
    average_drop,
    confidence_drops,
    seen_through,
)
from konkyo.evaluation.measures.base import Unsuited

LEFT = torch.zeros(SIDE, SIDE)
LEFT[:, : SIDE // 2] = 1


def sigmoid(logit: float) -> float:
    return 1 / (1 + np.exp(-logit))


def seer():
    """Class 1 by the sum of the left half, each pixel 0 to 1, against a logit of 16 for class 0."""
    return make_candidate(Linear(torch.stack([0 * LEFT, LEFT]), bias=[16.0, 0.0]))


def taken(candidate, maps, examples, **parameters):
    batch = make_batch(candidate, *examples)
    measure = AverageDrop(candidate, Given(maps), AverageDropParameters(**parameters))
    return measure, measure.records(batch, batch.logits.argmax(dim=1, keepdim=True), maps)


def white(count: int = 1):
    return [make_example(np.full((SIDE, SIDE, 3), 255, np.uint8), name=str(place)) for place in range(count)]


def test_what_is_lost_and_what_is_gained_by_hand() -> None:
    # The whole image has logits 16 and 32: class 1 with sigmoid(16). The left half keeps it all, the right
    # half nothing, half of the left (0.5 of each pixel, as the 1 of the scale is elsewhere) logits 16 and 16.
    half = LEFT / 2
    half[0, SIDE - 1] = 1
    whole = sigmoid(16)
    lost = [0, 1 - sigmoid(-16) / whole, 1 - 0.5 / whole]
    measure, found = taken(seer(), torch.stack([LEFT, 1 - LEFT, half])[:, None], white(3))
    assert [record.values["drop"] for record in found] == pytest.approx(lost, abs=1e-6)
    assert [record.values["increase"] for record in found] == [0, 0, 0]
    columns = {name: np.array([record.values[name] for record in found]) for name in found[0].values}
    figures = {statistic.name: statistic.of(columns) for statistic in measure.statistics()}
    assert figures == {"average_drop": pytest.approx(np.mean(lost), abs=1e-6), "increase": 0}


def test_hiding_what_speaks_against_raises_the_confidence_and_drops_nothing() -> None:
    # The right half speaks for class 0: logits 1 and 2 of the whole image, 0 and 2 of its left half.
    weights = torch.stack([1 - LEFT, 2 * LEFT]) / (SIDE * SIDE / 2)
    _, [found] = taken(make_candidate(Linear(weights)), LEFT[None, None], white())
    assert found.values == {"drop": 0, "increase": 1}
    drop = confidence_drops(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 2.0]]))
    assert float(drop) == pytest.approx(1 - sigmoid(2) / sigmoid(1))


@pytest.mark.parametrize("level", [0.0, 0.7, -2.0])
def test_a_flat_map_shows_nothing(level: float) -> None:
    _, [found] = taken(seer(), torch.full((1, 1, 3, 3), level), white())
    assert found.values["drop"] == pytest.approx(1 - sigmoid(-16) / sigmoid(16))


def test_a_map_that_is_not_finite_has_no_figures() -> None:
    maps = torch.stack([LEFT, LEFT * torch.nan, LEFT * torch.inf])[:, None]
    _, found = taken(seer(), maps, white(3))
    assert np.isfinite(list(found[0].values.values())).all()
    for record in found[1:]:
        assert np.isnan(list(record.values.values())).all()


def test_the_map_is_scaled_on_its_grid_and_then_enlarged() -> None:
    images = torch.ones(1, 2, 1, 6)
    seen = seen_through(images, torch.tensor([[[3.0, 5, 4]]]))
    # Cells 0, 1, 1/2 on six pixels, by half-pixel centres: the 1 falls between two of them.
    expected = [0, 0.25, 0.75, 0.875, 0.625, 0.5]
    assert seen[0].tolist() == [[pytest.approx(expected)], [pytest.approx(expected)]]


def test_what_is_hidden_is_the_mean_colour_or_black() -> None:
    # Normalisation takes 1/2 away: of a white image the hidden right half is 0, or -1/2 as black is.
    candidate = make_candidate(
        Linear(torch.stack([0 * LEFT, 1 - LEFT]), bias=[-8.0, 0.0]), mean=(0.5, 0.5, 0.5)
    )
    for image, logit in (("normalised", 0), ("pixels", -0.5 * SIDE * SIDE / 2)):
        _, [found] = taken(candidate, LEFT[None, None], white(), image=image)
        whole = sigmoid(0.5 * SIDE * SIDE / 2 + 8)
        assert found.values["drop"] == pytest.approx(1 - sigmoid(logit + 8) / whole, abs=1e-6)


# Patches, so that places differ in what they say.
IMAGES = F.interpolate(torch.randn((12, 3, 4, 4), generator=torch.Generator().manual_seed(1)) * 9, (32, 32))


@pytest.fixture
def network():
    """Untrained, but its classes are about as likely for the mean of the images."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4),
    ).eval()  # fmt: skip
    with torch.no_grad():
        layers[-1].bias -= layers(IMAGES).mean(dim=0)
    return layers


def test_as_torchcam_has_it(network: nn.Sequential) -> None:
    with GradCAM(network, target_layer=network[3]) as extractor:
        metric = ClassificationMetric(extractor, partial(torch.softmax, dim=-1))
        metric.update(IMAGES)
        scores = network(IMAGES).softmax(dim=1)  # which it differentiates too, where we take logits
        [maps] = extractor(scores.argmax(dim=1).tolist(), scores, normalized=False)
    theirs = metric.summary()
    drop, increase = average_drop(network, IMAGES, maps)
    assert 0 < increase < 1
    assert drop == pytest.approx(theirs["avg_drop"], abs=1e-5)
    assert increase == theirs["conf_increase"]


def test_as_pytorch_grad_cam_has_it_but_that_its_drop_is_not_relative(network: nn.Sequential) -> None:
    generator = torch.Generator().manual_seed(2)
    maps = torch.rand((12, 4, 4), generator=generator)
    with torch.no_grad():
        logits = network(IMAGES)
        drops = confidence_drops(logits, network(seen_through(IMAGES, maps)))
    lowest, highest = (end(maps, dim=(1, 2), keepdim=True) for end in (torch.amin, torch.amax))
    shown = F.interpolate(((maps - lowest) / (highest - lowest))[:, None], (32, 32), mode="bilinear")[:, 0]
    targets = [ClassifierOutputSoftmaxTarget(int(row.argmax())) for row in logits]
    given = (IMAGES, shown.numpy(), targets, network)
    confidence = logits.softmax(dim=1).amax(dim=1).double()
    assert DropInConfidence()(*given) == pytest.approx((drops.clamp(min=0) * confidence).numpy(), abs=1e-6)
    assert IncreaseInConfidence()(*given).tolist() == (drops < 0).tolist()
    assert 0 < (drops < 0).sum() < 12


def test_no_images_and_no_maps_are_refused() -> None:
    with pytest.raises(ValueError, match="0 images, 0 maps"):
        average_drop(nn.Identity(), torch.zeros(0, 3, 4, 4), torch.zeros(0, 2, 2))
    with pytest.raises(ValueError, match="2 images, 3 maps"):
        average_drop(nn.Identity(), torch.zeros(2, 3, 4, 4), torch.zeros(3, 2, 2))
    with pytest.raises(Unsuited, match="maps"):
        AverageDrop(seer(), None, AverageDropParameters())
