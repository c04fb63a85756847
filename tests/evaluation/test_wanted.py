from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor
from toys import SIDE, Linear, make_batch, make_candidate, make_example, mark

from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.examples import Batch, Marked
from konkyo.evaluation.measures.base import Wants
from konkyo.evaluation.sources import Source
from konkyo.evaluation.wanted import maps_of, targets_of

CLASSES = 7
ORDER = [4, 2, 6, 0, 1, 3, 5]
"""Classes from the likeliest, of every image."""


class Asked(Source):
    """A map of 2 x 3 that says its class and its image; keeps what it was asked."""

    def __init__(self, *, class_specific: bool = True) -> None:
        super().__init__("asked")
        self.class_specific = class_specific
        self.asked: list[tuple[int, list[list[int]]]] = []

    def maps(self, candidate: Candidate, pixels: Tensor, targets: Tensor) -> Tensor:
        self.asked.append((len(pixels), targets.tolist()))
        image = pixels[:, 0, 0, 0].float()[:, None]
        said = (100 * image + targets) if self.class_specific else (100 * image).expand(targets.shape)
        return said[..., None, None].expand(-1, -1, 2, 3)


@pytest.fixture
def candidate() -> Candidate:
    bias = [float(-ORDER.index(label)) for label in range(CLASSES)]
    return make_candidate(Linear(torch.zeros(CLASSES, SIDE, SIDE), bias), classes=CLASSES)


def thing(*classes: int, name: str = "thing") -> Marked:
    return mark(np.ones((SIDE, SIDE), bool), *classes, name=name)


def batch_of(candidate: Candidate, *known: tuple[int | None, tuple[Marked, ...] | None]) -> Batch:
    """Images that are black but for their number."""
    examples = []
    for number, (truth, marked) in enumerate(known):
        pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
        pixels[0, 0] = number
        examples.append(make_example(pixels, truth, marked, f"image {number}"))
    return make_batch(candidate, *examples)


@pytest.fixture
def batch(candidate: Candidate) -> Batch:
    nameless = Marked("nameless", (), np.ones((SIDE, SIDE), bool), np.empty((0, 4)))
    several = (thing(3, 1, 6), thing(5), nameless)
    return batch_of(candidate, (2, several), (None, None), (0, ()), (4, (thing(1, 0),)))


TARGETS: Mapping[Wants, list[list[int]]] = {
    "nothing": [[], [], [], []],
    "predicted": [[4]] * 4,
    "top5": [ORDER[:5]] * 4,
    "all": [list(range(CLASSES))] * 4,
    "truth": [[2], [-1], [0], [4]],
    "marked": [[6, 5, -1], [-1, -1, -1], [-1, -1, -1], [0, -1, -1]],
}


@pytest.mark.parametrize("wants", TARGETS)
def test_targets(batch: Batch, wants: Wants) -> None:
    found = targets_of(wants, batch)
    assert found.dtype == torch.int64
    assert found.tolist() == TARGETS[wants]


def test_the_top_of_few_classes_is_all() -> None:
    candidate = make_candidate(Linear(torch.zeros(2, SIDE, SIDE), [0.0, 1.0]))
    assert targets_of("top5", batch_of(candidate, (0, None))).tolist() == [[1, 0]]


def test_each_class_is_asked_for_once(candidate: Candidate, batch: Batch) -> None:
    source = Asked()
    targets = {wants: targets_of(wants, batch) for wants in ("predicted", "truth", "marked", "top5")}
    maps = maps_of(source, candidate, batch, targets)
    [(images, asked)] = source.asked
    assert images == 4
    assert [sorted(label for label in row if label >= 0) for row in asked] == [
        [0, 1, 2, 4, 5, 6],
        *([[0, 1, 2, 4, 6]] * 3),
    ]
    for wants, wanted in targets.items():
        assert maps[wants].shape == (*wanted.shape, 2, 3)
        for image, row in enumerate(wanted.tolist()):
            for place, label in enumerate(row):
                if label >= 0:
                    assert (maps[wants][image, place] == 100 * image + label).all()


def test_all_classes_include_the_others(candidate: Candidate, batch: Batch) -> None:
    source = Asked()
    maps = maps_of(source, candidate, batch, {w: targets_of(w, batch) for w in ("all", "truth")})
    assert source.asked == [(4, [list(range(CLASSES))] * 4)]
    assert maps["all"][3, :, 0, 0].tolist() == [300 + label for label in range(CLASSES)]
    assert maps["truth"][[0, 2, 3], 0, 0, 0].tolist() == [2, 200, 304]


def test_a_map_of_no_class_is_asked_for_once(candidate: Candidate, batch: Batch) -> None:
    source = Asked(class_specific=False)
    maps = maps_of(source, candidate, batch, {w: targets_of(w, batch) for w in ("marked", "top5")})
    assert source.asked == [(4, [[-1]] * 4)]
    assert maps["marked"].shape == (4, 3, 2, 3)
    assert maps["top5"][:, :, 1, 2].tolist() == [[100.0 * image] * 5 for image in range(4)]


@pytest.mark.parametrize("class_specific", [True, False])
def test_images_of_which_nothing_is_wanted_are_not_asked_about(
    candidate: Candidate, batch: Batch, class_specific: bool
) -> None:
    source = Asked(class_specific=class_specific)
    maps = maps_of(source, candidate, batch, {"marked": targets_of("marked", batch)})
    assert [images for images, _ in source.asked] == [2]
    label = 1 if class_specific else 0
    assert maps["marked"][0, :2, 0, 0].tolist() == [6 * label, 5 * label]
    assert maps["marked"][3, 0, 0, 0] == 300


def test_nothing_is_asked_where_nothing_is_wanted(candidate: Candidate) -> None:
    source = Asked()
    batch = batch_of(candidate, (None, ()), (None, None))
    targets = {wants: targets_of(wants, batch) for wants in ("marked", "truth")}
    maps = maps_of(source, candidate, batch, targets)
    assert source.asked == []
    assert maps["marked"].shape == (2, 0, 1, 1)
    assert maps["truth"].shape == (2, 1, 1, 1)
