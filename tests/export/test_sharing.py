"""One file of weights for two runtimes, on a graph by hand and on a network."""

import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load, load_file, save_file

from konkyo.errors import BundleError
from konkyo.export.bundle import Origin, pack, write_bundle
from konkyo.export.canary import smooth_image
from konkyo.export.onnx import OnnxModel
from konkyo.export.sharing import share_weights
from konkyo.imaging import decode, open_image, prepare
from konkyo.models.bundle import describe_file, read_bundle
from konkyo.models.classifier import Classifier
from konkyo.models.loading import load_explained
from konkyo.models.timm_net import TimmNet

LABELS = ("good", "crack", "dent")


def graph_of(**initializers):
    """Gives back each of its initializers."""
    outputs = [
        helper.make_tensor_value_info(f"{name}.out", TensorProto.FLOAT, value.shape)
        for name, value in initializers.items()
    ]
    nodes = [helper.make_node("Identity", [name], [f"{name}.out"]) for name in initializers]
    values = [numpy_helper.from_array(value, name) for name, value in initializers.items()]
    body = helper.make_graph(nodes, "weights", [], outputs, values)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model.SerializeToString()


def run(path):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return {
        output.name: value for output, value in zip(session.get_outputs(), session.run(None, {}), strict=True)
    }


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    state = {
        "as_it_is": torch.randn(40, 50),
        "halved": torch.randn(30, 60).half(),
        "turned": torch.randn(64, 32).half(),
        "small": torch.randn(8, 8),
    }
    save_file(state, tmp_path / "weights.safetensors")
    return state


def test_what_is_in_the_file_is_read_from_there(weights, tmp_path):
    values = {
        "a": weights["as_it_is"].numpy(),
        "reshaped": weights["halved"].float().numpy().reshape(30, 15, 2, 2),
        "b": weights["turned"].float().numpy().T.copy(),
        "other": np.random.default_rng(0).standard_normal((40, 50)).astype(np.float32),
        "small": weights["small"].numpy(),
        "reshaped_turned": weights["turned"].float().numpy().T.reshape(2048),
    }
    graph = graph_of(**values)
    path = tmp_path / "model.onnx"
    path.write_bytes(share_weights(graph, tmp_path / "weights.safetensors"))
    onnx.checker.check_model(path, full_check=True)
    for name, value in run(path).items():
        np.testing.assert_array_equal(value, values[name.removesuffix(".out")], strict=True)
    found = onnx.load(path, load_external_data=False).graph.initializer
    shared = {item.name for item in found if item.data_location == TensorProto.EXTERNAL}
    assert shared == {"a", "reshaped.stored0", "b.stored0"}
    kept = sum(
        value.nbytes for name, value in values.items() if name in ("other", "small", "reshaped_turned")
    )
    assert kept < path.stat().st_size < kept + 2000


def test_the_bytes_are_those_of_the_file(weights, tmp_path):
    graph = graph_of(a=weights["as_it_is"].numpy())
    file = tmp_path / "weights.safetensors"
    (found,) = onnx.load_from_string(share_weights(graph, file)).graph.initializer
    place = {entry.key: entry.value for entry in found.external_data}
    assert place["location"] == "weights.safetensors"
    start = int(place["offset"])
    content = file.read_bytes()[start : start + int(place["length"])]
    assert content == weights["as_it_is"].numpy().tobytes()


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)
    network = TimmNet(3, name="resnet10t", image_size=[64, 64]).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    return Classifier(network.folded(), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


@pytest.fixture(scope="module")
def photos():
    return np.stack([smooth_image(64, 64, seed) for seed in range(8)])


@pytest.fixture(scope="module")
def halved(classifier, photos, tmp_path_factory):
    origin = Origin(
        architecture="timm",
        arguments=classifier.network.arguments(),
        labels=LABELS,
        method="gradcam",
        data="none",
        licence="none",
        command="none",
        epochs=None,
        crop_fraction=0.875,
        interpolation="bilinear",
    )
    out = tmp_path_factory.mktemp("zoo") / "parts" / "1"
    return write_bundle(out, classifier.state_dict(), photos, origin, half=True, share=True)[0], origin


def test_a_bundle_holds_its_weights_once_and_in_half(classifier, halved):
    bundle, _ = halved
    sizes = {name: entry.bytes for name, entry in bundle.card.files.items()}
    numbers = sum(tensor.numel() for tensor in classifier.state_dict().values())
    assert 2 * numbers < sizes["weights.safetensors"] < 2 * numbers + 30_000
    assert sizes["model.onnx"] < 60_000


def test_both_runtimes_serve_the_rounded_weights(classifier, halved, photos):
    bundle, _ = halved
    explained = load_explained(bundle)
    stored = load_file(bundle.path / "weights.safetensors")
    for name, tensor in explained.classifier.state_dict().items():
        given = classifier.state_dict()[name]
        large = given.ndim > 1 and given.numel() >= 1024
        assert stored[name].dtype == (torch.float16 if large else torch.float32)
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, given.half().float() if large else given), name
    targets = np.array([[-1, 2]] * 8)
    logits, maps = OnnxModel(bundle.path / "model.onnx")(photos, targets)
    with torch.no_grad():
        expected = explained(torch.from_numpy(photos), torch.from_numpy(targets))
    np.testing.assert_allclose(logits, expected[0], rtol=0, atol=1e-5 * np.ptp(logits))
    np.testing.assert_allclose(maps, expected[1], rtol=0, atol=1e-5 * np.ptp(maps))
    assert bundle.card.provenance.parity < 1e-5


def test_the_service_finds_the_canary_as_the_card_says(halved):
    """It crops the canary as it crops every image, so the logits of the card are of the crop."""
    bundle, _ = halved
    spec = bundle.card.input
    pixels, _ = prepare(
        decode(open_image((bundle.path / "canary.png").read_bytes())),
        (spec.width, spec.height),
        mode=spec.resize_mode,
        crop_fraction=spec.crop_fraction,
        interpolation=spec.interpolation,
    )
    logits, maps = OnnxModel(bundle.path / "model.onnx")(pixels[None], np.array([[-1]]))
    assert tuple(logits[0].tolist()) == bundle.card.canary.logits
    assert np.ptp(maps) > 0
    assert (spec.crop_fraction, spec.interpolation) == (0.875, "bilinear")


def test_a_bundle_can_be_moved_but_not_altered(halved, tmp_path, photos):
    bundle, _ = halved
    moved = shutil.copytree(bundle.path, tmp_path / "elsewhere")
    targets = np.full((8, 1), -1)
    found = OnnxModel(moved / "model.onnx")(photos, targets)
    expected = OnnxModel(bundle.path / "model.onnx")(photos, targets)
    assert all(np.array_equal(*pair) for pair in zip(found, expected, strict=True))
    content = bytearray((moved / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (moved / "weights.safetensors").write_bytes(content)
    with pytest.raises(BundleError, match=r"weights\.safetensors: altered"):
        read_bundle(moved)


def test_weights_of_another_type_are_refused(halved, tmp_path):
    bundle, _ = halved
    moved = shutil.copytree(bundle.path, tmp_path / "elsewhere")
    state = load_file(moved / "weights.safetensors")
    save_file({**state, "mean": state["mean"].double()}, moved / "weights.safetensors")
    card = json.loads((moved / "card.json").read_text())
    card["files"]["weights.safetensors"] = describe_file(moved / "weights.safetensors").model_dump()
    (moved / "card.json").write_text(json.dumps(card))
    with pytest.raises(BundleError, match=r"mean is float64\[3, 1, 1\] instead of float32\[3, 1, 1\]"):
        load_explained(read_bundle(moved))


def test_weights_that_are_one_in_memory_are_written_each():
    shared = torch.randn(40, 50)
    found = load(pack({"a": shared, "b": shared, "turned": shared.T}))
    assert all(torch.equal(found[name], shared) for name in "ab")
    assert torch.equal(found["turned"], shared.T)


def test_what_needs_autograd_is_served_by_torch_alone(classifier, halved, photos, tmp_path):
    origin = replace(halved[1], method="layercam")
    bundle, parity = write_bundle(tmp_path / "parts" / "1", classifier.state_dict(), photos, origin)
    assert parity is None
    card = bundle.card
    assert card.files.keys() == {"weights.safetensors", "canary.png"}
    assert card.provenance.parity is None
    assert card.explanation.method == "layercam"
    assert next((item.method, item.needs) for item in card.methods) == ("layercam", "weights")
    explained = load_explained(bundle)
    with torch.no_grad():
        _, maps = explained(torch.from_numpy(photos), torch.full((8, 1), -1))
    assert card.explanation.range == (maps.min().item(), maps.max().item())
