from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from konkyo.training.batches import NO_LABEL, TrainingBatches, evaluation_batches
from konkyo.training.config import TrainConfig
from konkyo.training.data import NO_MASK, Images


@dataclass
class Device:
    """What batches ask a fabric, for one of several devices without their processes."""

    global_rank: int
    world_size: int
    device: str = "cpu"


def _fabric(rank: int, devices: int) -> Fabric:
    return cast(Fabric, Device(rank, devices))


@pytest.fixture
def images() -> Images:
    """The mask is 1 where red is over 127, so it can be told whether the two still belong together."""
    pixels = np.random.default_rng(0).integers(0, 256, (22, 8, 8, 3), dtype=np.uint8)
    return Images(pixels, np.arange(22), (pixels[..., 0] > 127).astype(np.uint8))


def _training(images: Images, rank: int = 0, devices: int = 1, **settings: Any) -> TrainingBatches:
    config = TrainConfig(arch="gcm", batch_size=8, **settings)
    return TrainingBatches(_fabric(rank, devices), config, images)


@pytest.mark.parametrize("flip_vertical", [False, True])
def test_masks_stay_with_their_images(images: Images, flip_vertical: bool) -> None:
    batches = list(_training(images, crop_padding=3, flip_vertical=flip_vertical).epoch(5))
    assert len(batches) == 2
    for pixels, _, masks in batches:
        assert masks is not None
        assert masks.dtype == torch.uint8
        assert torch.equal(masks, (pixels[..., 0] > 127).to(torch.uint8))


def test_masks_change_nothing_else(images: Images) -> None:
    bare = Images(images.pixels, images.labels)
    for (pixels, labels, _), (same, numbers, none) in zip(
        _training(images).epoch(5), _training(bare).epoch(5), strict=True
    ):
        assert none is None
        assert torch.equal(pixels, same)
        assert torch.equal(labels, numbers)


def test_upside_down_is_asked_for(images: Images) -> None:
    settings = {"crop_padding": 0, "flip": False}
    plain = next(iter(_training(images, **settings).epoch(5)))
    turned = next(iter(_training(images, **settings, flip_vertical=True).epoch(5)))
    assert torch.equal(plain[1], turned[1])
    differing = (plain[0] != turned[0]).flatten(1).any(dim=1)
    assert 0 < int(differing.sum()) < 8
    assert torch.equal(turned[0][differing], plain[0][differing].flip(1))


def test_light_changes_the_pixels_and_nothing_else(images: Images) -> None:
    plain = next(iter(_training(images).epoch(5)))
    lit = next(iter(_training(images, light=0.5).epoch(5)))
    assert plain[2] is not None
    assert lit[2] is not None
    assert torch.equal(plain[1], lit[1])
    assert torch.equal(plain[2], lit[2])
    assert (plain[0] != lit[0]).flatten(1).any(dim=1).all()
    for before, after in zip(plain[0].flatten(1), lit[0].flatten(1), strict=True):
        assert (after[before.argsort()].int().diff() >= 0).all()  # the same pixels in another light


@pytest.mark.parametrize("light", [0.0, 0.5])
def test_devices_share_the_batch_of_one(images: Images, light: float) -> None:
    whole = list(_training(images, light=light).epoch(5))
    parts = [list(_training(images, rank, 2, light=light).epoch(5)) for rank in range(2)]
    for step, batch in enumerate(whole):
        for position, part in enumerate(batch):
            for rank in range(2):
                assert part is not None
                assert torch.equal(part[rank::2], cast(torch.Tensor, parts[rank][step][position]))


def test_evaluation_fills_up_with_what_does_not_count(images: Images) -> None:
    """22 images on 4 devices: 6 each, the last two of devices 2 and 3 are not in the split."""
    seen: dict[int, int] = {}
    for rank in range(4):
        batches = list(evaluation_batches(_fabric(rank, 4), images, 4))
        assert [len(labels) for _, labels, _ in batches] == [4, 2]
        pixels, labels, masks = (torch.cat([batch[item] for batch in batches]) for item in range(3))  # type: ignore[misc]
        assert (labels == NO_LABEL).nonzero().flatten().tolist() == ([5] if rank > 1 else [])
        for image, label, mask in zip(pixels, labels.tolist(), masks, strict=True):
            if label == NO_LABEL:
                assert (mask == NO_MASK).all()
                continue
            assert np.array_equal(image, images.pixels[label])
            assert images.masks is not None
            assert np.array_equal(mask, images.masks[label])
            seen[label] = rank
    assert sorted(seen) == list(range(22))
    assert images.labels.tolist() == list(range(22))


def test_evaluation_without_masks(images: Images) -> None:
    bare = Images(images.pixels, images.labels)
    assert [masks for _, _, masks in evaluation_batches(_fabric(0, 1), bare, 16)] == [None, None]
