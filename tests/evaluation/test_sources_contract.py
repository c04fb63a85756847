"""What every source of maps keeps to, on shipped networks: a new one is tested by existing."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.sources import PerturbationSource, find_source, source_names
from konkyo.models.bundle import read_bundle
from konkyo.perturbation import methods as perturbations
from konkyo.service.demo import SAMPLE
from konkyo.service.settings import ZOO

BUNDLES = ("gcm-cifar10", "multiscale-abn-magnetic-tile", "efficientnet-lite0-imagenet")
"""With weight maps, with attention at several scales, with a global average over many classes."""
LARGE = 128
"""Pixels a side from which predictions by the thousand take too long here."""


@cache
def candidate(name: str) -> Candidate:
    return Candidate.load(read_bundle(ZOO / name / "1"))


@cache
def pixels(name: str) -> Tensor:
    """A photograph, and its mirror image darkened."""
    photo = cv2.imread(str(SAMPLE))[..., ::-1]
    image = cv2.resize(photo, candidate(name).size[::-1], interpolation=cv2.INTER_AREA)
    return torch.from_numpy(np.stack([image, image[:, ::-1] // 2]))


def sources() -> Iterator[tuple[str, str]]:
    for bundle in BUNDLES:
        card = read_bundle(ZOO / bundle / "1").card
        scales = [f"{card.explanation.method}:{scale + 1}" for scale in range(card.explanation.scales)]
        for name in [*source_names(card), *(scales if len(scales) > 1 else [])]:
            if name not in perturbations() or card.input.width < LARGE:
                yield bundle, name


@pytest.mark.parametrize(("bundle", "name"), list(sources()))
def test_maps_are_of_the_image_and_the_class(bundle: str, name: str) -> None:
    model, images = candidate(bundle), pixels(bundle)
    source = PerturbationSource(name, masks=50) if name == "rise" else find_source(name, model)
    predicted = model.logits(images).argmax(dim=1)
    targets = torch.stack([predicted, (predicted + 1) % len(model.card.labels), torch.full((2,), -1)], dim=1)
    maps = source.maps(model, images, targets)
    assert source.name == name
    assert maps.dtype == torch.float32
    assert maps.shape[:2] == (2, 3)
    assert maps.ndim == 4
    assert maps.isfinite().all()
    assert not maps.requires_grad
    scale = maps.abs().max()
    assert torch.equal(maps[:, 0], maps[:, 2])  # -1 is the predicted class
    assert torch.equal(maps[:, 0], maps[:, 1]) != source.class_specific
    for place in range(2):
        alone = source.maps(model, images[place, None], targets[place, None, :1])
        assert alone.shape == (1, 1, *maps.shape[2:])
        assert (alone[0, 0] - maps[place, 0]).abs().max() <= 1e-4 * scale
    important = source.important(maps)
    assert important.shape == maps.shape
    assert (important >= 0).all()
    if source.importance == "positive":
        assert torch.equal(important, maps.clamp(min=0))
    else:
        assert torch.equal(important, maps.abs())


@pytest.mark.parametrize("name", ["random", "centre", "edges"])
def test_baselines_never_ask_the_model(name: str) -> None:
    model = candidate("gcm-cifar10")
    source = find_source(name, model)
    assert source.baseline
    blind = model.with_classifier(model.classifier)
    blind.classifier = None  # type: ignore[assignment]
    images = pixels("gcm-cifar10")
    assert torch.equal(
        source.maps(blind, images, torch.zeros(2, 1)), source.maps(model, images, torch.zeros(2, 1))
    )
