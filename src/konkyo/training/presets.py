"""The schedules of the papers, by name: settings that ``--preset`` gives and the command line overrides.

``abn-cifar`` is of the ABN paper and its code. The ``amb`` presets are steps 1 to 4 of the AMB paper
in one run: 300 epochs on the losses of a plain ABN (step 1), then 300 in which step 2 and, with the
complement objective, step 3 take turns (step 4); the rate falls once for both, at 1/2 and 3/4 of the
600. The papers give no learning rate for AMB, and neither rate nor length for the multi-scale
network; where they are silent, ABN's recipe stands in.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

_SGD = {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "schedule": "step"}
_AMB = {**_SGD, "pretrain_epochs": 300, "epochs": 600, "batch_size": 16}

PRESETS = MappingProxyType(
    {
        "abn-cifar": {**_SGD, "epochs": 300, "batch_size": 128, "crop_padding": 4},
        "amb": _AMB,
        "amb-pc": {**_AMB, "prototype_weight": 1.0},
        "amb-cot": {**_AMB, "complement": True},
        "amb-all": {**_AMB, "prototype_weight": 1.0, "complement": True},
        "multiscale-abn": {**_SGD, "epochs": 300, "batch_size": 16},
    }
)


def with_preset(name: str | None, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a preset, under those given.

    Raises:
        ValueError: there is no such preset; the message lists those there are.
    """
    if name is None:
        return settings
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; there are: {', '.join(PRESETS)}")
    return {**PRESETS[name], **settings}
