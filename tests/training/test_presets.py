from __future__ import annotations

from typing import Any

import pytest

from konkyo.training.config import TrainConfig
from konkyo.training.presets import PRESETS, with_preset

ARCHITECTURES = {
    "abn-cifar": "abn",
    "amb": "amb",
    "amb-pc": "amb",
    "amb-cot": "amb",
    "amb-all": "amb",
    "multiscale-abn": "multiscale-abn",
}


def _config(preset: str, **settings: Any) -> TrainConfig:
    return TrainConfig(**with_preset(preset, {"arch": ARCHITECTURES[preset], **settings}))


def test_these_are_all() -> None:
    assert set(PRESETS) == set(ARCHITECTURES)


@pytest.mark.parametrize("preset", ARCHITECTURES)
def test_every_one_trains_as_the_abn_code_does(preset: str) -> None:
    config = _config(preset)
    assert (config.optimizer, config.lr, config.momentum, config.weight_decay) == ("sgd", 0.1, 0.9, 1e-4)
    assert config.schedule == "step"


def test_abn_on_cifar_as_in_its_code() -> None:
    config = _config("abn-cifar")
    assert (config.epochs, config.batch_size, config.crop_padding) == (300, 128, 4)


@pytest.mark.parametrize(
    ("preset", "prototypes", "complement"),
    [("amb", 0.0, False), ("amb-pc", 1.0, False), ("amb-cot", 0.0, True), ("amb-all", 1.0, True)],
)
def test_amb_as_in_the_paper(preset: str, prototypes: float, complement: bool) -> None:
    config = _config(preset)
    assert (config.pretrain_epochs, config.epochs - config.pretrain_epochs) == (300, 300)
    assert config.batch_size == 16
    assert config.mining_weight == 16 * 1e-4  # of a mean; the paper's is of a sum over the batch
    assert (config.prototype_weight, config.complement) == (prototypes, complement)


def test_what_is_given_goes_before_the_preset() -> None:
    config = _config("amb-all", epochs=7, complement=False, light=0.2)
    assert (config.epochs, config.complement, config.light) == (7, False, 0.2)
    assert (config.pretrain_epochs, config.prototype_weight) == (300, 1.0)


def test_none_leaves_the_settings_alone() -> None:
    assert with_preset(None, {"arch": "abn", "lr": 0.3}) == {"arch": "abn", "lr": 0.3}


def test_presets_are_not_changed_by_what_is_given() -> None:
    with_preset("amb", {"epochs": 1})["batch_size"] = 1
    assert (PRESETS["amb"]["epochs"], PRESETS["amb"]["batch_size"]) == (600, 16)


def test_an_unknown_one_is_answered_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="unknown preset 'abm'; there are: abn-cifar, amb, amb-pc, "):
        with_preset("abm", {})
