from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from konkyo.converters.errors import ConversionError
from konkyo.converters.packages import pretrained_state
from konkyo.models.abn import ABN
from konkyo.models.backbone import Backbone
from konkyo.training.config import TrainConfig
from konkyo.training.data import ImageData, Images
from konkyo.training.errors import TrainingError
from konkyo.training.setup import (
    channel_statistics,
    make_model,
    make_optimizer,
    make_scheduler,
    with_image_size,
)


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


def test_step_divides_the_rate_by_10_after_a_half_and_after_three_quarters() -> None:
    rates = _rates(5, schedule="step", epochs=4, lr=0.2)
    assert rates == pytest.approx([0.2] * 10 + [0.02] * 5 + [0.002] * 6)


def _one_step(gradient: float, **settings: Any) -> float:
    """Where a weight of 1 goes."""
    layer = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(layer.weight)
    layer.weight.grad = torch.full((1, 1), gradient)
    make_optimizer(TrainConfig(arch="gcm", **settings), layer).step()
    return layer.weight.item()


@pytest.mark.parametrize("gradient", [0.5, 30.0])
def test_adamw_steps_by_the_rate_whatever_the_gradient_and_decays_apart_from_it(gradient: float) -> None:
    found = _one_step(gradient, optimizer="adamw", lr=0.1, weight_decay=0.01)
    assert found == pytest.approx(1 - 0.1 * 0.01 - 0.1, abs=1e-6)


def test_sgd_looks_ahead_by_the_momentum() -> None:
    gradient = 0.5 + 0.01  # the weight's decay is part of it
    found = _one_step(0.5, lr=0.1, momentum=0.9, weight_decay=0.01)
    assert found == pytest.approx(1 - 0.1 * (gradient + 0.9 * gradient), abs=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_what_is_frozen_is_not_in_the_optimizer(optimizer: str) -> None:
    layer = torch.nn.Linear(2, 2)
    layer.weight.requires_grad_(False)
    (group,) = make_optimizer(TrainConfig(arch="gcm", optimizer=optimizer), layer).param_groups
    assert [id(parameter) for parameter in group["params"]] == [id(layer.bias)]


def _noise() -> ImageData:
    pixels = np.random.default_rng(0).integers(0, 100, (4, 32, 32, 3), dtype=np.uint8)
    images = Images(pixels, np.arange(4) % 2)
    return ImageData("noise", ("a", "b"), images, images, images)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"name": "resnet10t", "layer": "layer9"}, "no layer 'layer9'"),
        ({"name": "inception_v3", "image_size": [32, 32]}, "cannot be run at "),
    ],
)
def test_what_cannot_be_explained_is_not_trained(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(TrainingError, match=reason):
        make_model(TrainConfig(arch="timm", arch_args=arguments), _noise())


def test_only_networks_of_timm_are_told_the_size_of_the_images() -> None:
    told, said, other = (
        with_image_size(TrainConfig(arch=arch, arch_args=arguments), _noise()).arch_args
        for arch, arguments in (("dino-vit", {}), ("timm", {"image_size": [64, 32]}), ("cnn", {}))
    )
    assert told == {"image_size": [32, 32]}
    assert said == {"image_size": [64, 32]}
    assert other == {}


class TestPretrained:
    BACKBONE = "tf_efficientnet_lite0"

    @pytest.mark.parametrize(
        ("arch", "arguments"),
        [
            ("backbone", {"name": BACKBONE}),
            ("abn", {"backbone": BACKBONE, "split": "blocks.2", "last_stage": "blocks.4"}),
            ("multiscale-abn", {"backbone": BACKBONE, "splits": ["blocks.1", "blocks.2"], "width": 8}),
        ],
    )
    def test_the_backbone_has_the_weights_and_the_normalisation_of_the_package(
        self, arch: str, arguments: dict[str, Any]
    ) -> None:
        config = TrainConfig(arch=arch, arch_args=arguments, pretrained=True)
        classifier = make_model(config, _noise())
        theirs, mean, std = pretrained_state(self.BACKBONE)
        assert classifier.mean.flatten().tolist() == mean == [0.5] * 3
        assert classifier.std.flatten().tolist() == std == [0.5] * 3
        backbone = classifier.network if arch == "backbone" else classifier.network.backbone
        assert isinstance(backbone, Backbone)
        stem = backbone.parts[0].state_dict()
        assert torch.equal(stem["weight"], theirs["conv_stem.weight"])
        assert torch.equal(backbone.parts[1].running_var, theirs["bn1.running_var"])  # type: ignore[arg-type]
        last = backbone.stages[-1]
        kept = backbone.parts[last.end - 1].state_dict()
        assert len(kept) > 10
        assert all(torch.equal(tensor, theirs[f"{last.name}.{name}"]) for name, tensor in kept.items())

    def test_the_attention_branch_begins_as_the_trained_stage(self) -> None:
        arguments = {"backbone": self.BACKBONE, "split": "blocks.2", "last_stage": "blocks.4"}
        config = TrainConfig(arch="abn", arch_args=arguments, pretrained=True)
        network = make_model(config, _noise()).network
        assert isinstance(network, ABN)
        stage = network.attention_branch.stage.state_dict()
        theirs = pretrained_state(self.BACKBONE)[0]
        copied = [tensor for key, tensor in stage.items() if key.endswith("0.0.conv_pw.weight")]
        assert len(copied) == 1
        assert torch.equal(copied[0], theirs["blocks.3.0.conv_pw.weight"])

    def test_without_it_the_statistics_are_those_of_the_data(self) -> None:
        data = _noise()
        classifier = make_model(TrainConfig(arch="backbone", arch_args={"name": "cifar_resnet20"}), data)
        expected = channel_statistics(data.train)
        assert classifier.mean.flatten().tolist() == pytest.approx(expected[0])
        assert classifier.std.flatten().tolist() == pytest.approx(expected[1])

    @pytest.mark.parametrize(
        ("arch", "arguments", "message"),
        [
            ("gcm", {}, "^gcm has no backbone to begin with pretrained weights"),
            ("cnn", {}, "^cnn has no backbone"),
            ("abn", {"backbone": "cifar_resnet20"}, "no pretrained weights for cifar_resnet20; there are"),
        ],
    )
    def test_networks_without_such_weights_are_refused(
        self, arch: str, arguments: dict[str, Any], message: str
    ) -> None:
        with pytest.raises((TrainingError, ConversionError), match=message):
            make_model(TrainConfig(arch=arch, arch_args=arguments, pretrained=True), _noise())


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
        {"seed": 2**32}, {"schedule": "linear"}, {"optimizer": "adam"}, {"light": 1}, {"class_balance": 1.1},
        {"select_by": "loss"}, {"pretrain_epochs": -1}, {"unknown": 1},
        {"image_size": 16, "crop_padding": 16},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(reversed(settings))):
        TrainConfig(arch="gcm", **settings)
