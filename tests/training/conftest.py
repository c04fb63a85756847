"""A separable set of tiny images, and runs on it that take a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from konkyo.training.config import TrainConfig
from konkyo.training.data import ImageData, Images

SMALL_GCM = {"encoder": [[8, 1], [8, 2]], "decoder": [[8, 2]]}

Configure = Callable[..., TrainConfig]


def shapes(count: int, seed: int, side: int = 16) -> Images:
    """Alternately a red bar lying and a blue bar standing, somewhere on grey noise."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(40, 100, (count, side, side, 3), dtype=np.uint8)
    labels = np.arange(count) % 2
    for image, label in zip(pixels, labels, strict=True):
        y, x = generator.integers(0, side // 2, 2)
        if label:
            image[y : y + 8, x : x + 3] = (20, 20, 220)
        else:
            image[y : y + 3, x : x + 8] = (220, 20, 20)
    return Images(pixels, labels.astype(np.int64))


@pytest.fixture
def data() -> ImageData:
    return ImageData("bars", ("lying", "standing"), shapes(160, 1), shapes(40, 2), shapes(2, 3))


@pytest.fixture
def configure() -> Configure:
    """A small run; what is under test is passed by keyword."""

    def make(**settings: Any) -> TrainConfig:
        defaults: dict[str, Any] = {
            "arch": "gcm",
            "arch_args": SMALL_GCM,
            "data": "bars",
            "epochs": 2,
            "batch_size": 16,
            "precision": "32-true",
            "accelerator": "cpu",
        }
        return TrainConfig(**defaults | settings)

    return make
