"""Rank correlation with known occlusion maps: of a linear network, each pixel's part of the score."""

from __future__ import annotations

import gc
import math
import weakref

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from toys import SIDE, Given, Linear, make_batch, make_candidate, make_example, take

from konkyo.errors import InvalidParameter
from konkyo.evaluation.measures.base import Unsuited
from konkyo.evaluation.measures.occlusion_correlation import (
    OcclusionCorrelation,
    OcclusionCorrelationParameters,
    OcclusionMaps,
)
from konkyo.evaluation.sources import PerturbationSource

PIXEL = {"patch": 1, "stride": 1, "fill": "black", "score": "logit"}
"""Settings by which the occlusion map of a linear network is its weights times the picture."""

EXACT = OcclusionCorrelationParameters.model_validate(PIXEL)


class Counting(Linear):
    """Counts the images it is asked about, in all its copies."""

    def __init__(self, weights: torch.Tensor, asked: list[int]) -> None:
        super().__init__(weights)
        self.asked = asked

    def __deepcopy__(self, memo: object) -> Counting:
        return Counting(self.weights.detach().clone(), self.asked)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.asked.append(len(image))
        return super().forward(image)


def weights() -> torch.Tensor:
    return torch.randn(2, SIDE, SIDE, generator=torch.Generator().manual_seed(3))


def picture(seed: int = 0):
    return make_example(np.random.default_rng(seed).integers(1, 256, (SIDE, SIDE, 3), np.uint8))


def parts_of_the_score(candidate, example) -> torch.Tensor:
    """(SIDE, SIDE), of the predicted class."""
    grey = torch.from_numpy(example.pixels.mean(axis=2) / 255)
    predicted = int(make_batch(candidate, example).logits.argmax())
    return (candidate.classifier.network.weights[predicted] * grey).float()


def test_a_map_in_the_order_of_what_each_pixel_gives_is_perfect() -> None:
    candidate, example = make_candidate(Linear(weights())), picture()
    parts = parts_of_the_score(candidate, example)
    found = take(OcclusionCorrelation, Given(parts.exp() - 9), example, candidate=candidate, **PIXEL)
    assert found.figures["correlation_signed"] == pytest.approx(1)
    assert found.figures["without_order"] == 1  # exp(...) - 9 is nowhere positive: nothing of it counts
    assert math.isnan(found.figures["correlation"])
    reverse = take(OcclusionCorrelation, Given(-parts), example, candidate=candidate, **PIXEL)
    assert reverse.figures["correlation_signed"] == pytest.approx(-1)


def test_what_counts_of_a_map_is_its_positive_part_or_for_gradients_its_size() -> None:
    candidate, example = make_candidate(Linear(weights())), picture()
    parts = parts_of_the_score(candidate, example)
    source = Given(parts)
    found = take(OcclusionCorrelation, source, example, candidate=candidate, **PIXEL)
    expected = spearmanr(parts.clamp(min=0).numpy().ravel(), parts.numpy().ravel()).statistic
    assert found.figures["correlation"] == pytest.approx(expected)
    source.importance = "absolute"
    found = take(OcclusionCorrelation, source, example, candidate=candidate, **PIXEL)
    expected = spearmanr(parts.abs().numpy().ravel(), parts.numpy().ravel()).statistic
    assert found.figures["correlation"] == pytest.approx(expected)


def test_on_the_coarser_grid_cells_are_means() -> None:
    candidate, example = make_candidate(Linear(weights())), picture()
    parts = parts_of_the_score(candidate, example)
    cells = parts.view(2, SIDE // 2, 2, SIDE // 2).mean(dim=(1, 3))
    found = take(OcclusionCorrelation, Given(cells), example, candidate=candidate, grid="coarser", **PIXEL)
    assert found.figures["correlation_signed"] == pytest.approx(1)
    found = take(OcclusionCorrelation, Given(cells), example, candidate=candidate, **PIXEL)
    assert found.figures["correlation_signed"] < 0.9  # four cells say little of sixty-four pixels


def test_the_mean_is_over_images_each_with_its_own_class() -> None:
    centred = weights() - weights().mean(dim=(1, 2), keepdim=True)
    candidate, examples = make_candidate(Linear(centred)), [picture(seed) for seed in range(6)]
    classes = make_batch(candidate, *examples).logits.argmax(dim=1)
    assert len(classes.unique()) == 2
    maps = torch.stack([parts_of_the_score(candidate, example) for example in examples])[:, None]
    maps[4:] *= -1
    found = take(OcclusionCorrelation, Given(maps), *examples, candidate=candidate, **PIXEL)
    assert found.columns["correlation_signed"] == pytest.approx([1, 1, 1, 1, -1, -1])
    assert found.figures["correlation_signed"] == pytest.approx(2 / 6)


def test_the_same_occlusion_map_is_made_once_for_all_methods() -> None:
    asked: list[int] = []
    candidate, example = make_candidate(Counting(weights(), asked)), picture()
    for source in (Given(torch.eye(SIDE)), Given(torch.eye(SIDE).flip(0))):
        asked.clear()
        take(OcclusionCorrelation, source, example, candidate=candidate, **PIXEL)
        passes = sum(asked)
    assert passes == 1  # of the batch itself
    take(OcclusionCorrelation, source, example, candidate=candidate, **(PIXEL | {"patch": 2}))
    assert sum(asked) > SIDE * SIDE / 2  # other settings, another map


def test_no_more_maps_are_kept_than_there_is_room_for() -> None:
    asked: list[int] = []
    candidate = make_candidate(Counting(weights(), asked))
    maps = OcclusionMaps(kept=2 * SIDE * SIDE * 4)
    target = torch.tensor([0])

    def cost(seed: int) -> int:
        asked.clear()
        maps.get(candidate, torch.from_numpy(picture(seed).pixels)[None], target, EXACT)
        return sum(asked)

    whole = SIDE * SIDE + 1
    assert [cost(0), cost(1), cost(0), cost(2)] == [whole, whole, 0, whole]
    assert [cost(0), cost(2), cost(1)] == [0, 0, whole]  # 1 was used the longest ago


def test_nothing_is_kept_of_a_model_that_is_gone() -> None:
    candidate = make_candidate(Linear(weights()))
    gone = weakref.ref(candidate), weakref.ref(candidate.classifier.network)
    take(OcclusionCorrelation, Given(torch.eye(SIDE)), picture(), candidate=candidate, **PIXEL)
    del candidate
    gc.collect()
    assert [reference() for reference in gone] == [None, None]


def test_the_square_is_reported_as_it_came_out() -> None:
    candidate = make_candidate(Linear(weights()))
    measure = OcclusionCorrelation(candidate, Given(torch.eye(SIDE)), OcclusionCorrelationParameters())
    assert measure.settled() == {"patch": 1, "stride": 1}
    with pytest.raises(InvalidParameter, match="9 pixels, and the network's input has 8"):
        OcclusionCorrelation(candidate, Given(torch.eye(SIDE)), OcclusionCorrelationParameters(patch=9))


def test_no_maps_and_occlusion_maps_are_unsuited() -> None:
    candidate = make_candidate(Linear(weights()))
    for source, why in ((None, "compares maps"), (PerturbationSource("occlusion"), "with itself")):
        with pytest.raises(Unsuited, match=why):
            OcclusionCorrelation(candidate, source, OcclusionCorrelationParameters())
