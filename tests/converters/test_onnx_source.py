"""``konkyo import onnx:FILE``: the answers of the file, and the maps that torch makes of the same network."""

import asyncio
import base64
import warnings

import httpx
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from typer.testing import CliRunner

from konkyo.cli import app
from konkyo.converters.onnx_source import OnnxSource
from konkyo.converters.preparation import Preparation
from konkyo.errors import BundleError, KonkyoError, ParityError
from konkyo.export.canary import smooth_image
from konkyo.export.onnx import OnnxModel
from konkyo.export.parity import TOLERANCE
from konkyo.imaging import decode, open_image
from konkyo.models.bundle import read_bundle
from konkyo.models.classifier import Classifier
from konkyo.models.cnn import CNN
from konkyo.models.cut import Hook
from konkyo.models.explained import Explained
from konkyo.models.loading import load_explained
from konkyo.models.timm_net import TimmNet
from konkyo.service.app import create_app
from konkyo.service.engines import make_engine
from konkyo.service.settings import Settings

LABELS = ("good", "crack", "dent", "stain", "other")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
SAID = Preparation(mean="0.4,0.5,0.6", std="0.2,0.25,0.3")
WIDTH, HEIGHT = 40, 32
LAYERS = ((8, 1), (12, 2), (16, 2))


class Small(nn.Module):
    """Two convolutions and an end of one's own."""

    def __init__(self, end):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.SiLU(), nn.Conv2d(8, 6, 3, stride=2))
        self.end = end

    def hook(self, layer=None):
        return Hook(self, layer or "features")

    def forward(self, image):
        return self.end(self.features(image))


class ChannelsLast(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, image):
        return self.network(image.permute(0, 3, 1, 2))


def pooled(*layers):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), *layers)


def torch_network(kind, settled):
    torch.manual_seed(0)
    return settled(
        {
            "cnn": lambda: CNN(5, layers=LAYERS),
            "resnet": lambda: TimmNet(5, name="resnet10t"),
            "mobilenet": lambda: TimmNet(5, name="efficientnet_lite0"),
            "linear": lambda: Small(pooled(nn.Flatten(), nn.Dropout(), nn.Linear(6, 5))),
            "pixel": lambda: Small(pooled(nn.Conv2d(6, 5, 1), nn.Flatten())),
            "pixel-open": lambda: Small(pooled(nn.Conv2d(6, 5, 1, bias=False))),
            "convolutional": lambda: Small(
                nn.Sequential(nn.Conv2d(6, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
            ),
        }[kind](),
        torch.randn(4, 3, HEIGHT, WIDTH),
    )


def save(network, path, *, batch=None, tracing=False, channels_last=False, size=(HEIGHT, WIDTH)):
    """As people do: with a free batch or a fixed one, by the new exporter or the old."""
    shape = (batch or 2, *size, 3) if channels_last else (batch or 2, 3, *size)
    options = (
        {"dynamo": False, "dynamic_axes": None if batch else {"x": {0: "n"}}}
        if tracing
        else {
            "dynamo": True,
            "verbose": False,
            "dynamic_shapes": None if batch else ({0: torch.export.Dim("n")},),
        }
    )
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the old exporter says that it is old
        torch.onnx.export(
            network.eval(), (torch.zeros(shape),), path, external_data=False, input_names=["x"], **options
        )
    return path


@pytest.fixture(scope="module")
def photos():
    return np.stack([smooth_image(WIDTH, HEIGHT, seed) for seed in range(9)])


@pytest.fixture
def wrapped(tmp_path):
    """The graph a file becomes, and the source."""

    def wrap(path, samples, said=SAID):
        source = OnnxSource(path, said)
        served = source.put(tmp_path, samples)
        assert served.parity.largest < 1e-5
        return OnnxModel(tmp_path / "model.onnx"), source

    return wrap


def normalised(images):
    return (images.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)


def run_file(path, images, channels_last=False):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images = normalised(images) if channels_last else normalised(images).transpose(0, 3, 1, 2)
    return session.run(None, {session.get_inputs()[0].name: images})[0]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("cnn", {}),
        ("cnn", {"batch": 1, "tracing": True}),
        ("resnet", {"batch": 1}),  # the average is reshaped to (1, C)
        ("resnet", {"tracing": True}),
        ("mobilenet", {"tracing": True, "batch": 1}),
        ("cnn", {"channels_last": True}),
        ("linear", {"channels_last": True, "tracing": True}),
        ("linear", {"batch": 4, "tracing": True}),
        ("pixel", {"batch": 1}),
        ("pixel", {"tracing": True}),
        ("pixel-open", {}),  # (B, N, 1, 1)
        ("convolutional", {"tracing": True}),
    ],
    ids=str,
)
def test_logits_are_those_of_the_file_and_maps_those_of_torch(
    kind, options, settled, photos, wrapped, tmp_path
):
    network = torch_network(kind, settled)
    channels_last = options.get("channels_last", False)
    path = save(ChannelsLast(network) if channels_last else network, tmp_path / "theirs.onnx", **options)
    graph, source = wrapped(path, photos)
    targets = np.array([[-1, 3], [0, -1], [4, 4]] * 3)
    logits, maps = graph(photos, targets)

    size = options.get("batch", 9)
    parts = [run_file(path, np.resize(photos[i : i + size], (size, *photos.shape[1:])), channels_last)
             for i in range(0, 9, size)]  # fmt: skip
    theirs = np.concatenate(parts)[:9].reshape(9, 5)
    np.testing.assert_allclose(logits, theirs, rtol=0, atol=1e-5 * np.ptp(theirs))

    if kind == "pixel-open":
        network.end.append(nn.Flatten())
    model = Explained(Classifier(network, MEAN, STD), "gradcam").eval()
    expected_logits, expected = model(torch.from_numpy(photos), torch.from_numpy(targets))
    expected = expected.detach().numpy()
    # Two runtimes round deep networks of random weights apart; see the tolerance of the parity check.
    np.testing.assert_allclose(logits, expected_logits.detach(), rtol=0, atol=TOLERANCE * np.ptp(theirs))
    assert maps.shape == expected.shape
    np.testing.assert_allclose(maps, expected, rtol=0, atol=TOLERANCE * np.ptp(expected))
    assert np.ptp(maps) > 0
    assert source.arguments == {"features": source.head.features}

    logits, maps = graph(photos[:2], np.empty((2, 0), np.int64))
    assert maps.shape == (2, 0, *expected.shape[2:])
    np.testing.assert_allclose(logits, theirs[:2], rtol=0, atol=1e-5 * np.ptp(theirs))


@pytest.mark.parametrize("last", [nn.Softmax(1), nn.LogSoftmax(1)])
def test_a_final_softmax_is_cut_off(last, settled, photos, wrapped, tmp_path):
    network = torch_network("cnn", settled)
    path = save(nn.Sequential(network, last), tmp_path / "theirs.onnx")
    graph, source = wrapped(path, photos)
    logits, maps = graph(photos, np.full((9, 1), 2))
    assert source.arguments["without"] == type(last).__name__
    with torch.no_grad():
        model = Explained(Classifier(network, MEAN, STD), "gradcam")
        expected_logits, expected = model(torch.from_numpy(photos), torch.full((9, 1), 2))
    np.testing.assert_allclose(logits, expected_logits, rtol=0, atol=1e-5 * float(expected_logits.std()))
    np.testing.assert_allclose(maps, expected, rtol=0, atol=1e-5 * float(expected.std()))
    np.testing.assert_allclose(last(torch.from_numpy(logits)), run_file(path, photos), rtol=0, atol=1e-5)


WEIGHT = np.array([[1, -2], [0, 3], [2, 1]], np.float32)  # (C, N)


def by_hand(
    nodes, *, inputs=None, outputs=("answer",), opset=13, ir_version=8, kind=TensorProto.FLOAT, old=False
):
    """A graph whose features are the image: (1, ?, ?, 3) float32, as Keras lays it out."""
    shapes = inputs or {"image": ["n", "h", "w", 3]}
    weights = {
        "weight": WEIGHT, "bias": np.array([0.5, -1], np.float32), "axes": np.array([1, 2]),
        "other": np.ones((2, 2), np.float32),
    }  # fmt: skip
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    values = [helper.make_tensor_value_info(name, kind, shape) for name, shape in shapes.items()]
    if old:  # before IR version 4 weights were inputs too
        values += [helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in tensors]
    graph = helper.make_graph(
        nodes,
        "keras",
        values,
        [helper.make_tensor_value_info(name, kind, ["n", 2]) for name in outputs],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


AVERAGE = helper.make_node("ReduceMean", ["image"], ["average"], axes=[-2, 1], keepdims=0)
LINEAR = [
    helper.make_node("MatMul", ["average", "weight"], ["product"]),
    helper.make_node("Add", ["bias", "product"], ["answer"]),
]


def by_function():
    """The average as a function of the file's own."""
    domain, versions = "own", [helper.make_opsetid("", 13)]
    model = by_hand([helper.make_node("Mean2", ["image"], ["average"], domain=domain), *LINEAR])
    body = helper.make_node("ReduceMean", ["x"], ["y"], axes=[1, 2], keepdims=0)
    model.functions.append(helper.make_function(domain, "Mean2", ["x"], ["y"], [body], versions))
    model.opset_import.append(helper.make_opsetid(domain, 1))
    return model


CELLS = [
    helper.make_node("MatMul", ["image", "weight"], ["product"]),
    helper.make_node("Add", ["product", "bias"], ["cells"]),
    helper.make_node("ReduceMean", ["cells"], ["answer"], axes=[1, 2], keepdims=0),
]

BY_HAND = {
    "new": lambda: by_hand([AVERAGE, *LINEAR]),
    "old": lambda: by_hand([AVERAGE, *LINEAR], old=True, opset=9, ir_version=3),
    "dense before the average": lambda: by_hand(CELLS),
    "function": by_function,
}


@pytest.mark.parametrize("kind", BY_HAND)
def test_a_graph_by_hand(kind, tmp_path, wrapped):
    """Channels last, product and sum apart; pixels from 0 to 1, every figure of the maps by hand."""
    (tmp_path / "theirs").mkdir()
    path = tmp_path / "theirs" / "theirs.onnx"
    onnx.save(BY_HAND[kind](), path, save_as_external_data=kind == "new", location="x.data", size_threshold=0)
    assert (tmp_path / "theirs" / "x.data").exists() is (kind == "new")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 2, 4, 3), dtype=np.uint8)
    graph, source = wrapped(path, pixels, Preparation("0,0,0", "1,1,1", size="4x2"))
    targets = np.array([[0, 1], [1, -1], [-1, 0]])
    logits, maps = graph(pixels, targets)
    expected = pixels.mean(axis=(1, 2)) / 255 @ WEIGHT + [0.5, -1]
    np.testing.assert_allclose(logits, expected, atol=1e-6)
    named = np.where(targets < 0, expected.argmax(1)[:, None], targets)
    every = np.moveaxis(pixels / 255 @ WEIGHT / 8, 3, 1)  # (B, N, h, w)
    np.testing.assert_allclose(maps, np.take_along_axis(every, named[..., None, None], 1), atol=1e-6)
    assert (source.input.width, source.input.height, source.num_classes) == (4, 2, 2)
    model = onnx.load(tmp_path / "model.onnx")
    assert [item.name for item in model.graph.input] == ["image", "targets"]
    assert [item.name for item in model.graph.output] == ["logits", "maps"]


def test_the_same_file_gives_the_same_bytes(settled, photos, wrapped, tmp_path):
    path = save(torch_network("cnn", settled), tmp_path / "theirs.onnx")
    wrapped(path, photos)
    first = (tmp_path / "model.onnx").read_bytes()
    wrapped(path, photos)
    assert (tmp_path / "model.onnx").read_bytes() == first
    assert str(tmp_path).encode() not in first


# What is refused


def refusal(path, said=SAID):
    with pytest.raises(KonkyoError) as caught:
        OnnxSource(path, said)
    return str(caught.value)


LAST, BEFORE, INSIDE = (
    "a linear layer or a global average at the end",
    "before the linear layer",
    "before the global",
)


@pytest.mark.parametrize(
    ("end", "place", "found"),
    [
        (pooled(nn.Flatten(), nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 5)), BEFORE, "Relu"),
        (pooled(nn.Flatten(), nn.LayerNorm(6), nn.Linear(6, 5)), BEFORE, "LayerNormalization"),
        (nn.Sequential(nn.MaxPool2d((7, 9)), nn.Flatten(), nn.Linear(6, 5)), BEFORE, "MaxPool"),
        (nn.Sequential(nn.Flatten(), nn.Linear(6 * 7 * 9, 5)), BEFORE, "Conv"),
        (pooled(nn.Flatten(), nn.Linear(6, 5), nn.Sigmoid()), LAST, "Sigmoid"),
        (nn.Sequential(nn.Conv2d(6, 5, 1), nn.ReLU(), pooled(nn.Flatten())), INSIDE, "Relu"),
        (nn.Sequential(nn.Conv2d(6, 5, 3), pooled(nn.Flatten())), INSIDE, "Conv"),
    ],
)
def test_other_ends_are_refused_by_name(end, place, found, tmp_path):
    message = refusal(save(Small(end), tmp_path / "a.onnx"))
    assert place in message
    assert f", found {found}; Grad-CAM without a gradient takes" in message
    assert "timm:NAME --checkpoint FILE" in message


def test_graphs_of_another_kind_are_refused(tmp_path):
    def of(*nodes, said=SAID, **options):
        onnx.save(by_hand(nodes or [AVERAGE, *LINEAR], **options), tmp_path / "a.onnx")
        return refusal(tmp_path / "a.onnx", said)

    def reduce(**options):
        return helper.make_node("ReduceMean", ["image"], ["average"], **options)

    assert "found 2: image, mask" in of(inputs={"image": ["n", 8, 8, 3], "mask": ["n", 8, 8, 3]})
    twice = (AVERAGE, *LINEAR, helper.make_node("Identity", ["answer"], ["again"]))
    assert "expected one output, found 2: answer, again" in of(*twice, outputs=("answer", "again"))
    assert "is (?, 8, 8, 1), not an image" in of(inputs={"image": ["n", 8, 8, 1]})
    assert "is (?, 3), not an image" in of(inputs={"image": ["n", 3]})
    assert "opset 8 is too old" in of(opset=8)
    assert "found ReduceMean" in of(reduce(axes=[1], keepdims=0), *LINEAR)
    scaled = helper.make_node("Gemm", ["average", "weight", "bias"], ["answer"], alpha=2.0)
    assert "at the end, found Gemm" in of(AVERAGE, scaled)
    assert "takes images of any size; say at which: --size" in of()
    fixed = {"image": [1, 8, 10, 3]}
    assert "takes 10x8 pixels, not 8x8" in of(inputs=fixed, said=Preparation("0,0,0", "1,1,1", size="8x8"))
    half = by_hand([AVERAGE, *LINEAR], inputs=fixed)
    half.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.save(half, tmp_path / "a.onnx")
    assert "the input image is not float32" in refusal(tmp_path / "a.onnx")
    (tmp_path / "a.onnx").write_bytes(b"PK\x03\x04 no graph")
    assert "a.onnx: not an ONNX file" in refusal(tmp_path / "a.onnx")
    assert "none.onnx: cannot be read: No such file" in refusal(tmp_path / "none.onnx")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (Preparation(), "say it: --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225, the statistics of"),
        (Preparation(mean="0,0,0"), "--mean 0,0,0 --std 1,1,1, pixels from 0 to 1"),
        (Preparation("0,0", "1,1,1"), "--mean 0,0: expected three numbers"),
        (Preparation("0,0,0", "1,1,a"), "--std 1,1,a: expected three numbers"),
        (Preparation("0,0,0", "1,0,1"), "--std 1,0,1: a deviation is above 0"),
        (Preparation("0,0,0", "1,1,1", size="8"), "--size 8: expected WIDTHxHEIGHT"),
        (Preparation("0,0,0", "1,1,1", "8x8", crop_fraction=0), "--crop-fraction 0: expected a share"),
    ],
)  # fmt: skip
def test_what_must_be_said_of_the_input(said, expected, tmp_path):
    onnx.save(by_hand([AVERAGE, *LINEAR]), tmp_path / "a.onnx")
    assert expected in refusal(tmp_path / "a.onnx", said)


class IntoTheBatch(nn.Module):
    def forward(self, features):
        return features.reshape(6, 1, *features.shape[2:]).relu().reshape(1, 6, *features.shape[2:])


class OfTheBatch(nn.Module):
    def forward(self, features):
        return features + 3 * features.mean(dim=0, keepdim=True)


def test_a_batch_that_cannot_be_made_free_is_refused(photos, tmp_path):
    network = Small(nn.Sequential(IntoTheBatch(), pooled(nn.Flatten(), nn.Linear(6, 5))))
    source = OnnxSource(save(network, tmp_path / "a.onnx", batch=1), SAID)
    with pytest.raises(
        KonkyoError, match=r"a.onnx: its batch cannot be made free, export it with a free one"
    ):
        source.put(tmp_path, photos)


def test_a_graph_whose_images_see_each_other_is_refused(photos, tmp_path):
    network = Small(nn.Sequential(OfTheBatch(), pooled(nn.Flatten(), nn.Linear(6, 5))))
    source = OnnxSource(save(network, tmp_path / "a.onnx", tracing=True), SAID)
    with pytest.raises(ParityError, match=r"the wrapped graph differs from the file by more than 0\.0001"):
        source.put(tmp_path, photos)


# The command, and the service


def konkyo(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def imported(settled, tmp_path_factory):
    root = tmp_path_factory.mktemp("lines")
    network = torch_network("cnn", settled)
    path = save(nn.Sequential(network, nn.Softmax(1)), root / "theirs.onnx", batch=1)
    (root / "labels.txt").write_text("\n".join(LABELS))
    result = konkyo(
        "import", f"onnx:{path}", "--out", root / "models" / "parts" / "1", "--labels", root / "labels.txt",
        "--mean", "0.4,0.5,0.6", "--std", "0.2,0.25,0.3", "--resize", "squash",
        "--interpolation", "bilinear", "--licence", "CC0",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return root, network, result.stdout


def test_the_card_says_what_it_is(imported):
    root, network, said = imported
    bundle = read_bundle(root / "models" / "parts" / "1")
    card = bundle.card
    assert (card.architecture, card.arguments["without"]) == ("onnx", "Softmax")
    assert (card.name, card.labels, set(card.files)) == ("parts", LABELS, {"model.onnx", "canary.png"})
    spec = card.input
    assert (spec.width, spec.height, spec.resize_mode, spec.interpolation) == (
        WIDTH,
        HEIGHT,
        "squash",
        "bilinear",
    )
    assert (spec.mean, spec.std) == (MEAN, STD)
    assert [(item.method, item.needs) for item in card.methods] == [
        ("gradcam", "graph"), ("occlusion", "predictions"), ("rise", "predictions"),
    ]  # fmt: skip
    assert card.explanation.range[0] < card.explanation.range[1]
    assert card.provenance.parity < 1e-5
    assert (card.provenance.data, card.provenance.licence) == ("not stated", "CC0")
    weights = sum(parameter.numel() for parameter in network.parameters())
    norms = sum(module.num_features for module in network.modules() if isinstance(module, nn.BatchNorm2d))
    assert card.provenance.parameters == weights - norms  # scale and shift of each norm became one bias
    assert "the final Softmax is cut off: what is served are the logits before it" in said
    assert "accuracy: not measured" in said


def test_it_is_served_with_the_maps_of_torch(imported):
    """Ready only if the canary has the logits of the card."""
    root, network, _ = imported
    bundle = read_bundle(root / "models" / "parts" / "1")
    picture = (bundle.path / "canary.png").read_bytes()

    async def ask():
        settings = Settings(repository=root / "models", engine="auto", device="cpu", threads=1)
        service = create_app(settings)
        client = httpx.AsyncClient(transport=httpx.ASGITransport(service), base_url="http://konkyo")
        async with service.router.lifespan_context(service), client:
            await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name() == "loading"))
            card = (await client.get("/v1/models/parts")).json()
            url = "/v1/models/parts:explain?targets=crack,good&map=float32&top_k=5"
            answer = await client.post(url, content=picture)
            other = await client.post("/v1/models/parts:explain?method=guided-backprop", content=picture)
            return card, answer.json(), other

    card, answer, other = asyncio.run(ask())
    assert card["state"] == "ready"
    assert [method["name"] for method in card["methods"]] == ["gradcam", "occlusion", "rise"]
    assert {method["runtime"] for method in card["methods"]} == {"onnx"}
    logits = bundle.card.canary.logits
    assert {item["label"]: item["logit"] for item in answer["top_k"]} == pytest.approx(
        dict(zip(LABELS, logits, strict=True)), abs=1e-4
    )
    model = Explained(Classifier(network, MEAN, STD), "gradcam")
    image = decode(open_image(picture)).image
    _, expected = model(torch.tensor(np.asarray(image))[None], torch.tensor([[1, 0]]))
    scale = 1e-5 * np.ptp(expected.numpy())
    for found, wanted in zip(answer["explanation"]["maps"], expected[0], strict=True):
        values = np.frombuffer(base64.b64decode(found["map"]["data"]), np.float32).reshape(wanted.shape)
        np.testing.assert_allclose(values, wanted, rtol=0, atol=scale)
    assert other.status_code == 422
    assert "'guided-backprop'" in other.json()["error"]["message"]


def test_torch_says_that_it_has_no_weights(imported):
    bundle = read_bundle(imported[0] / "models" / "parts" / "1")
    message = "names no weights.safetensors, which PyTorch needs; ONNX Runtime can serve it"
    with pytest.raises(BundleError, match=message):
        load_explained(bundle)
    with pytest.raises(BundleError, match=message):
        make_engine(bundle, Settings(engine="torch", device="cpu"))
    assert message in konkyo("relist", bundle.path).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["onnx:a.onnx", "--checkpoint", "a.pth", "--half"],
            "taken as it is: leave out --checkpoint, --half",
        ),
        (["timm:resnet10t", "--mean", "0,0,0", "--crop-fraction", "1"], "leave out --mean, --crop-fraction"),
        (
            ["torchscript:a.pt"],
            "a TorchScript file is code, which is not run here; export the network to ONNX",
        ),
    ],
)
def test_options_that_do_not_go_together(arguments, message, tmp_path):
    result = konkyo("import", *arguments, "--out", tmp_path / "x" / "1")
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "x").exists()
