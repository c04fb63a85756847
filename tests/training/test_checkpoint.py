from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from konkyo.errors import BundleError
from konkyo.models.bundle import Bundle
from konkyo.training.checkpoint import load, load_origin, save
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


class TestOrigin:
    """A run may begin with a checkpoint or with a bundle."""

    @pytest.mark.parametrize("arch", ["abn", "multiscale-abn"])
    def test_a_bundle_is_the_checkpoint_it_was_exported_from(
        self, trained: Callable[[str], tuple[Path, Bundle]], arch: str
    ) -> None:
        path, bundle = trained(arch)
        ours, theirs = load_origin(bundle.path), load_origin(path)
        assert theirs.keys() == load(path).keys()
        assert ours.keys() == {"config", "command", "labels", "model"}
        for key in ("arch", "arch_args"):
            assert ours["config"][key] == theirs["config"][key]
        assert (ours["command"], ours["labels"]) == (theirs["command"], theirs["labels"])
        assert ours["command"] == f"konkyo train --arch {arch}"
        assert ours["model"].keys() == theirs["model"].keys()
        for name, tensor in theirs["model"].items():
            assert ours["model"][name].dtype == tensor.dtype
            assert torch.equal(ours["model"][name], tensor), name

    @pytest.mark.parametrize("content", [None, b"", b"other"])
    def test_a_damaged_bundle_is_refused(
        self, trained: Callable[[str], tuple[Path, Bundle]], tmp_path: Path, content: bytes | None
    ) -> None:
        weights = Path(shutil.copytree(trained("abn")[1].path, tmp_path / "1")) / "weights.safetensors"
        size = weights.stat().st_size
        weights.write_bytes(b"?" * size if content is None else content)
        reason = "altered" if content is None else f"truncated: {len(content)} of {size} bytes"
        with pytest.raises(BundleError, match=rf"weights\.safetensors: {reason}"):
            load_origin(tmp_path / "1")

    def test_a_folder_without_a_card_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(BundleError, match=r"card\.json: cannot be read"):
            load_origin(tmp_path)

    def test_neither_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="none: there is no checkpoint here"):
            load_origin(tmp_path / "none")
