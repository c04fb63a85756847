"""Worst cases looked at again."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from toys import SIDE, Linear, Pictures, make_candidate, make_example, mark

from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.looking import Viewer
from konkyo.evaluation.recording import Subject
from konkyo.evaluation.results import MeasureResult, WorstCase
from konkyo.evaluation.sources import find_source
from konkyo.models.card import MethodSpec

PIXELS = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)


def half(part: slice) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[part] = True
    return mask


TOP, BOTTOM = half(slice(0, SIDE // 2)), half(slice(SIDE // 2, SIDE))
EXAMPLES = (
    make_example(
        PIXELS[0], truth=1, marked=(mark(TOP, name="top"), mark(BOTTOM, name="bottom")), name="whole"
    ),
    make_example(PIXELS[1], name="gone"),
)


class Counting(Linear):
    """A linear toy that counts the images it is asked about."""

    asked = 0

    def forward(self, image: Tensor) -> Tensor:
        self.asked += len(image)
        return super().forward(image)


def explainable(network: nn.Module) -> Candidate:
    candidate = make_candidate(network)
    occlusion = MethodSpec(
        method="occlusion", map_kind="score_drop", class_specific=True, needs="predictions"
    )
    candidate.card = candidate.card.model_copy(update={"methods": (occlusion,)})
    return candidate


def viewer(network: nn.Module) -> Viewer:
    candidate = explainable(network)
    return Viewer([Subject(candidate, Pictures(EXAMPLES, broken=frozenset({"gone"})))])


def result(measure: str, source: str | None) -> MeasureResult:
    return MeasureResult(
        candidate="toy/1", source=source, measure=measure, title=measure, reference="none", settings={}
    )


def case(example: str = "whole", about: str = "", target: int | None = 1) -> WorstCase:
    return WorstCase(example=example, about=about, target=target, value=0)


def test_it_is_the_map_of_the_class_with_what_was_marked() -> None:
    network = Linear(torch.stack([torch.from_numpy(TOP), torch.from_numpy(BOTTOM)]).float(), bias=(9.0, 0.0))
    look = viewer(network)
    seen = look(result("pointing", "occlusion"), case(about="bottom"))
    assert seen is not None
    assert seen.map is not None
    candidate = explainable(network)
    other, expected = find_source("occlusion", candidate).maps(
        candidate, torch.from_numpy(PIXELS[:1]), torch.tensor([[0, 1]])
    )[0]
    assert np.array_equal(seen.map, expected.numpy())
    assert not np.array_equal(seen.map, other.numpy())
    assert (seen.file, seen.truth, seen.predicted, seen.explained) == (
        "whole",
        "class 1",
        "class 0",
        "class 1",
    )
    assert seen.boxes is not None
    assert seen.boxes.tolist() == [[0, SIDE // 2, SIDE, SIDE]]
    assert np.array_equal(seen.mask, BOTTOM)
    whole = look(result("pointing", "occlusion"), case())
    assert whole is not None
    assert np.array_equal(whole.mask, TOP | BOTTOM)


def test_a_map_that_several_measures_show_is_made_once() -> None:
    network = Counting(torch.ones(2, SIDE, SIDE))
    look = viewer(network)
    look(result("pointing", "occlusion"), case(about="top"))
    first = network.asked
    seen = look(result("energy", "occlusion"), case(about="bottom"))
    assert seen is not None
    assert seen.map is not None
    assert network.asked == first + 1  # what is predicted
    look(result("energy", "occlusion"), case(target=0))
    assert network.asked > first + 2  # the map of another class


def test_a_measure_without_maps_shows_the_image_alone() -> None:
    seen = viewer(Linear(torch.ones(2, SIDE, SIDE)))(result("classification", None), case(target=None))
    assert seen is not None
    assert seen.map is None
    assert np.array_equal(seen.pixels, PIXELS[0])


def test_what_cannot_be_read_any_more_is_not_shown() -> None:
    assert viewer(Linear(torch.ones(2, SIDE, SIDE)))(result("pointing", "occlusion"), case("gone")) is None
