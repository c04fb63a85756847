"""``konkyo import`` and ``konkyo relist``, and what they write."""

import json
import shutil

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from typer.testing import CliRunner

from konkyo.cli import app
from konkyo.export.canary import smooth_image
from konkyo.export.onnx import OnnxModel
from konkyo.models.bundle import read_bundle
from konkyo.models.loading import load_explained

LABELS = ("good", "crack", "dent", "stain", "other")


def konkyo(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments):
    result = konkyo(*arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("files")
    torch.manual_seed(0)
    network = timm.create_model("resnet10t", num_classes=5)
    torch.save({"state_dict": network.state_dict()}, root / "weights.pth")
    (root / "labels.txt").write_text("\n".join(LABELS))
    for number in range(4):
        (root / "data" / LABELS[number]).mkdir(parents=True)
        Image.fromarray(smooth_image(200, 180, number)).save(root / "data" / LABELS[number] / "a.png")
    return root


def options(files, out, *more):
    return (
        "import", "timm:resnet10t", "--checkpoint", files / "weights.pth", "--labels", files / "labels.txt",
        "--samples", files / "data", "--out", out, *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def imported(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "parts" / "1"
    return out, konkyo(*options(files, out, "--data", files / "data", "--licence", "CC0"))


def test_what_is_written(imported):
    out, result = imported
    assert result.exit_code == 0, result.output
    bundle = read_bundle(out)
    card = bundle.card
    assert (card.name, card.version, card.labels) == ("parts", "1", LABELS)
    assert card.architecture == "timm"
    assert card.arguments["name"] == "resnet10t"
    assert card.arguments["fold"] is True
    assert (card.input.width, card.input.height, card.input.crop_fraction) == (176, 176, 0.875)
    assert (card.explanation.method, card.explanation.map_kind) == ("gradcam", "class_activation_map")
    needs = {item.method: item.needs for item in card.methods}
    assert (needs["gradcam"], needs["counterfactual"], needs["rise"]) == ("graph", "weights", "predictions")
    origin = card.provenance
    assert (origin.data, origin.licence, origin.epochs) == ("not stated", "CC0", None)
    assert 0 < origin.parity < 1e-5
    assert origin.accuracy_images == 4
    assert f"accuracy: {100 * origin.accuracy:.2f} % of 4 test images, through model.onnx" in result.stdout
    assert "parity, batch 4, 1 targets: logits " in result.stdout
    assert bundle.digest in result.stdout


def test_it_is_the_network_that_was_given(imported, files):
    network = timm.create_model("resnet10t", num_classes=5).eval()
    network.load_state_dict(torch.load(files / "weights.pth", weights_only=True)["state_dict"])
    image = smooth_image(176, 176, 9)
    mean, std = (torch.tensor(network.pretrained_cfg[key]) for key in ("mean", "std"))
    with torch.no_grad():
        expected = network(((torch.from_numpy(image) / 255 - mean) / std).permute(2, 0, 1)[None])
        found = load_explained(read_bundle(imported[0])).classifier(torch.from_numpy(image)[None])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.std()))
    logits, _ = OnnxModel(imported[0] / "model.onnx")(image[None], np.empty((1, 0), np.int64))
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=0, atol=1e-5 * float(expected.std()))


def test_the_weights_are_there_once(imported):
    sizes = {name: entry.bytes for name, entry in read_bundle(imported[0]).card.files.items()}
    assert sizes["model.onnx"] < 0.01 * sizes["weights.safetensors"]


def test_at_a_layer_without_a_closed_form_torch_explains(files, tmp_path):
    result = konkyo(*options(files, tmp_path / "parts" / "2", "--layer", "layer2", "--half"))
    assert result.exit_code == 0, result.output
    card = read_bundle(tmp_path / "parts" / "2").card
    assert card.arguments["layer"] == "layer2"
    assert "model.onnx" not in card.files
    assert {item.needs for item in card.methods} == {"weights", "predictions"}
    assert (card.provenance.parity, card.provenance.accuracy) == (None, None)
    assert "accuracy: not measured" in result.stdout
    assert "parity" not in result.stdout
    shown = konkyo("inspect", tmp_path / "parts" / "2").stdout
    assert "one runtime alone, torch" in shown


def test_methods_are_listed_anew_and_no_file_but_the_card_changes(imported, tmp_path):
    copy = shutil.copytree(imported[0], tmp_path / "1")
    card = json.loads((copy / "card.json").read_text())
    (copy / "card.json").write_text(json.dumps({**card, "methods": []}))
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    result = konkyo("relist", copy)
    assert result.exit_code == 0, result.output
    after = {path.name: path.read_bytes() for path in copy.iterdir()}
    assert [name for name in before if before[name] != after[name]] == ["card.json"]
    assert read_bundle(copy).card == read_bundle(imported[0]).card


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "no source 'nothing'; there are: timm:NAME, dino:resnet50"),
        (["timm:resnet18x"], "timm has no network 'resnet18x'; there are: resnet18"),
        (["timm:x"], "timm has no network 'x'; timm.list_models() names those there are"),
        (["timm:resnet10t.nobody"], "resnet10t.nobody: Invalid pretrained tag (nobody) for resnet10t"),
        (["timm:resnet10t", "--head", "h.pth"], "leave out --head"),
        (["timm:resnet10t", "--checkpoint", "none.pth"], "none.pth: cannot be read"),
        (["dino:resnet50"], "dino:resnet50 needs --checkpoint, of the backbone, and --head"),
        (["efficientnet-lite:9"], "no pretrained weights for tf_efficientnet_lite9"),
        (["efficientnet-lite:0", "--checkpoint", "a.pth"], "leave out --checkpoint"),
        (["keras-resnet50"], "needs --checkpoint, the folder with model.json"),
        (["onnx:a.onnx"], "a.onnx: cannot be read: No such file"),
        (
            ["torchscript:a.pt"],
            "a TorchScript file is code, which is not run here; export the network to ONNX",
        ),
    ],
)
def test_what_cannot_be_imported_is_refused_in_one_line(arguments, message, tmp_path):
    assert message in refused("import", *arguments, "--out", tmp_path / "x" / "1")
    assert not (tmp_path / "x" / "1").exists()


def test_layers_and_labels_that_do_not_fit_are_refused(files, tmp_path):
    (tmp_path / "two.txt").write_text("a\nb")
    out = tmp_path / "x" / "1"
    assert "2 names, but the network has 5 classes" in refused(
        *options(files, out), "--labels", tmp_path / "two.txt"
    )
    assert "has no layer 'nowhere'" in refused(*options(files, out), "--layer", "nowhere")
    assert not out.exists()
