"""Fine-tuning with an expert's maps: who is asked, what learns, and what stays as it is to the byte."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner, Result

import konkyo
from konkyo.cli import app
from konkyo.evaluation.attention import map_error
from konkyo.models.attention import AttentionNetwork
from konkyo.models.bundle import Bundle
from konkyo.models.classifier import Classifier
from konkyo.models.loading import load_explained
from konkyo.models.registry import build
from konkyo.training import checkpoint
from konkyo.training.config import Selection, TrainConfig
from konkyo.training.data import NO_MASK, ImageData, Images
from konkyo.training.errors import TrainingError
from konkyo.training.finetune import ask_expert, finetune_config
from konkyo.training.loop import fit

Configure = Callable[..., TrainConfig]
Trained = tuple[Path, Bundle]

CPU = {"batch_size": 8, "precision": "32-true", "accelerator": "cpu"}


class Painted(nn.Module):
    """Its map is what is painted red on 2x2 pixels, its confidence rises with the green."""

    num_classes = 2
    scales = 1

    def attend(self, image: Tensor, attention: Tensor | None = None) -> tuple[Tensor, Tensor]:
        assert attention is None
        confidence = image[:, 1].mean(dim=(1, 2))
        return torch.stack([-confidence, confidence], dim=1), image[:, :1]

    def outputs(self, image: Tensor) -> Any:
        raise AssertionError("the expert is not asked by the losses")

    def extractor(self) -> list[nn.Module]:
        return []


def _painted(
    reds: list[list[int]], greens: list[float], masks: list[list[int]], labels: list[int] | None = None
) -> ImageData:
    """Images of 2x2 pixels, written as rows of 4."""
    count = len(reds)
    pixels = np.zeros((count, 2, 2, 3), np.uint8)
    pixels[..., 0] = 255 * np.array(reds).reshape(count, 2, 2)
    pixels[..., 1] = np.array(greens)[:, None, None]
    given = np.array(labels or [0] * count, np.int64)
    images = Images(pixels, given, np.array(masks, np.uint8).reshape(count, 2, 2))
    return ImageData("painted", ("a", "b"), images, images, images)


UNKNOWN = [NO_MASK] * 4
SIX = _painted(
    # by row: maps that are off by 0, not asked, 1/2, 1, not asked, 3/4
    reds=[[1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1], [0, 0, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]],
    greens=[10, 0, 200, 100, 0, 255],
    masks=[[1, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], UNKNOWN, [0, 0, 1, 0]],
    labels=[0, 1, 0, 1, 0, 1],
)


class TestAskExpert:
    @pytest.mark.parametrize(
        ("by", "share", "asked"),
        [
            ("confidence", 0.25, [0]),
            ("confidence", 0.5, [0, 3]),
            ("confidence", 0.75, [0, 3, 2]),
            ("confidence", 1.0, [0, 3, 2, 5]),
            ("map-error", 0.25, [3]),
            ("map-error", 0.3, [3, 5]),  # of 4 images that can be asked about, 1.2
            ("map-error", 0.75, [3, 5, 2]),
            ("map-error", 1.0, [3, 5, 2, 0]),
        ],
    )
    def test_keeps_the_maps_of_these_and_no_others(
        self, by: Selection, share: float, asked: list[int]
    ) -> None:
        found = ask_expert(SIX, Classifier(Painted()), by, share)
        assert SIX.train.masks is not None
        expected = np.full_like(SIX.train.masks, NO_MASK)
        expected[asked] = SIX.train.masks[asked]
        assert found.train.masks is not None
        assert found.train.masks.tolist() == expected.tolist()

    def test_changes_nothing_else(self) -> None:
        before = cast(np.ndarray, SIX.train.masks).copy()
        found = ask_expert(SIX, Classifier(Painted()), "map-error", 0.25)
        assert found.train.labels.tolist() == [0, 1, 0, 1, 0, 1]
        assert np.array_equal(found.train.pixels, SIX.train.pixels)
        assert (found.val, found.test, found.labels, found.name) == (SIX.val, SIX.test, SIX.labels, SIX.name)
        assert np.array_equal(cast(np.ndarray, SIX.train.masks), before)

    def test_what_it_is_sure_of_may_be_wrong(self) -> None:
        """Confidence is that of the answer, not of the label."""
        flipped = replace(SIX, train=replace(SIX.train, labels=1 - SIX.train.labels))
        for data in (SIX, flipped):
            found = ask_expert(data, Classifier(Painted()), "confidence", 0.5)
            marked = (cast(np.ndarray, found.train.masks) == 1).any(axis=(1, 2))
            assert np.flatnonzero(marked).tolist() == [0, 3]

    @pytest.mark.parametrize("by", ["confidence", "map-error"])
    def test_looks_at_more_images_than_fit_a_batch(self, by: Selection) -> None:
        generator = np.random.default_rng(0)
        reds, masks = generator.integers(0, 2, (2, 150, 4)).tolist()
        greens = generator.permutation(150).tolist()
        data = _painted(reds, greens, masks)
        candidates = [number for number in range(150) if any(masks[number])]

        def key(number: int) -> tuple[float, int]:
            error = sum(red != cell for red, cell in zip(reds[number], masks[number], strict=True))
            return (greens[number] if by == "confidence" else -error, number)

        expected = sorted(candidates, key=key)[: -(-len(candidates) // 5)]
        found = cast(np.ndarray, ask_expert(data, Classifier(Painted()), by, 0.2).train.masks)
        assert np.flatnonzero(found[:, 0, 0] != NO_MASK).tolist() == sorted(expected)

    @pytest.mark.parametrize("masks", [None, 0, NO_MASK])
    def test_there_must_be_something_to_point_at(self, masks: int | None) -> None:
        given = None if masks is None else np.full((6, 2, 2), masks, np.uint8)
        images = replace(SIX.train, masks=given)
        with pytest.raises(TrainingError, match=r"^painted has no expert's map of any training image"):
            ask_expert(replace(SIX, train=images, val=images), Classifier(Painted()), "confidence", 1.0)

    @pytest.mark.parametrize("share", [0.0, 1.5])
    def test_a_share_that_is_none_is_refused(self, share: float) -> None:
        with pytest.raises(TrainingError, match=r"lies in \(0, 1\]"):
            ask_expert(SIX, Classifier(Painted()), "map-error", share)

    def test_a_network_without_a_map_is_refused(self, marked: ImageData) -> None:
        network = build("cnn", 2, layers=[[8, 1]])
        with pytest.raises(TrainingError, match=r"^CNN has no attention map to correct"):
            ask_expert(marked, Classifier(network).eval(), "map-error", 1.0)


class TestConfig:
    def test_the_network_and_its_input_are_those_of_the_card(self, trained: Callable[[str], Trained]) -> None:
        _, bundle = trained("multiscale-abn")
        settings = {"epochs": 7, "lr": 0.3, "arch": "abn", "image_size": 99}
        config = finetune_config(bundle, [0.5, 2.0], settings)
        assert (config.arch, config.arch_args) == ("multiscale-abn", bundle.card.arguments)
        assert (config.image_size, config.resize_mode) == (16, "squash")
        assert (config.init, config.freeze_extractor) == (str(bundle.path), True)
        assert config.map_weight == [0.5, 2.0]
        assert (config.epochs, config.lr) == (7, 0.3)

    def test_the_weight_has_no_default(self, trained: Callable[[str], Trained]) -> None:
        with pytest.raises(TrainingError, match="maps is needed: --lambda-map"):
            finetune_config(trained("abn")[1], [], {})

    def test_the_input_must_be_square(self, trained: Callable[[str], Trained]) -> None:
        _, bundle = trained("abn")
        wide = bundle.card.input.model_copy(update={"width": 32})
        bundle = replace(bundle, card=bundle.card.model_copy(update={"input": wide}))
        with pytest.raises(TrainingError, match=r"^bars takes 32x16 pixels, not a square"):
            finetune_config(bundle, [1.0], {})


@dataclass(frozen=True)
class Tuned:
    """A bundle, and the checkpoint of the run that went on from it."""

    bundle: Bundle
    data: ImageData
    state: dict[str, Any]

    def classifiers(self) -> tuple[Classifier, Classifier]:
        """Before and after."""
        before = load_explained(self.bundle).classifier
        after = Classifier(build(self.bundle.card.architecture, 2, **self.bundle.card.arguments))
        after.load_state_dict(self.state["model"])
        return before, after.eval()


def _bytes(module: nn.Module) -> dict[str, bytes]:
    """Every parameter and buffer."""
    return {name: tensor.contiguous().numpy().tobytes() for name, tensor in module.state_dict().items()}


def _assert_extractor_as_it_was(before: Classifier, after: Classifier) -> None:
    """To the byte, statistics and counters of the batch norms and all."""
    ours, theirs = (cast(AttentionNetwork, classifier.network).extractor() for classifier in (before, after))
    assert len(ours) == len(theirs) > 3
    found = [_bytes(module) for module in ours]
    names = [name for module in found for name in module]
    assert sum(name.endswith("num_batches_tracked") for name in names) >= 5
    assert sum(name.endswith("running_var") for name in names) >= 5
    assert [_bytes(module) for module in theirs] == found


@pytest.fixture(scope="module", params=["abn", "multiscale-abn"])
def tuned(
    request: pytest.FixtureRequest,
    trained: Callable[[str], Trained],
    marked: ImageData,
    tmp_path_factory: pytest.TempPathFactory,
) -> Tuned:
    """On fewer images, so that their statistics are others."""
    _, bundle = trained(request.param)
    fewer = replace(marked, train=marked.train.take(np.arange(24)))
    data = ask_expert(fewer, load_explained(bundle).classifier, "map-error", 0.5)
    settings = {**CPU, "epochs": 4, "optimizer": "adamw", "lr": 0.01, "select_by": "last", "flip": False}
    config = finetune_config(bundle, [5.0], {**settings, "crop_padding": 0})
    best = fit(config, data, tmp_path_factory.mktemp("tuned"), command="konkyo finetune")
    return Tuned(bundle, data, checkpoint.load(best))


class TestFineTuning:
    def test_leaves_every_byte_of_the_extractor_as_it_was(self, tuned: Tuned) -> None:
        before, after = tuned.classifiers()
        _assert_extractor_as_it_was(before, after)
        # The normalisation belongs to the extractor, though the images of this run have another mean.
        assert _bytes(after)["mean"] == _bytes(before)["mean"]
        assert _bytes(after)["std"] == _bytes(before)["std"]

    def test_changes_all_of_the_branches(self, tuned: Tuned) -> None:
        before, after = tuned.classifiers()
        frozen = {
            id(tensor)
            for module in cast(AttentionNetwork, before.network).extractor()
            for tensor in module.state_dict(keep_vars=True).values()
        }
        state = before.network.state_dict(keep_vars=True)
        branches = [name for name, tensor in state.items() if id(tensor) not in frozen]
        parts = {name.split(".")[0] for name in branches}
        expected: dict[str, set[str]] = {
            "abn": {"attention_branch", "backbone"},
            "multiscale-abn": {"attention_branches", "perception_branches", "decide"},
        }
        assert parts == expected[tuned.bundle.card.architecture]
        ours, theirs = _bytes(before.network), _bytes(after.network)
        assert [name for name in branches if ours[name] == theirs[name]] == []

    def test_does_not_so_much_as_hand_the_extractor_to_the_optimizer(self, tuned: Tuned) -> None:
        network = tuned.classifiers()[0].network
        frozen = [p for module in cast(AttentionNetwork, network).extractor() for p in module.parameters()]
        (group,) = tuned.state["optimizer"]["param_groups"]
        assert len(group["params"]) == len(list(network.parameters())) - len(frozen)

    def test_brings_the_maps_nearer_to_the_experts(self, tuned: Tuned) -> None:
        """Over the images the expert was asked about, half of those there are."""
        masks = cast(np.ndarray, tuned.data.train.masks)
        asked = np.flatnonzero(masks[:, 0, 0] != NO_MASK)
        assert len(asked) == 12
        errors = []
        for classifier in tuned.classifiers():
            with torch.no_grad():
                pixels = torch.from_numpy(tuned.data.train.pixels[asked])
                maps = cast(Any, classifier.network).attend(classifier.normalise(pixels))[1]
            errors.append(map_error(maps[:, 0].numpy(), masks[asked], np.ones(12, np.bool_)).mean())
        assert errors[1] < 0.9 * errors[0]

    def test_says_where_the_weights_come_from(self, tuned: Tuned) -> None:
        arch = tuned.bundle.card.architecture
        assert tuned.state["command"] == f"konkyo train --arch {arch} && konkyo finetune"
        assert tuned.state["config"]["init"] == str(tuned.bundle.path)


def test_without_freezing_the_extractor_learns_too(
    trained: Callable[[str], Trained], marked: ImageData, configure: Configure, tmp_path: Path
) -> None:
    """The counterpart, or the test above could not fail."""
    _, bundle = trained("abn")
    config = configure(arch="abn", init=str(bundle.path), epochs=1, map_weight=[1.0])
    after = Tuned(bundle, marked, checkpoint.load(fit(config, marked, tmp_path)))
    ours, theirs = (cast(AttentionNetwork, item.network).extractor() for item in after.classifiers())
    for before, now in zip(ours, theirs, strict=True):
        same = [name for name, content in _bytes(before).items() if content == _bytes(now)[name]]
        assert same == []


def konkyo_command(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def uncoloured(text: str) -> str:
    """Where it is told to, typer colours what it prints into a pipe too."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def refused(*arguments: object) -> str:
    """The error of a command: one line on stderr, exit code 1, no traceback."""
    result = konkyo_command(*arguments)
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


class TestCommand:
    @pytest.fixture
    def folder(self, marked: ImageData, tmp_path: Path) -> Path:
        """The bars as files, and what an expert painted in a folder of its own."""
        images, masks = marked.train, cast(np.ndarray, marked.train.masks)
        for number, (pixels, label, mask) in enumerate(zip(images.pixels, images.labels, masks, strict=True)):
            for kind, content, ending in (("bars", pixels, "png"), ("painted", 255 * mask, "png")):
                path = tmp_path / kind / marked.labels[label] / f"{number:02}.{ending}"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(content).save(path)
        return tmp_path

    def _arguments(self, bundle: Path, folder: Path, *more: object) -> tuple[object, ...]:
        places = ("--maps", folder / "painted", "--out", folder / "run", "--data", folder / "bars")
        run = ("--epochs", 1, "--batch-size", 8, "--accelerator", "cpu", "--precision", "32-true")
        return ("finetune", bundle, *places, *run, "--lambda-map", 2, *more)

    def test_goes_on_from_the_bundle_and_leaves_its_extractor_as_it_is(
        self, trained: Callable[[str], Trained], folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, bundle = trained("abn")
        arguments = self._arguments(bundle.path, folder, "--select", "confidence", "--share", 0.3)
        monkeypatch.setattr(sys, "argv", ["konkyo", *map(str, arguments)])
        result = konkyo_command(*arguments)
        assert result.exit_code == 0, result.output
        assert f"best epoch: {folder / 'run' / 'best.ckpt'}" in result.stdout
        state = checkpoint.load(folder / "run" / "best.ckpt")
        assert state["command"] == f"konkyo train --arch abn && konkyo {' '.join(map(str, arguments))}"
        assert state["config"]["map_weight"] == [2.0]
        assert state["config"]["masks"] == str(folder / "painted")
        assert state["history"][0]["val_attention"] > 0
        before, after = Tuned(bundle, SIX, state).classifiers()
        _assert_extractor_as_it_was(before, after)
        branch = "network.attention_branch.map.0.weight"
        assert _bytes(after)[branch] != _bytes(before)[branch]

    def test_offers_what_makes_sense_with_a_bundle(self) -> None:
        result = konkyo_command("finetune", "--help")
        offered = set(re.findall(r"--[a-z][a-z-]+", uncoloured(result.stdout)))
        assert result.exit_code == 0
        assert offered >= {
            "--maps", "--lambda-map", "--out", "--select", "--share", "--data", "--data-root", "--fold",
            "--epochs", "--batch-size", "--optimizer", "--lr", "--schedule", "--select-by", "--seed",
        }  # fmt: skip
        assert not offered & {
            "--arch", "--arch-arg", "--arch-args", "--image-size", "--resize-mode", "--pretrained", "--init",
            "--masks", "--map-weight", "--freeze-extractor", "--teacher", "--teacher-share", "--temperature",
            "--pretrain-epochs", "--preset", "--resume",
        }  # fmt: skip

    def test_the_weight_must_be_given(self, trained: Callable[[str], Trained], folder: Path) -> None:
        *arguments, _, _ = self._arguments(trained("abn")[1].path, folder)
        result = konkyo_command(*arguments)
        assert result.exit_code == 2
        assert "Missing option '--lambda-map'" in uncoloured(result.stderr)

    def test_refuses_in_one_line(self, trained: Callable[[str], Trained], folder: Path) -> None:
        _, bundle = trained("abn")
        good = self._arguments(bundle.path, folder)
        assert "card.json: cannot be read" in refused(*self._arguments(folder / "none", folder))
        assert "lies in (0, 1], not at 0.0" in refused(*good, "--share", 0)
        assert "need 1 or 1 weights of at least 0, not [2.0, 3.0]" in refused(*good, "--lambda-map", 3)
        assert "epochs: Input should be greater" in refused(*good, "--epochs", 0)
        assert "masks belong to a folder of images, not to cifar10" in refused(*good, "--data", "cifar10")
        elsewhere = refused(*good, "--maps", folder / "nowhere")
        assert "nowhere: expected folders named as the classes: lying, standing" in elsewhere
        damaged = shutil.copytree(bundle.path, folder / "damaged")
        (damaged / "weights.safetensors").write_bytes(b"")
        assert "weights.safetensors: truncated" in refused(*self._arguments(damaged, folder))
        gcm = Path(konkyo.__file__).parent / "zoo" / "gcm-cifar10" / "1"
        assert "GCM has no attention map to correct" in refused(*self._arguments(gcm, folder))
        for name in ("bars", "painted"):
            (folder / name / "lying").rename(folder / name / "resting")
        assert "its classes are not those of the data" in refused(*good)
        assert not (folder / "run").exists()


class TestPresetOption:
    def test_is_under_the_other_options(self, marked: ImageData, tmp_path: Path) -> None:
        result = konkyo_command(
            "train", "--preset", "abn-cifar", "--arch", "cnn", "--arch-arg", "layers=[[8, 1]]",
            "--data", "surfaces", "--image-size", 8, "--epochs", 1, "--batch-size", 2000,
            "--accelerator", "cpu", "--precision", "32-true", "--out", tmp_path,
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        config = checkpoint.load(tmp_path / "best.ckpt")["config"]
        assert (config["epochs"], config["batch_size"]) == (1, 2000)
        assert (config["schedule"], config["weight_decay"], config["crop_padding"]) == ("step", 1e-4, 4)

    def test_of_another_name_is_refused_in_one_line(self, tmp_path: Path) -> None:
        message = refused("train", "--arch", "amb", "--preset", "abm", "--out", tmp_path / "run")
        assert message.startswith("error: unknown preset 'abm'; there are: abn-cifar, amb, ")
        assert not (tmp_path / "run").exists()
