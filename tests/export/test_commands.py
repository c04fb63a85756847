"""``konkyo train``, ``export`` and ``inspect``, one after the other, on images of coloured squares."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from konkyo.cli import app
from konkyo.models.bundle import read_bundle
from konkyo.models.loading import load_explained
from konkyo.models.registry import names
from konkyo.training import checkpoint

COLOURS = {"blue": (30, 40, 200), "red": (210, 50, 30)}
NETWORK = "layers=[[8, 1], [8, 2]]"


def konkyo(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments):
    """The error of a command: one line on stderr, exit code 1, no traceback."""
    result = konkyo(*arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """64 images of 16x16 pixels in a folder of class folders."""
    root = tmp_path_factory.mktemp("data") / "squares"
    generator = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(32):
            pixels = generator.integers(90, 130, (16, 16, 3))
            y, x = generator.integers(0, 8, 2)
            pixels[y : y + 8, x : x + 8] = colour
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{number:02}.png")
    return root


@pytest.fixture(scope="module")
def trained(squares, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "squares"
    result = konkyo(
        "train", "--arch", "cnn", "--arch-arg", NETWORK, "--data", squares, "--image-size", 16, "--out", out,
        "--epochs", 1, "--batch-size", 8, "--accelerator", "cpu", "--devices", 1, "--precision", "32-true",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return out / "best.ckpt"


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("zoo") / "squares" / "1"
    return out, konkyo("export", trained, "--out", out)


def test_export_writes_what_was_trained(trained, exported):
    out, result = exported
    assert result.exit_code == 0, result.output
    bundle, state = read_bundle(out), checkpoint.load(trained)
    assert (bundle.card.name, bundle.card.version) == ("squares", "1")
    assert bundle.card.labels == ("blue", "red")
    assert bundle.card.arguments == {"layers": [[8, 1], [8, 2]]}
    assert bundle.card.provenance.epochs == 1
    assert bundle.card.provenance.command.split()[0] == "konkyo"
    found = load_explained(bundle).classifier.state_dict()
    assert all(torch.equal(found[key], state["model"][key]) for key in found)
    assert bundle.digest in result.stdout


def test_export_prints_parity_and_accuracy(exported):
    out, result = exported
    provenance = read_bundle(out).card.provenance
    assert provenance.parity < 1e-5
    assert f"{provenance.parity:.1e}" in result.stdout
    assert "parity, batch 1, 0 targets: logits " in result.stdout
    assert f"accuracy: {100 * provenance.accuracy:.2f} % of 6 test images" in result.stdout


def test_the_accuracy_is_that_of_the_whole_test_split(squares, exported):
    from konkyo.training.folder import load_folder

    bundle = read_bundle(exported[0])
    test = load_folder(squares, image_size=16).test
    with torch.no_grad():
        logits = load_explained(bundle).classifier(torch.from_numpy(test.pixels))
    assert bundle.card.provenance.accuracy_images == len(test) == 6
    assert bundle.card.provenance.accuracy == (logits.argmax(dim=1).numpy() == test.labels).mean()


def test_name_and_version_may_be_given(trained, tmp_path):
    result = konkyo("export", trained, "--out", tmp_path / "x", "--name", "tiles", "--version", 12)
    assert result.exit_code == 0, result.output
    card = read_bundle(tmp_path / "x").card
    assert (card.name, card.version) == ("tiles", "12")


def test_without_the_data_there_is_a_bundle_without_accuracy(trained, squares, tmp_path):
    squares.rename(squares.with_name("away"))
    try:
        result = konkyo("export", trained, "--out", tmp_path / "squares" / "1")
    finally:
        squares.with_name("away").rename(squares)
    assert result.exit_code == 0, result.output
    assert "accuracy is not measured: " in result.stderr
    assert "accuracy: not measured" in result.stdout
    assert read_bundle(tmp_path / "squares" / "1").card.provenance.accuracy is None


def test_export_refuses_in_one_line(trained, exported, squares, tmp_path):
    out = tmp_path / "squares" / "1"
    assert "there is no checkpoint here" in refused("export", tmp_path / "none.ckpt", "--out", out)
    (tmp_path / "bad.ckpt").write_bytes(b"nothing")
    assert "not a readable checkpoint" in refused("export", tmp_path / "bad.ckpt", "--out", out)
    assert "there is no such folder" in refused("export", trained, "--out", out, "--data", tmp_path / "none")
    assert "use --force to replace it" in refused("export", trained, "--out", exported[0])
    other = tmp_path / "other"
    shutil.copytree(squares, other)
    (other / "red").rename(other / "pink")
    message = "other has other classes than the checkpoint: blue, pink"
    assert message in refused("export", trained, "--out", out, "--data", other)
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "layer", "needs"),
    [
        ({"name": "resnet10t"}, "layer3", "weights"),  # after layer4 an image of this size is one cell
        (
            {"name": "vit_tiny_patch16_224", "model_args": {"depth": 2, "embed_dim": 48}},
            "blocks.1.norm1",
            "graph",
        ),
    ],
)
def test_a_network_of_timm_is_built_for_the_images_it_learns_from(squares, tmp_path, arguments, layer, needs):
    given = [f"--arch-arg={name}={json.dumps(value)}" for name, value in arguments.items()]
    result = konkyo(
        "train", "--arch", "timm", *given, "--data", squares, "--image-size", 32, "--out", tmp_path / "run",
        "--epochs", 1, "--batch-size", 8, "--accelerator", "cpu", "--devices", 1, "--precision", "32-true",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    result = konkyo("export", tmp_path / "run" / "best.ckpt", "--out", tmp_path / "squares" / "1")
    assert result.exit_code == 0, result.output
    bundle = read_bundle(tmp_path / "squares" / "1")
    card = bundle.card
    assert card.arguments["image_size"] == [32, 32]
    assert card.arguments["layer"] == layer
    assert card.arguments["layout"].keys() == {"kind", "prefix_tokens", "aspect"}
    assert (card.methods[0].method, card.methods[0].needs) == ("gradcam", needs)
    image = torch.full((1, 32, 32, 3), 100, dtype=torch.uint8)
    assert load_explained(bundle)(image, torch.tensor([[0, 1]]))[1].shape == (1, 2, 2, 2)


def test_train_refuses_in_one_line(tmp_path):
    run = ("train", "--out", tmp_path / "run")
    assert f"unknown network 'gmc'; there are: {', '.join(names())}" in refused(*run, "--arch", "gmc")
    assert "widths" in refused(*run, "--arch", "gcm", "--arch-arg", "widths=1")
    assert "expected NAME=JSON" in refused(*run, "--arch", "gcm", "--arch-arg", "clipped=True")
    assert "epochs: Input should be greater" in refused(*run, "--arch", "gcm", "--epochs", 0)
    assert "no such folder" in refused(*run, "--arch", "gcm", "--data", tmp_path / "none", "--image-size", 16)
    assert "encoder divides by 2" in refused(*run, "--arch", "gcm", "--arch-arg", "encoder=[[8, 2]]")


def test_inspect_prints_the_card(exported):
    out, _ = exported
    card = read_bundle(out).card
    result = konkyo("inspect", out)
    assert result.exit_code == 0
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines()[2:])
    assert result.stdout.startswith(f"squares 1, {read_bundle(out).digest}, every file as in the card\n")
    # 3x3 kernels 3 -> 8 -> 8, two batch norms, 8 -> 2 with biases
    assert lines["network"] == f"cnn({NETWORK}), {216 + 576 + 32 + 18} parameters"
    assert lines["classes"] == "2: blue, red"
    assert lines["input"] == "16 x 16, center_crop, bicubic"
    assert lines["explanation"] == "cam: class_activation_map, one a target"
    assert lines["accuracy"] == f"{100 * card.provenance.accuracy:.2f} % of 6 test images, through model.onnx"
    for name, entry in card.files.items():
        assert f"{name:<20} {entry.bytes:>12,} bytes  sha256:{entry.sha256}" in result.stdout


def test_inspect_prints_the_file_itself(exported):
    out, _ = exported
    result = konkyo("inspect", out, "--json")
    assert result.stdout == (out / "card.json").read_text()
    assert json.loads(result.stdout)["name"] == "squares"


def test_inspect_refuses_a_damaged_bundle_in_one_line(exported, tmp_path):
    copy = shutil.copytree(exported[0], tmp_path / "1")
    (copy / "model.onnx").write_bytes(b"")
    assert "model.onnx: truncated: 0 of" in refused("inspect", copy)
    assert "model.onnx: truncated: 0 of" in refused("inspect", copy, "--json")
    assert "card.json: cannot be read" in refused("inspect", tmp_path)
