"""Whole runs on a set that can be learned in seconds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from konkyo.models import registry
from konkyo.models.attention import AttentionNetwork
from konkyo.models.bundle import Bundle
from konkyo.models.classifier import Classifier
from konkyo.training import checkpoint
from konkyo.training.config import TrainConfig
from konkyo.training.curves import save_curves
from konkyo.training.data import NO_MASK, ImageData, Images
from konkyo.training.errors import CheckpointError, TrainingError
from konkyo.training.folder import load_folder
from konkyo.training.loop import Epoch, fit

Configure = Callable[..., TrainConfig]
Trained = tuple[Path, Bundle]


class Untouchable(Images):
    """A split of one image that nobody may look at."""

    def __init__(self) -> None:
        pass

    def __len__(self) -> int:
        return 1

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"the test split was asked for its {name}")


class PowerCut(Exception):
    """Ends a run where it stands."""


class Failing(Images):
    """A split that fails after ``reads`` reads."""

    reads: int

    @classmethod
    def after(cls, reads: int, images: Images) -> Failing:
        failing = cls(images.pixels, images.labels, images.masks)
        object.__setattr__(failing, "reads", reads)
        return failing

    def take(self, index: np.ndarray) -> Images:
        if not self.reads:
            raise PowerCut
        object.__setattr__(self, "reads", self.reads - 1)
        return super().take(index)


def _history(path: Path) -> list[dict[str, float]]:
    history: list[dict[str, float]] = checkpoint.load(path)["history"]
    return history


def _flat(value: Any) -> list[Any]:
    """Leaves of a checkpoint, in order, tensors as bytes; seconds differ from run to run."""
    if isinstance(value, dict):
        return [leaf for key, item in value.items() if key != "seconds" for leaf in (key, *_flat(item))]
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in _flat(item)]
    return [value.numpy().tobytes() if isinstance(value, Tensor) else value]


@pytest.mark.parametrize(
    ("arch", "arguments", "schedule"),
    [
        ("gcm", {"encoder": [[8, 1], [8, 2]], "decoder": [[8, 2]]}, "one-cycle"),
        ("cnn", {"layers": [[8, 1], [8, 2]]}, "cosine"),
    ],
)
def test_learns(
    data: ImageData,
    configure: Configure,
    tmp_path: Path,
    arch: str,
    arguments: dict[str, Any],
    schedule: str,
) -> None:
    config = configure(arch=arch, arch_args=arguments, schedule=schedule, epochs=6, lr=0.05)
    best = fit(config, data, tmp_path)
    history = _history(tmp_path / "last.ckpt")
    assert best == tmp_path / "best.ckpt"
    assert [line["epoch"] for line in history] == list(range(1, 7))
    assert history[-1]["train_loss"] < 0.5 * history[0]["train_loss"]
    assert max(line["val_accuracy"] for line in history) > 0.9
    assert all(line["seconds"] > 0 for line in history)


def test_history_tells_what_the_weights_do(data: ImageData, configure: Configure, tmp_path: Path) -> None:
    """The last line's validation figures, worked out again from the checkpoint alone."""
    fit(configure(), data, tmp_path)
    state = checkpoint.load(tmp_path / "last.ckpt")
    model = Classifier(registry.build("gcm", 2, **state["config"]["arch_args"]))
    model.load_state_dict(state["model"])
    with torch.no_grad():
        logits = model.eval()(torch.from_numpy(data.val.pixels))
    labels = torch.from_numpy(data.val.labels)
    assert state["history"][-1]["val_accuracy"] == pytest.approx(
        (logits.argmax(dim=1) == labels).float().mean().item()
    )
    chosen = logits.log_softmax(dim=1)[torch.arange(len(labels)), labels]
    assert state["history"][-1]["val_loss"] == pytest.approx(-chosen.mean().item(), rel=1e-5)


def test_best_is_the_last_epoch_of_the_highest_validation_accuracy(
    data: ImageData, configure: Configure, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 2, len(data.val))  # accuracies that go up and down
    data = replace(data, val=Images(data.val.pixels, noise))
    best = fit(configure(epochs=5, lr=0.3), data, tmp_path)
    accuracies = [line["val_accuracy"] for line in _history(tmp_path / "last.ckpt")]
    assert len(set(accuracies)) > 1
    expected = max(range(5), key=lambda epoch: (accuracies[epoch], epoch))
    assert len(_history(best)) == expected + 1


class Linear(nn.Module):
    """One layer: with labels that are noise its answers change from epoch to epoch."""

    centred: ClassVar[bool] = True
    explanation: ClassVar[str] = "none"
    stride = 1

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(16 * 16 * 3, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.layer(image.flatten(1))
        return logits


class TestSelectBy:
    @pytest.fixture
    def noise(self, data: ImageData, monkeypatch: pytest.MonkeyPatch) -> ImageData:
        """Three classes, uneven, and nothing to tell them by."""
        monkeypatch.setitem(registry._NETWORKS._known, "linear", Linear)
        generator = np.random.default_rng(60)
        train = Images(data.train.pixels[:64], generator.integers(0, 3, 64))
        val = Images(data.val.pixels[:24], generator.choice(3, 24, p=[0.6, 0.3, 0.1]))
        return ImageData("noise", ("a", "b", "c"), train, val, data.test)

    @pytest.mark.parametrize(
        ("select_by", "measure"),
        [("balanced-accuracy", "val_balanced_accuracy"), ("kappa", "val_kappa"), ("last", "epoch")],
    )
    def test_the_best_epoch_is_the_last_of_the_highest(
        self, noise: ImageData, configure: Configure, tmp_path: Path, select_by: str, measure: str
    ) -> None:
        best = fit(configure(arch="linear", epochs=4, lr=0.02, select_by=select_by), noise, tmp_path)
        history = _history(tmp_path / "last.ckpt")

        def highest(measure: str) -> int:
            return max(range(4), key=lambda epoch: (history[epoch][measure], epoch))

        assert highest(measure) != highest("val_accuracy")
        assert len(_history(best)) == highest(measure) + 1

    def test_both_measures_are_those_of_the_weights(
        self, noise: ImageData, configure: Configure, tmp_path: Path
    ) -> None:
        """From the definitions: the mean recall, and 1 less the squared errors over those of chance."""
        state = checkpoint.load(fit(configure(arch="linear", lr=0.02, select_by="last"), noise, tmp_path))
        model = Classifier(Linear(3))
        model.load_state_dict(state["model"])
        with torch.no_grad():
            found = model(torch.from_numpy(noise.val.pixels)).argmax(dim=1).numpy()
        labels = noise.val.labels
        recalls = [(found[labels == label] == label).mean() for label in range(3)]
        chance = np.mean([(label - other) ** 2 for label in labels for other in found])
        line = state["history"][-1]
        assert line["val_balanced_accuracy"] == pytest.approx(np.mean(recalls))
        assert line["val_kappa"] == pytest.approx(1 - np.mean((labels - found) ** 2) / chance)

    def test_a_kappa_that_cannot_be_said_is_below_every_other(self) -> None:
        lines = [
            Epoch(1, 1.0, 0.5, 1.0, 0.5, 0.1, 1.0, val_kappa=kappa) for kappa in (math.nan, None, -1.0, 0.5)
        ]
        assert [line.score("kappa") for line in lines] == [-math.inf, -math.inf, -1.0, 0.5]


class TestAttention:
    """Networks with attention, on images with masks."""

    @pytest.mark.parametrize("arch", ["abn", "multiscale-abn"])
    def test_learns(self, marked: ImageData, configure: Configure, tmp_path: Path, arch: str) -> None:
        config = configure(arch=arch, epochs=6, batch_size=8, optimizer="adamw", lr=0.01, map_weight=[0.5])
        fit(config, marked, tmp_path)
        history = _history(tmp_path / "last.ckpt")
        assert history[-1]["train_loss"] < 0.7 * history[0]["train_loss"]
        assert max(line["val_accuracy"] for line in history) > 0.9

    def test_mining_resumes_as_if_it_had_never_stopped(
        self, marked: ImageData, configure: Configure, tmp_path: Path
    ) -> None:
        """After the last plain epoch, with two of mining to go."""
        config = configure(
            arch="amb", epochs=3, pretrain_epochs=1, complement=True, prototype_weight=0.1, lr=0.02
        )
        fit(config, marked, tmp_path / "whole")
        with pytest.raises(PowerCut):
            fit(config, replace(marked, val=Failing.after(1, marked.val)), tmp_path / "parts")
        assert len(_history(tmp_path / "parts" / "last.ckpt")) == 1
        fit(config, marked, tmp_path / "parts", resume=True)
        for name in ("last.ckpt", "best.ckpt"):
            whole, parts = (checkpoint.load(tmp_path / run / name) for run in ("whole", "parts"))
            assert _flat(parts) == _flat(whole)

    def test_the_epochs_before_mining_are_those_of_a_plain_abn(
        self, marked: ImageData, configure: Configure, tmp_path: Path
    ) -> None:
        """To the byte: as if all that mining adds had no weight."""
        runs: dict[str, dict[str, Any]] = {
            "before": {"pretrain_epochs": 2, "prototype_weight": 0.1, "complement": True},
            "within": {"pretrain_epochs": 1, "prototype_weight": 0.1, "complement": True},
            "plain": {"mining_weight": 0.0},
        }
        models = {
            name: checkpoint.load(fit(configure(arch="amb", lr=0.02, **more), marked, tmp_path / name))[
                "model"
            ]
            for name, more in runs.items()
        }
        names = [name for name in models["plain"] if "prototypes" not in name]
        before, within, plain = (_flat({name: model[name] for name in names}) for model in models.values())
        assert before == plain
        assert within != plain

    def test_the_attention_inside_is_that_of_the_weights(
        self, marked: ImageData, configure: Configure, tmp_path: Path
    ) -> None:
        """The mean over the images that have a defect and a mask, worked out from the checkpoint alone."""
        assert marked.val.masks is not None
        masks = marked.val.masks.copy()
        masks[:3], masks[3:6] = NO_MASK, 0
        masked = replace(marked, val=replace(marked.val, masks=masks))
        config = configure(arch="abn", optimizer="adamw", lr=0.003)
        state = checkpoint.load(fit(config, masked, tmp_path))
        network = registry.build("abn", 2, **config.arch_args)
        assert isinstance(network, AttentionNetwork)
        model = Classifier(network)
        model.load_state_dict(state["model"])
        model.eval()
        with torch.no_grad():
            maps = network.attend(model.normalise(torch.from_numpy(marked.val.pixels)))[1][:, 0].numpy()
        shares = [(item * mask).sum() / item.sum() for item, mask in zip(maps[6:], masks[6:], strict=True)]
        assert len(set(np.round(shares, 4))) > 5
        assert state["history"][-1]["val_attention"] == pytest.approx(np.mean(shares), rel=1e-5)

    @pytest.mark.parametrize("arch", ["abn", "gcm"])
    def test_without_masks_or_without_maps_there_is_no_attention_to_measure(
        self, data: ImageData, marked: ImageData, configure: Configure, tmp_path: Path, arch: str
    ) -> None:
        images = marked if arch == "gcm" else replace(data, train=data.train.take(np.arange(16)))
        fit(configure(arch=arch, epochs=1), images, tmp_path)
        assert [line["val_attention"] for line in _history(tmp_path / "last.ckpt")] == [None]

    def test_images_without_a_defect_have_no_attention_inside_it(
        self, marked: ImageData, configure: Configure, tmp_path: Path
    ) -> None:
        assert marked.val.masks is not None
        blank = replace(marked.val, masks=np.zeros_like(marked.val.masks))
        fit(configure(arch="abn", epochs=1), replace(marked, val=blank), tmp_path)
        assert _history(tmp_path / "last.ckpt")[0]["val_attention"] is None


def test_the_test_split_is_never_looked_at(data: ImageData, configure: Configure, tmp_path: Path) -> None:
    untouched = Untouchable()
    with pytest.raises(AssertionError, match="asked for its pixels"):
        _ = untouched.pixels
    fit(configure(), replace(data, test=untouched), tmp_path)


def test_a_checkpoint_holds_what_export_needs(data: ImageData, configure: Configure, tmp_path: Path) -> None:
    config = configure(epochs=1)
    state = checkpoint.load(fit(config, data, tmp_path, command="konkyo train --now"))
    assert list(state) == [
        "config", "command", "labels", "data", "model", "optimizer", "scheduler", "history", "samples",
    ]  # fmt: skip
    assert TrainConfig(**state["config"]) == config
    assert state["command"] == "konkyo train --now"
    assert state["labels"] == ["lying", "standing"]
    assert state["data"] == {
        "name": "bars", "licence": "not stated", "citation": None, "skipped": 0,
    }  # fmt: skip
    assert np.array_equal(state["samples"].numpy(), data.val.pixels)


def test_samples_are_spread_over_the_validation_split(
    data: ImageData, configure: Configure, tmp_path: Path
) -> None:
    samples = checkpoint.load(fit(configure(epochs=1), replace(data, val=data.train), tmp_path))["samples"]
    assert samples.shape == (checkpoint.SAMPLES, 16, 16, 3)
    assert np.array_equal(samples[0].numpy(), data.train.pixels[0])
    assert np.array_equal(samples[-1].numpy(), data.train.pixels[-1])


def test_the_seed_decides(data: ImageData, configure: Configure, tmp_path: Path) -> None:
    runs = {
        name: _flat(checkpoint.load(fit(configure(seed=seed, epochs=1), data, tmp_path / name))["model"])
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    }
    assert runs["first"] == runs["again"]
    assert runs["first"] != runs["other"]


class Dropping(nn.Module):
    """A network that draws random numbers as it trains."""

    centred: ClassVar[bool] = True
    explanation: ClassVar[str] = "none"
    stride = 1

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1)
        )
        self.head = nn.Linear(8, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(self.layers(image).flatten(1))
        return logits


class TestResume:
    @pytest.mark.parametrize("schedule", ["one-cycle", "cosine"])
    @pytest.mark.parametrize(
        "reads", [1, 5]
    )  # stopped in the first validation batch, in the last epoch but one
    def test_is_as_if_the_run_had_never_stopped(
        self,
        data: ImageData,
        configure: Configure,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        schedule: str,
        reads: int,
    ) -> None:
        monkeypatch.setitem(registry._NETWORKS._known, "dropping", Dropping)
        config = configure(arch="dropping", arch_args={}, epochs=3, schedule=schedule)
        fit(config, data, tmp_path / "whole")
        per_epoch = math.ceil(len(data.val) / config.batch_size)
        cut = replace(data, val=Failing.after(per_epoch + reads, data.val))
        with pytest.raises(PowerCut):
            fit(config, cut, tmp_path / "parts")
        assert len(_history(tmp_path / "parts" / "last.ckpt")) == 1 + reads // per_epoch
        torch.rand(7)  # whatever else the process has drawn in between
        fit(config, data, tmp_path / "parts", resume=True)
        for name in ("last.ckpt", "best.ckpt"):
            whole, parts = (checkpoint.load(tmp_path / run / name) for run in ("whole", "parts"))
            assert _flat(parts) == _flat(whole)

    def test_of_a_complete_run_changes_nothing(
        self, data: ImageData, configure: Configure, tmp_path: Path
    ) -> None:
        fit(configure(), data, tmp_path)
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        assert fit(configure(), data, tmp_path, resume=True) == tmp_path / "best.ckpt"
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    def test_without_a_checkpoint(self, data: ImageData, configure: Configure, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"last\.ckpt: there is no checkpoint here"):
            fit(configure(), data, tmp_path / "none", resume=True)
        assert not (tmp_path / "none").exists()

    def test_with_other_settings_names_them(
        self, data: ImageData, configure: Configure, tmp_path: Path
    ) -> None:
        fit(configure(epochs=1), data, tmp_path)
        with pytest.raises(CheckpointError, match=r"differs in: flip, lr$"):
            fit(configure(epochs=1, lr=0.2, flip=False), data, tmp_path, resume=True)

    def test_with_other_classes(self, data: ImageData, configure: Configure, tmp_path: Path) -> None:
        fit(configure(epochs=1), data, tmp_path)
        with pytest.raises(CheckpointError, match=r"differs in: labels$"):
            fit(configure(epochs=1), replace(data, labels=("x", "y")), tmp_path, resume=True)

    def test_on_other_devices_is_allowed(self, data: ImageData, configure: Configure, tmp_path: Path) -> None:
        fit(configure(epochs=1), data, tmp_path)
        fit(configure(epochs=1, devices=1, data_root="moved"), data, tmp_path, resume=True)

    @pytest.mark.parametrize("part", ["optimizer", "model"])
    def test_of_a_checkpoint_that_lacks_something(
        self, data: ImageData, configure: Configure, tmp_path: Path, part: str
    ) -> None:
        last = tmp_path / "last.ckpt"
        fit(configure(epochs=1), data, tmp_path)
        state = checkpoint.load(last)
        if part == "model":
            state["model"].popitem()
        else:
            del state["optimizer"]
        checkpoint.save(last, state)
        message = "does not fit the network" if part == "model" else "cannot be resumed; it lacks: optimizer"
        with pytest.raises(CheckpointError, match=message):
            fit(configure(epochs=1), data, tmp_path, resume=True)


class TestSplitOfFiles:
    @pytest.fixture
    def folder(self, data: ImageData, tmp_path: Path) -> Path:
        for number, (pixels, label) in enumerate(zip(data.train.pixels, data.train.labels, strict=True)):
            path = tmp_path / "bars" / data.labels[label] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
        return tmp_path / "bars"

    def test_is_written_down(self, folder: Path, configure: Configure, tmp_path: Path) -> None:
        (folder / "lying" / "empty.png").touch()
        files = load_folder(folder, image_size=16, skip_broken=True)
        fit(configure(epochs=1), files, tmp_path / "run")
        split = json.loads((tmp_path / "run" / "split.json").read_text())
        assert split["skipped"] == ["lying/empty.png"]
        listed = [folder / name for names in split.values() for name in names]
        assert sorted(listed) == sorted(folder.glob("*/*.png"))
        assert checkpoint.load(tmp_path / "run" / "last.ckpt")["data"]["skipped"] == 1

    def test_must_be_the_same_to_resume(self, folder: Path, configure: Configure, tmp_path: Path) -> None:
        config = configure(epochs=1)
        fit(config, load_folder(folder, image_size=16), tmp_path / "run")
        fit(config, load_folder(folder, image_size=16), tmp_path / "run", resume=True)
        next(folder.glob("lying/*.png")).unlink()
        with pytest.raises(CheckpointError, match="the images of bars are not those the run began with"):
            fit(config, load_folder(folder, image_size=16), tmp_path / "run", resume=True)

    def test_must_be_there_to_resume(self, folder: Path, configure: Configure, tmp_path: Path) -> None:
        files = load_folder(folder, image_size=16)
        fit(configure(epochs=1), files, tmp_path / "run")
        (tmp_path / "run" / "split.json").unlink()
        with pytest.raises(CheckpointError, match=r"split\.json: the split of the run .* cannot be read"):
            fit(configure(epochs=1), files, tmp_path / "run", resume=True)

    def test_is_not_written_for_data_without_files(
        self, data: ImageData, configure: Configure, tmp_path: Path
    ) -> None:
        fit(configure(epochs=1), data, tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["best.ckpt", "curves.png", "last.ckpt"]


class TestInit:
    def test_goes_on_from_the_weights_of_another_run(
        self, data: ImageData, configure: Configure, tmp_path: Path
    ) -> None:
        first = fit(configure(epochs=2), data, tmp_path / "a", command="first")
        # With a rate this small the weights stay where they began; batch norm's averages move.
        again = fit(configure(epochs=1, init=str(first), lr=1e-12), data, tmp_path / "b", command="second")
        before, after = checkpoint.load(first), checkpoint.load(again)
        for name in ("network.class_layer.weight", "network.encoder.0.0.weight"):
            assert torch.allclose(before["model"][name], after["model"][name], atol=1e-9)
        assert after["command"] == "first && second"
        assert len(after["history"]) == 1

    def test_a_bundle_does_as_well_as_the_checkpoint_it_was_exported_from(
        self, marked: ImageData, configure: Configure, trained: Callable[[str], Trained], tmp_path: Path
    ) -> None:
        best, bundle = trained("multiscale-abn")
        states = [
            checkpoint.load(
                fit(configure(arch="multiscale-abn", epochs=1, init=str(path)), marked, tmp_path / name)
            )
            for name, path in (("checkpoint", best), ("bundle", bundle.path))
        ]
        assert _flat(states[0]["model"]) == _flat(states[1]["model"])
        assert states[0]["command"] == states[1]["command"]

    def test_a_resumed_run_keeps_the_command_it_began_with(
        self, data: ImageData, configure: Configure, tmp_path: Path
    ) -> None:
        first = fit(configure(epochs=1), data, tmp_path / "a", command="first")
        config = configure(epochs=2, init=str(first))
        with pytest.raises(PowerCut):
            fit(config, replace(data, val=Failing.after(3, data.val)), tmp_path / "b", command="second")
        first.unlink()
        best = fit(config, data, tmp_path / "b", resume=True, command="third")
        assert checkpoint.load(best)["command"] == "first && second"

    def test_teachers_are_learned_from_and_named(
        self, data: ImageData, configure: Configure, tmp_path: Path
    ) -> None:
        teacher = fit(configure(epochs=4), data, tmp_path / "a", command="first")
        # With nothing but the teacher in the loss the labels may be wrong: it is the teacher that counts.
        flipped = replace(data, train=Images(data.train.pixels, 1 - data.train.labels))
        config = configure(epochs=4, teacher=[str(teacher)], teacher_share=1.0)
        state = checkpoint.load(fit(config, flipped, tmp_path / "b", command="second"))
        assert max(line["val_accuracy"] for line in state["history"]) > 0.9
        assert state["command"] == "first && second"
        assert _flat(checkpoint.load(teacher)["model"]) != _flat(state["model"])

    def test_other_classes_and_networks_are_refused(
        self, data: ImageData, configure: Configure, tmp_path: Path
    ) -> None:
        first = fit(configure(epochs=1), data, tmp_path / "a")
        renamed = replace(data, labels=("this", *data.labels[1:]))
        with pytest.raises(CheckpointError, match="classes are not those of the data"):
            fit(configure(epochs=1, init=str(first)), renamed, tmp_path / "b")
        with pytest.raises(CheckpointError, match="do not fit the network"):
            fit(configure(epochs=1, init=str(first), arch="cnn", arch_args={}), data, tmp_path / "c")


def test_a_batch_larger_than_the_data_is_the_data(
    data: ImageData, configure: Configure, tmp_path: Path
) -> None:
    large = checkpoint.load(fit(configure(batch_size=4096), data, tmp_path / "large"))
    exact = checkpoint.load(fit(configure(batch_size=len(data.train)), data, tmp_path / "exact"))
    assert _flat(large["model"]) == _flat(exact["model"])
    assert large["scheduler"]["total_steps"] == 2 + 1


def test_bfloat16(data: ImageData, configure: Configure, tmp_path: Path) -> None:
    fit(configure(precision="bf16-mixed", epochs=4, lr=0.05), data, tmp_path)
    state = checkpoint.load(tmp_path / "last.ckpt")
    assert state["history"][-1]["train_loss"] < state["history"][0]["train_loss"]
    dtypes = {value.dtype for name, value in state["model"].items() if not name.endswith("batches_tracked")}
    assert dtypes == {torch.float32}


def test_curves_are_a_picture(data: ImageData, configure: Configure, tmp_path: Path) -> None:
    fit(configure(), data, tmp_path)
    with Image.open(tmp_path / "curves.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    assert image.size == (1200, 480)
    for half in np.split(pixels, 2, axis=1):
        assert len(np.unique(half.reshape(-1, 3), axis=0)) > 50
        assert 0.02 < (half < 250).any(axis=-1).mean() < 0.5  # lines and letters on white
        assert (np.ptp(half.astype(int), axis=-1) > 100).any()  # some of them in colour


def test_curves_move_with_the_numbers(tmp_path: Path) -> None:
    pictures = []
    for loss in (1.0, 1.0, 0.2):
        lines = [Epoch(1, 1.5, 0.4, 1.6, 0.3, 0.1, 1.0), Epoch(2, loss, 0.6, 1.2, 0.5, 0.1, 1.0)]
        save_curves(lines, tmp_path / "curves.png")
        pictures.append((tmp_path / "curves.png").read_bytes())
    assert pictures[0] == pictures[1]
    assert pictures[0] != pictures[2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"arch": "gmc"}, r"^unknown network 'gmc'; there are: .*\bgcm\b"),
        ({"arch_args": {"depth": 3}}, "unexpected keyword argument 'depth'"),
        ({"arch_args": {"encoder": [[8, 3]], "decoder": [[8, 2]]}}, "divides by 3 but the decoder"),
        ({"arch_args": {"encoder": [[8, 3]], "decoder": [[8, 3]]}}, "multiples of 3, not 16x16"),
        ({"crop_padding": 16}, "crop_padding 16 must be smaller than the image sides, 16"),
        ({"lr": 1e30}, "epoch 1: the loss is (nan|inf); try a smaller lr"),
    ],
)
def test_what_cannot_be_trained_is_said(
    data: ImageData, configure: Configure, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        fit(configure(**settings), data, tmp_path)
    assert list(tmp_path.glob("*.ckpt")) == []
