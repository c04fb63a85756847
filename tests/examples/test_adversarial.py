"""Noise that turns the answer: exact on a linear network, and on photographs that ship."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from examples import adversarial as example
from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.sources import find_source
from konkyo.models.bundle import read_bundle
from konkyo.models.classifier import Classifier

AIRLINER = "airliner"


class Linear(nn.Module):
    """Two logits, weighted sums of the pixels; weights (3, H, W) of the second, the first is 0."""

    def __init__(self, weights: torch.Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        score = (image * self.weights).sum(dim=(1, 2, 3))
        return torch.stack([torch.zeros_like(score), score], dim=1)


class LinearCandidate(Candidate):
    """Only what the attack asks for."""

    def __init__(self, weights: torch.Tensor) -> None:
        self.device = torch.device("cpu")
        self.classifier = Classifier(Linear(weights)).eval()


@pytest.fixture(scope="module")
def candidate() -> Candidate:
    return Candidate.load(read_bundle(example.BUNDLE))


@pytest.fixture(scope="module")
def seen(candidate: Candidate) -> example.Seen:
    target = candidate.card.labels.index(AIRLINER)
    photographs = example.shipped(candidate.card)[:2]
    found = example.probe(candidate, find_source("gradcam", candidate), photographs, target, steps=12)
    assert found is not None
    return found


@pytest.mark.parametrize(("target", "sign"), [(1, 1), (0, -1)])
def test_of_a_linear_network_it_is_the_sign_of_the_weights(target: int, sign: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(3, 4, 4, generator=generator)
    pixels = torch.randint(0, 256, (2, 4, 4, 3), dtype=torch.uint8, generator=generator)
    pixels[0, 0, 0], pixels[1, 0, 0] = 0, 255
    fooled = example.attack(LinearCandidate(weights), pixels, target, epsilon=3, steps=5)
    best = (pixels.int() + sign * 3 * weights.sign().permute(1, 2, 0).int()).clamp(0, 255)
    assert torch.equal(fooled.int(), best)


def test_fewer_steps_than_levels_go_as_far_as_they_are() -> None:
    pixels = torch.full((1, 4, 4, 3), 100, dtype=torch.uint8)
    fooled = example.attack(LinearCandidate(torch.full((3, 4, 4), 0.01)), pixels, 1, epsilon=8, steps=2)
    assert (fooled == 102).all()


def test_random_noise_is_as_large() -> None:
    pixels = torch.full((1, 16, 16, 3), 100, dtype=torch.uint8)
    noisy = example.random_noise(pixels, 2).int()
    assert set(noisy.unique().tolist()) == {98, 102}
    assert abs(noisy.float().mean() - 100) < 0.5
    assert example.random_noise(torch.zeros_like(pixels), 2).max() == 2


def test_things_of_the_photographs_are_seen(seen: example.Seen) -> None:
    assert [thing.picture for thing in seen.things] == [0, 0, 1]
    shuttle, helmet, _ = (np.argwhere(thing.mask.numpy()) for thing in seen.things)
    assert shuttle[:, 0].min() == 0
    assert helmet.max(axis=0).tolist() == [223, 223]


def test_noise_that_nobody_sees_turns_the_answer(seen: example.Seen) -> None:
    before, noise, after = seen.pixels
    assert (after.int() - before.int()).abs().max() == (noise.int() - before.int()).abs().max() == 2
    plain, random, fooled = seen.looks
    assert max(plain.fooled.max(), random.fooled.max()) < 0.01
    assert fooled.fooled.min() > 0.9
    assert (fooled.believed < plain.believed).all()
    assert fooled.believed.max() < 1e-3


def test_the_maps_of_what_is_there_still_find_it(seen: example.Seen) -> None:
    """And the map of what is not there does not find it."""
    areas = np.array([thing.mask.double().mean() for thing in seen.things])
    plain, _, fooled = seen.looks
    assert plain.hits.tolist() == fooled.hits.tolist() == [1, 1, 1]
    assert (fooled.inside > 1.2 * areas).all()
    assert (fooled.inside > 0.6 * plain.inside).all()
    assert fooled.inside.mean() > 1.5 * fooled.false_inside.mean()


def test_the_table_says_how_it_went(seen: example.Seen) -> None:
    lines = example.table([seen], AIRLINER).splitlines()
    assert [line.partition(":")[0] for line in lines[::2]] == list(example.CONDITIONS)
    assert lines[1].endswith("rank correlation with before 1.00")
    assert f"highest point inside {seen.looks[2].hits.mean():.0%}" in lines[5]


def test_the_command_takes_any_data_with_masks(tmp_path, capsys) -> None:
    """Photographs made of the ones that ship, with masks of the same boxes."""
    for name, boxes in example.THINGS.items():
        with Image.open(example.SAMPLES / name) as photo:
            size = photo.size
            (tmp_path / "images").mkdir(exist_ok=True)
            photo.save(tmp_path / "images" / name)
        for label, (left, top, right, bottom) in boxes.items():
            mask = np.zeros(size[::-1], np.uint8)
            mask[top:bottom, left:right] = 255
            (tmp_path / "masks" / label).mkdir(parents=True)
            Image.fromarray(mask).save(tmp_path / "masks" / label / f"{name.removesuffix('.jpg')}.png")
    out = tmp_path / "maps.png"
    example.main(["--data", str(tmp_path), "--steps", "1", "--images", "2", "--out", str(out)])
    said = capsys.readouterr().out
    assert "3 things in 2 pictures, gradcam; " in said
    assert said.count("highest point inside") == 3
    with Image.open(out) as drawn:
        assert min(drawn.size) > 300
