"""Every engine keeps the contract of ``Engine``, and those that run the network agree on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from konkyo.errors import BundleError
from konkyo.imaging import UInt8
from konkyo.models.bundle import Bundle, read_bundle
from konkyo.service.app import WEB
from konkyo.service.engines import make_engine
from konkyo.service.engines.base import Engine
from konkyo.service.settings import ZOO, Settings

BUNDLES = sorted(ZOO.glob("*/*"))
ENGINES = ("onnx", "torch", "fake")


@pytest.fixture(params=BUNDLES, ids=lambda path: path.parent.name)
def bundle(request: pytest.FixtureRequest) -> Bundle:
    path: Path = request.param
    return read_bundle(path)


@pytest.fixture
def images(bundle: Bundle) -> UInt8:
    """Real photos at the size of the input: (B, H, W, 3)."""
    spec = bundle.card.input
    files = sorted((WEB / "samples").glob("*.[jp][pn]g"))
    opened = [Image.open(file).convert("RGB").resize((spec.width, spec.height)) for file in files]
    return np.stack([np.asarray(image) for image in opened])


def engine_of(name: str, bundle: Bundle, device: str = "cpu") -> Engine:
    return make_engine(bundle, Settings.model_validate({"engine": name, "device": device}))


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.ptp(expected))


@pytest.mark.parametrize("name", ENGINES)
def test_minus_one_is_the_predicted_class_and_k_may_be_none(name: str, bundle: Bundle, images: UInt8) -> None:
    engine = engine_of(name, bundle)
    engine.warm_up()
    predicted = engine.run(images, np.full((len(images), 1), -1))
    named = engine.run(images, predicted.logits.argmax(axis=1)[:, None])
    none = engine.run(images, np.empty((len(images), 0), np.int64))
    np.testing.assert_allclose(predicted.maps, named.maps, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(none.logits, predicted.logits, rtol=1e-4, atol=1e-4)
    assert none.maps.shape[:2] == (len(images), 0)
    engine.close()


@pytest.mark.parametrize("name", ENGINES)
def test_a_batch_answers_as_its_items_do_alone(name: str, bundle: Bundle, images: UInt8) -> None:
    engine = engine_of(name, bundle)
    targets = np.array([[-1, position % len(bundle.card.labels)] for position in range(len(images))])
    together = engine.run(images, targets)
    for position in range(len(images)):
        alone = engine.run(images[position : position + 1], targets[position : position + 1])
        assert relative(together.logits[position], alone.logits[0]) < 1e-4
        assert relative(together.maps[position], alone.maps[0]) < 1e-4


def test_torch_and_onnx_runtime_agree(bundle: Bundle, images: UInt8) -> None:
    every = np.tile(np.arange(len(bundle.card.labels)), (len(images), 1))
    onnx, torch = (engine_of(name, bundle).run(images, every) for name in ("onnx", "torch"))
    assert relative(torch.logits, onnx.logits) < 1e-4
    assert relative(torch.maps, onnx.maps) < 1e-4


@pytest.mark.parametrize(("name", "faithful"), [("onnx", True), ("torch", True), ("fake", False)])
def test_says_what_it_is(name: str, faithful: bool, bundle: Bundle) -> None:
    engine = engine_of(name, bundle)
    assert (engine.name, engine.device, engine.faithful) == (name, "cpu", faithful)


def test_auto_takes_the_graph(bundle: Bundle) -> None:
    assert engine_of("auto", bundle).name == "onnx"


@pytest.mark.parametrize("name", ["onnx", "torch"])
def test_cuda_is_not_quietly_replaced(name: str, bundle: Bundle) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(BundleError, match="no CUDA device that works"):
        engine_of(name, bundle, device="cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["onnx", "torch"])
def test_cuda_agrees_with_the_cpu(name: str, bundle: Bundle, images: UInt8) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    every = np.tile(np.arange(len(bundle.card.labels)), (len(images), 1))
    cpu, engine = engine_of(name, bundle).run(images, every), engine_of(name, bundle, device="cuda")
    cuda = engine.run(images, every)
    assert engine.device == "cuda"
    # TF32 rounds the factors of a convolution to 10 bits.
    assert relative(cuda.logits, cpu.logits) < 5e-3
    assert relative(cuda.maps, cpu.maps) < 5e-3
