"""A separable set of tiny images, and runs on it that take a second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from konkyo.models.bundle import CANARY, CARD, WEIGHTS, Bundle, describe_file, read_bundle
from konkyo.models.card import Canary, ExplanationSpec, InputSpec, ModelCard, Provenance
from konkyo.models.loading import assemble
from konkyo.training import checkpoint
from konkyo.training.config import TrainConfig
from konkyo.training.data import ImageData, Images
from konkyo.training.loop import fit

SMALL: dict[str, dict[str, Any]] = {
    "gcm": {"encoder": [[8, 1], [8, 2]], "decoder": [[8, 2]]},
    "abn": {"last_stage": "layer2"},
    "amb": {"last_stage": "layer2"},
    "multiscale-abn": {"splits": ["layer1", "layer2"], "width": 8},
}
"""Arguments that make a network small; those with attention have a map at every pixel."""

Configure = Callable[..., TrainConfig]
Trained = tuple[Path, Bundle]


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


def _marked(count: int, seed: int) -> Images:
    images = shapes(count, seed)
    return replace(images, masks=(images.pixels > 100).any(axis=-1).astype(np.uint8))


@pytest.fixture(scope="session")
def marked() -> ImageData:
    """Fewer of them, with the bars as masks."""
    return ImageData("marked bars", ("lying", "standing"), _marked(32, 1), _marked(16, 2), _marked(2, 3))


@pytest.fixture(scope="session")
def configure() -> Configure:
    """A small run on a small network; what is under test is passed by keyword."""

    def make(**settings: Any) -> TrainConfig:
        defaults: dict[str, Any] = {
            "arch": "gcm",
            "arch_args": SMALL.get(settings.get("arch", "gcm"), {}),
            "data": "bars",
            "epochs": 2,
            "batch_size": 16,
            "precision": "32-true",
            "accelerator": "cpu",
        }
        return TrainConfig(**defaults | settings)

    return make


@pytest.fixture(scope="session")
def trained(
    marked: ImageData, configure: Configure, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Trained]:
    """Of an architecture with attention: the checkpoint of a run, and a bundle of its weights alone."""

    @cache
    def make(arch: str) -> Trained:
        root = tmp_path_factory.mktemp(arch)
        config = configure(arch=arch, epochs=2, batch_size=8, optimizer="adamw", lr=0.003)
        best = fit(config, marked, root / "run", command=f"konkyo train --arch {arch}")
        return best, _bundle(root / "bars" / "1", checkpoint.load(best))

    return make


def _bundle(out: Path, state: dict[str, Any]) -> Bundle:
    """As export writes it, without the graph, which takes ten times as long as the run."""
    out.mkdir(parents=True)
    config = state["config"]
    save_file({key: tensor.contiguous() for key, tensor in state["model"].items()}, out / WEIGHTS)
    model = assemble(config["arch"], config["arch_args"], len(state["labels"]), "attention", out / WEIGHTS)
    canary = state["samples"][:1]
    Image.fromarray(canary[0].numpy()).save(out / CANARY)
    with torch.no_grad():
        logits, maps = model(canary, torch.tensor([[-1]]))
    mean, std = (tuple(buffer.flatten().tolist()) for buffer in (model.classifier.mean, model.classifier.std))
    card = ModelCard(
        name="bars",
        version="1",
        architecture=config["arch"],
        arguments=config["arch_args"],
        labels=tuple(state["labels"]),
        input=InputSpec(width=16, height=16, resize_mode="squash", mean=mean, std=std),
        explanation=ExplanationSpec(
            method="attention",
            map_kind="attention_map",
            class_specific=False,
            range=(0.0, 1.0),
            takes_attention=True,
            scales=maps.shape[1],
        ),
        provenance=Provenance(
            data=state["data"]["name"],
            licence=state["data"]["licence"],
            command=state["command"],
            date="2026-01-01",
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            epochs=len(state["history"]),
            parity=0.0,
        ),
        canary=Canary(file=CANARY, logits=tuple(logits[0].tolist())),
        files={name: describe_file(out / name) for name in (WEIGHTS, CANARY)},
    )
    (out / CARD).write_text(card.model_dump_json(), encoding="utf-8")
    return read_bundle(out)
