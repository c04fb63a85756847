"""Checkpoints: everything a run needs to go on, and everything an export needs to know.

A checkpoint holds tensors and plain values only, and is read with ``weights_only=True``: opening
one from elsewhere cannot run code.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import nn

from konkyo.models.bundle import read_bundle
from konkyo.models.loading import load_explained
from konkyo.training.config import TrainConfig
from konkyo.training.data import ImageData
from konkyo.training.errors import CheckpointError

SAMPLES = 64
"""Validation images kept in the checkpoint, so that an export can be checked on real images."""

SPLIT = "split.json"

_REQUIRED = ("config", "command", "labels", "model", "history", "samples")
_TO_RESUME = ("optimizer", "scheduler")
_FREE = ("data_root", "devices", "accelerator", "compile")
"""Settings that may change between the parts of one run."""


@dataclass(frozen=True)
class Run:
    """The part of a checkpoint that does not change during a run."""

    config: TrainConfig
    command: str
    data: ImageData

    def state(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler,
        history: list[dict[str, Any]],
    ) -> dict[str, Any]:
        """The checkpoint after an epoch."""
        val = self.data.val.pixels
        picked = np.linspace(0, len(val) - 1, min(SAMPLES, len(val))).astype(np.int64)
        return {
            "config": self.config.model_dump(),
            "command": self.command,
            "labels": list(self.data.labels),
            "data": {
                "name": self.data.name,
                "licence": self.data.licence,
                "citation": self.data.citation,
                "skipped": len(self.data.skipped),
            },
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
            "history": history,
            "samples": torch.from_numpy(val[picked]),
        }

    def restore(
        self,
        state: dict[str, Any],
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler,
    ) -> None:
        """Bring the three back to where the checkpoint left them.

        Call it when the model is on its device, because an optimizer puts what it loads beside the
        weights it finds.

        Raises:
            CheckpointError: the checkpoint is of another run; the message names what differs.
        """
        self._require_same(state)
        try:
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            scheduler.load_state_dict(state["scheduler"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(f"the checkpoint does not fit the network: {error}") from error

    def _require_same(self, state: dict[str, Any]) -> None:
        missing = [key for key in _TO_RESUME if key not in state]
        if missing:
            raise CheckpointError(f"the checkpoint cannot be resumed; it lacks: {', '.join(missing)}")
        try:
            theirs = TrainConfig.model_validate(state["config"]).model_dump()
        except ValidationError as error:
            raise CheckpointError(
                f"the settings of the checkpoint are not of this version: {error}"
            ) from None
        ours = self.config.model_dump()
        differing = sorted(key for key in ours if ours[key] != theirs[key] and key not in _FREE)
        if list(self.data.labels) != state["labels"]:
            differing.append("labels")
        if differing:
            raise CheckpointError(f"the checkpoint to resume differs in: {', '.join(differing)}")

    def save_split(self, out: Path) -> None:
        """Write which file is in which split, so that the test images stay known and fixed."""
        if self.data.files is not None:
            with _whole(out / SPLIT) as partial:
                partial.write_text(json.dumps(self._split(), indent=1), encoding="utf-8")

    def require_same_split(self, out: Path) -> None:
        """Refuse to go on where files came or went: test images could have become training images.

        Raises:
            CheckpointError: the files are not those in ``out/split.json``.
        """
        if self.data.files is None:
            return
        path = out / SPLIT
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path}: the split of the run to resume cannot be read: {error}") from None
        if before != self._split():
            raise CheckpointError(f"{path}: the images of {self.data.name} are not those the run began with")

    def _split(self) -> dict[str, list[str]]:
        files = {split: list(names) for split, names in (self.data.files or {}).items()}
        return files | {"skipped": list(self.data.skipped)}


def lineage(others: Iterable[dict[str, Any]], command: str) -> str:
    """The commands that lead to these weights: those of the runs they come and learn from, then this one."""
    return " && ".join(dict.fromkeys([*(state["command"] for state in others), command]))


def take_weights(path: str, state: dict[str, Any], model: nn.Module, labels: Sequence[str]) -> None:
    """Begin with the weights and the normalisation of another run.

    Choose the same data and seed, or images it was fitted to may validate this one.

    Args:
        path: of the checkpoint, for the message.
        state: its content.
        model: takes the weights.
        labels: names of the classes it must have.

    Raises:
        CheckpointError: it has other classes, or does not fit the network.
    """
    if state["labels"] != list(labels):
        raise CheckpointError(f"{path}: its classes are not those of the data")
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise CheckpointError(f"{path}: its weights do not fit the network: {error}") from error


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all: a crash leaves the one before."""
    with _whole(path) as partial, partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        CheckpointError: there is none, it is damaged, or it is not one of ours.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no checkpoint here") from None
    except Exception as error:  # torch raises anything from EOFError to RuntimeError on damaged files
        # Not its message: on a pickle that is long, and tells how to run it all the same.
        raise CheckpointError(f"{path}: not a readable checkpoint ({type(error).__name__})") from error
    if not isinstance(state, dict) or any(key not in state for key in _REQUIRED):
        raise CheckpointError(f"{path}: not a checkpoint of konkyo train")
    return state


def load_origin(path: Path) -> dict[str, Any]:
    """What a run may begin with or learn from: a checkpoint, or the bundle in a folder.

    Returns:
        ``config``, ``command``, ``labels`` and ``model``, as in a checkpoint.

    Raises:
        CheckpointError: it is neither.
        BundleError: the bundle is damaged.
    """
    if not path.is_dir():
        return load(path)
    bundle = read_bundle(path)
    card = bundle.card
    return {
        "config": TrainConfig(arch=card.architecture, arch_args=card.arguments).model_dump(),
        "command": card.provenance.command,
        "labels": list(card.labels),
        "model": load_explained(bundle).classifier.state_dict(),
    }


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A path to write to, which takes its place only when the writing has succeeded."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
