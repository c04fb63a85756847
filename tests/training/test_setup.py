from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from konkyo.training.config import TrainConfig
from konkyo.training.data import Images
from konkyo.training.setup import channel_statistics, make_optimizer, make_scheduler


def _rates(steps: int, **settings: Any) -> list[float]:
    """Learning rate of every step of a run, and after it."""
    config = TrainConfig(arch="gcm", **settings)
    optimizer = make_optimizer(config, torch.nn.Linear(1, 1))
    scheduler = make_scheduler(optimizer, config, steps)
    rates = [float(scheduler.get_last_lr()[0])]
    for _ in range(config.epochs * steps):
        optimizer.step()
        scheduler.step()
        rates.append(float(scheduler.get_last_lr()[0]))
    return rates


def test_cosine_falls_from_the_rate_to_nothing() -> None:
    rates = _rates(5, schedule="cosine", epochs=4, lr=0.2)
    assert rates == pytest.approx(
        [0.1 * (1 + math.cos(math.pi * step / 20)) for step in range(21)], abs=1e-12
    )


def test_one_cycle_rises_to_the_rate_and_falls_to_nothing() -> None:
    rates = _rates(10, schedule="one-cycle", epochs=10, lr=0.2, warmup=0.2)
    top = int(np.argmax(rates))
    assert top in (19, 20)  # the peak is between them, 0.2 of 101 steps less one
    assert rates[0] == pytest.approx(0.2 / 25)
    assert rates[top] == pytest.approx(0.2, rel=1e-3)
    assert rates[-1] == pytest.approx(0.2 / 25 / 1e4)
    assert rates == sorted(rates[: top + 1]) + sorted(rates[top + 1 :], reverse=True)


@pytest.mark.parametrize(
    ("epochs", "warmup"), [(1, 0.0), (1, 0.2), (1, 0.5), (1, 0.9), (3, 0.25), (4, 0.2), (9, 0.1)]
)
def test_one_cycle_of_a_few_steps(epochs: int, warmup: float) -> None:
    rates = _rates(1, epochs=epochs, lr=0.2, warmup=warmup)
    assert all(0 < rate <= 0.2 for rate in rates)
    assert rates[-1] < 0.2 / 25


def test_channel_statistics_are_numpys() -> None:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, [256, 100, 7], (37, 5, 6, 3), dtype=np.uint8)
    images = Images(pixels, np.zeros(37, np.int64))
    mean, std = channel_statistics(images, chunk=10)
    assert mean == pytest.approx((pixels / 255).mean(axis=(0, 1, 2)).tolist(), rel=1e-12)
    assert std == pytest.approx((pixels / 255).std(axis=(0, 1, 2)).tolist(), rel=1e-9)


@pytest.mark.parametrize("value", [0, 77, 255])
def test_a_constant_channel_can_be_divided_by(value: int) -> None:
    images = Images(np.full((3, 4, 4, 3), value, np.uint8), np.zeros(3, np.int64))
    mean, std = channel_statistics(images)
    assert mean == pytest.approx([value / 255] * 3)
    assert all(1e-6 <= deviation < 1e-5 for deviation in std)


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": 0}, {"batch_size": 1}, {"lr": 0}, {"momentum": 1}, {"val_share": 0.5}, {"seed": -1},
        {"seed": 2**32}, {"schedule": "step"}, {"unknown": 1}, {"image_size": 16, "crop_padding": 16},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(reversed(settings))):
        TrainConfig(arch="gcm", **settings)
