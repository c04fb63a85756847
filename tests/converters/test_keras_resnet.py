"""Files as TensorFlow.js has them, of random weights, against ResNet-50 as Keras computes it."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from konkyo.converters.errors import ConversionError
from konkyo.converters.keras_resnet import from_keras_resnet
from konkyo.models.classifier import Classifier

BLOCKS = {2: (3, 64), 3: (4, 128), 4: (6, 256), 5: (3, 512)}
CLASSES = 7


def random_weights():
    generator = np.random.default_rng(0)
    weights = {}

    def convolution(name, norm, size, channels, width):
        scale = (2 / (size * size * channels)) ** 0.5
        weights[f"{name}/kernel"] = generator.normal(0, scale, (size, size, channels, width))
        weights[f"{name}/bias"] = generator.normal(0, 0.1, width)
        weights[f"{norm}/gamma"] = generator.uniform(0.3, 0.7, width)
        weights[f"{norm}/beta"] = generator.normal(0, 0.1, width)
        weights[f"{norm}/moving_mean"] = generator.normal(0, 0.1, width)
        weights[f"{norm}/moving_variance"] = generator.uniform(0.0, 2.0, width)

    convolution("conv1", "bn_conv1", 7, 3, 64)
    weights["bn_conv1/moving_variance"] *= 1e5  # of pixel values, as trained ones
    channels = 64
    for stage, (blocks, width) in BLOCKS.items():
        for block in "abcdef"[:blocks]:
            name = f"{stage}{block}_branch"
            convolution(f"res{name}2a", f"bn{name}2a", 1, channels, width)
            convolution(f"res{name}2b", f"bn{name}2b", 3, width, width)
            convolution(f"res{name}2c", f"bn{name}2c", 1, width, 4 * width)
            if block == "a":
                convolution(f"res{name}1", f"bn{name}1", 1, channels, 4 * width)
            channels = 4 * width
    weights["fc1000/kernel"] = generator.normal(0, 0.05, (2048, CLASSES))
    weights["fc1000/bias"] = generator.normal(0, 1, CLASSES)
    return {name: values.astype("<f4") for name, values in weights.items()}


@pytest.fixture(scope="module")
def weights():
    return random_weights()


@pytest.fixture(scope="module")
def folder(weights, tmp_path_factory):
    """Three shards; a weight may begin in one and end in the next."""
    root = tmp_path_factory.mktemp("keras")
    data = b"".join(values.tobytes() for values in weights.values())
    third = len(data) // 3
    paths = [f"group1-shard{number}of3.bin" for number in (1, 2, 3)]
    for number, path in enumerate(paths):
        (root / path).write_bytes(data[number * third : (number + 1) * third if number < 2 else None])
    entries = [
        {"name": name, "shape": list(values.shape), "dtype": "float32"} for name, values in weights.items()
    ]
    manifest = {"format": "layers-model", "weightsManifest": [{"paths": paths, "weights": entries}]}
    (root / "model.json").write_text(json.dumps(manifest))
    return root


def as_keras_computes(weights, image):
    """RGB pixels (B, H, W, 3) to logits, with Keras's own order of things, in double precision."""
    values = {name: torch.from_numpy(array).double() for name, array in weights.items()}

    def convolved(x, name, norm, stride=1, padding=0):
        kernel = values[f"{name}/kernel"].permute(3, 2, 0, 1)
        x = F.conv2d(x, kernel, values[f"{name}/bias"], stride=stride, padding=padding)
        statistics = values[f"{norm}/moving_mean"], values[f"{norm}/moving_variance"]
        return F.batch_norm(x, *statistics, values[f"{norm}/gamma"], values[f"{norm}/beta"], eps=1e-3)

    bgr = image.double().flip(3) - torch.tensor([103.939, 116.779, 123.68], dtype=torch.float64)
    x = F.relu(convolved(bgr.permute(0, 3, 1, 2), "conv1", "bn_conv1", 2, 3))
    x = F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 2)
    for stage, (blocks, _) in BLOCKS.items():
        for block in "abcdef"[:blocks]:
            name = f"{stage}{block}_branch"
            stride = 2 if block == "a" and stage > 2 else 1
            branch = F.relu(convolved(x, f"res{name}2a", f"bn{name}2a", stride))
            branch = F.relu(convolved(branch, f"res{name}2b", f"bn{name}2b", 1, 1))
            branch = convolved(branch, f"res{name}2c", f"bn{name}2c")
            x = convolved(x, f"res{name}1", f"bn{name}1", stride) if block == "a" else x
            x = F.relu(branch + x)
    return x.mean(dim=(2, 3)) @ values["fc1000/kernel"] + values["fc1000/bias"]


@torch.no_grad()
@pytest.mark.parametrize("folded", [False, True])
def test_it_computes_what_keras_computes(folder, weights, folded):
    converted = from_keras_resnet(folder)
    assert (converted.architecture, converted.network.num_classes) == ("resnet-v1", CLASSES)
    network = converted.network.folded() if folded else converted.network
    generator = torch.Generator().manual_seed(3)
    image = torch.randint(0, 256, (2, 96, 64, 3), dtype=torch.uint8, generator=generator)
    classifier = Classifier(network, converted.input.mean, converted.input.std).eval()
    expected = as_keras_computes(weights, image)
    assert expected[0].sub(expected[1]).abs().min() > 1e-3 * expected.std()
    torch.testing.assert_close(
        classifier(image).double(), expected, rtol=0, atol=1e-5 * float(expected.std())
    )


def damaged(folder, tmp_path, change):
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    manifest = json.loads((folder / "model.json").read_text())
    change(manifest["weightsManifest"][0])
    (tmp_path / "model.json").unlink()
    (tmp_path / "model.json").write_text(json.dumps(manifest))
    return tmp_path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda group: group["paths"].pop(), "no weights of TensorFlow.js"),
        (lambda group: group["paths"].append("group1-shard1of3.bin"), "bytes of weights are listed, but"),
        (lambda group: group["paths"].append("../secret.bin"), "a shard is in another folder"),
        (lambda group: group["weights"][0].update(dtype="uint8"), "conv1/kernel is not in float32"),
        (lambda group: group["weights"][-2].update(name="fc10/kernel"), "not ResNet-50 of Keras"),
        (lambda group: group["weights"][1].update(name="conv1/b"), "conv1/bias is missing"),
    ],
)
def test_other_files_are_refused(folder, tmp_path, change, message):
    with pytest.raises(ConversionError, match=message):
        from_keras_resnet(damaged(folder, tmp_path, change))


def test_a_folder_without_files_is_refused(tmp_path):
    with pytest.raises(ConversionError, match=r"no weights of TensorFlow\.js, model\.json and its shards"):
        from_keras_resnet(tmp_path)
