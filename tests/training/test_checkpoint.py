from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from konkyo.training.checkpoint import load, save
from konkyo.training.errors import CheckpointError

STATE = {"config": {}, "command": "", "labels": [], "model": {}, "history": [], "samples": torch.zeros(1)}


class Harmful:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return Path, (str(self.path),)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    save(path, STATE | {"model": {"weight": torch.arange(3.0)}})
    assert load(path)["model"]["weight"].tolist() == [0.0, 1.0, 2.0]
    assert list(torch.load(path, weights_only=True)) == list(STATE)


def test_an_interrupted_save_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    save(path, STATE | {"command": "before"})
    with pytest.raises((AttributeError, pickle.PicklingError)):
        save(path, STATE | {"command": lambda: "cannot be written"})
    assert load(path)["command"] == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"a\.ckpt: there is no checkpoint here"):
        load(tmp_path / "a.ckpt")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_truncated(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.ckpt"
    save(path, STATE)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match=r"a\.ckpt: not a readable checkpoint"):
        load(path)


def test_something_else(tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_text("a letter")
    with pytest.raises(CheckpointError, match=r"a\.ckpt: not a readable checkpoint"):
        load(tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        load(tmp_path)


@pytest.mark.parametrize("missing", STATE)
def test_a_checkpoint_of_another_kind(tmp_path: Path, missing: str) -> None:
    path = tmp_path / "a.ckpt"
    save(path, {key: value for key, value in STATE.items() if key != missing})
    with pytest.raises(CheckpointError, match=r"a\.ckpt: not a checkpoint of konkyo train"):
        load(path)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="not a checkpoint of konkyo train"):
        load(path)


def test_code_is_not_run_nor_recommended(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    torch.save(STATE | {"model": Harmful(tmp_path)}, path)
    with pytest.raises(CheckpointError, match="not a readable checkpoint") as caught:
        load(path)
    assert "weights_only" not in str(caught.value)
