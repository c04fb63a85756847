"""One run on two devices, as torchrun starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from konkyo.models.classifier import Classifier
from konkyo.models.registry import build
from konkyo.training import checkpoint
from konkyo.training.data import ImageData, Images
from konkyo.training.folder import load_folder

SCRIPT = str(Path(__file__).with_name("on_devices.py"))
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
SETTINGS = (
    "--data bars --image-size 16 --epochs 2 --batch-size 8 --lr 0.02 --precision 32-true --accelerator cpu"
)


@pytest.fixture
def folder(data: ImageData, tmp_path: Path) -> Path:
    """90 and 80 images, of which 17 validate: two batches of 8 on one device, one on the other."""
    for images, offset in ((data.train, 0), (data.val, 1000)):
        for number, (pixels, label) in enumerate(zip(images.pixels, images.labels, strict=True)):
            path = tmp_path / "bars" / data.labels[label] / f"{offset + number:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    for path in [*sorted(tmp_path.glob("bars/lying/*"))[90:], *sorted(tmp_path.glob("bars/standing/*"))[80:]]:
        path.unlink()
    return tmp_path / "bars"


def _train(folder: Path, *launcher: str, arch: str, more: Sequence[str] = ()) -> tuple[Path, str]:
    """The folder of the run and what was printed."""
    out = folder.with_name("two" if launcher else "one")
    given = [*SETTINGS.split(), "--arch", arch, *more, "--out", str(out)]
    done = subprocess.run(
        [sys.executable, *launcher, SCRIPT, "train", *given],
        cwd=folder.parent,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_the_weights_are_those_of_one_device(folder: Path) -> None:
    """Exact but for rounding, because this network has no batch norm."""
    one, _ = _train(folder, arch="plain")
    two, printed = _train(folder, *TORCHRUN, arch="plain")
    alone, shared = (checkpoint.load(run / "last.ckpt") for run in (one, two))
    for ours, theirs in zip(alone["history"], shared["history"], strict=True):
        del ours["seconds"], theirs["seconds"]
        assert ours.pop("val_attention") is theirs.pop("val_attention") is None
        assert theirs == pytest.approx(ours, rel=1e-4)
    for name, weight in alone["model"].items():
        torch.testing.assert_close(shared["model"][name], weight, rtol=1e-3, atol=1e-5)
    assert sorted(path.name for path in two.iterdir()) == sorted(path.name for path in one.iterdir())
    assert (two / "split.json").read_text() == (one / "split.json").read_text()
    assert printed.count("epoch   2/2") == 1  # by the first device alone


def test_validation_is_that_of_the_saved_weights(folder: Path) -> None:
    """Batch norm's buffers differ from device to device; what was validated must be what was saved."""
    two, _ = _train(folder, *TORCHRUN, arch="cnn")
    state = checkpoint.load(two / "last.ckpt")
    val: Images = load_folder(folder, image_size=16).val
    assert len(val) == 17
    model = Classifier(build("cnn", 2))
    model.load_state_dict(state["model"])
    with torch.no_grad():
        logits = model.eval()(torch.from_numpy(val.pixels))
    last = state["history"][-1]
    assert last["val_loss"] == pytest.approx(
        F.cross_entropy(logits, torch.from_numpy(val.labels)).item(), rel=1e-4
    )
    assert last["val_accuracy"] == pytest.approx(np.mean(logits.argmax(dim=1).numpy() == val.labels))


def test_attention_mining_whose_losses_leave_parameters_out(folder: Path) -> None:
    """Prototypes without a loss of theirs, and a step on the complement entropy, without class outputs."""
    for path in [*sorted(folder.glob("lying/*"))[20:], *sorted(folder.glob("standing/*"))[20:]]:
        path.unlink()
    more = ["--arch-arg", 'last_stage="layer2"', "--epochs", "1", "--complement"]
    two, _ = _train(folder, *TORCHRUN, arch="amb", more=more)
    state = checkpoint.load(two / "last.ckpt")
    assert [line["epoch"] for line in state["history"]] == [1]
    assert all(tensor.isfinite().all() for tensor in state["model"].values())
