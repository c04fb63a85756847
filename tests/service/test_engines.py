"""Every engine keeps the contract of ``Engine``, and those that run the network agree on it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from konkyo.errors import BundleError, UnsupportedMethod
from konkyo.imaging import UInt8
from konkyo.models.bundle import Bundle, read_bundle
from konkyo.service.app import WEB
from konkyo.service.engines import make_engine, make_torch_engine
from konkyo.service.engines.base import Engine, Float32
from konkyo.service.settings import ZOO, Settings

BUNDLES = sorted(ZOO.glob("*/*"))
ENGINES = ("onnx", "torch", "fake")
ATTENTIVE = ("abn", "multiscale-abn")


@pytest.fixture(params=[*BUNDLES, *ATTENTIVE], ids=lambda case: getattr(case, "parent", Path(case)).name)
def bundle(request: pytest.FixtureRequest, attentive: Callable[[str], Path]) -> Bundle:
    case: Path | str = request.param
    return read_bundle(attentive(case) if isinstance(case, str) else case)


@pytest.fixture(params=ATTENTIVE)
def editable(request: pytest.FixtureRequest, attentive: Callable[[str], Path]) -> Bundle:
    """Of a network whose maps may be edited."""
    return read_bundle(attentive(request.param))


@pytest.fixture
def images(bundle: Bundle) -> UInt8:
    """Real photos at the size of the input."""
    return photos(bundle)


def photos(bundle: Bundle) -> UInt8:
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
    explanation = bundle.card.explanation
    assert none.maps.shape[:2] == (len(images), 0 if explanation.class_specific else explanation.scales)
    assert predicted.maps.shape[1] == explanation.scales
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


# edited maps


def some_cells(count: int, height: int, width: int) -> Float32:
    """Edits of about half the cells: (count, h', w')."""
    return np.random.default_rng(height).uniform(-1, 1, (count, height, width)).astype(np.float32)


@pytest.mark.parametrize("name", ENGINES)
def test_negative_cells_are_the_networks_own(name: str, editable: Bundle) -> None:
    engine, images = engine_of(name, editable), photos(editable)
    engine.warm_up()
    targets = np.full((len(images), 1), -1)
    own = engine.run(images, targets)
    for shape in ((1, 1, 1), (len(images), 1, 1), (len(images), 7, 3)):
        left = engine.run(images, targets, np.full(shape, -0.3, np.float32))
        np.testing.assert_allclose(left.logits, own.logits, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(left.maps, own.maps, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ENGINES)
def test_an_edit_replaces_the_map_and_changes_the_answer(name: str, editable: Bundle) -> None:
    engine, images = engine_of(name, editable), photos(editable)
    targets = np.full((len(images), 1), -1)
    own = engine.run(images, targets)
    whole = engine.run(images, targets, np.full((1, 1, 1), 0.125, np.float32))
    np.testing.assert_allclose(whole.maps, 0.125, atol=1e-6)
    assert np.abs(whole.logits - own.logits).max() > 1e-3
    left_half = engine.run(images, targets, np.array([[[0.5, -1]]], np.float32))
    middle = own.maps.shape[-1] // 2
    np.testing.assert_allclose(left_half.maps[:, 0, :, :middle], 0.5, atol=1e-6)
    np.testing.assert_allclose(left_half.maps[:, 0, :, middle:], own.maps[:, 0, :, middle:], atol=1e-6)


@pytest.mark.parametrize("name", ENGINES)
def test_each_image_has_its_own_edit(name: str, editable: Bundle) -> None:
    engine, images = engine_of(name, editable), photos(editable)
    targets, edits = np.full((len(images), 1), -1), some_cells(len(images), 5, 9)
    together = engine.run(images, targets, edits)
    for position in range(len(images)):
        only = slice(position, position + 1)
        alone = engine.run(images[only], targets[only], edits[only])
        assert relative(together.logits[position], alone.logits[0]) < 1e-4
        assert relative(together.maps[position], alone.maps[0]) < 1e-4


@pytest.mark.parametrize("size", [(4, 4), (1, 5), (50, 31)])
def test_torch_and_onnx_runtime_agree_on_edits(editable: Bundle, size: tuple[int, int]) -> None:
    images = photos(editable)
    inputs = images, np.full((len(images), 1), -1), some_cells(len(images), *size)
    onnx, torch = (engine_of(name, editable).run(*inputs) for name in ("onnx", "torch"))
    assert relative(torch.logits, onnx.logits) < 1e-4
    assert relative(torch.maps, onnx.maps) < 1e-4


@pytest.mark.parametrize("shape", [(2, 8, 8), (2, 3, 5), (1, 17, 4)])
def test_the_fake_edits_as_the_networks_do(shape: tuple[int, int, int], editable: Bundle) -> None:
    """By area; where the map is the same for every cell, the fake and a network must agree on it."""
    edit = np.abs(some_cells(*shape))
    images = photos(editable)[:2]
    targets = np.full((2, 1), -1)
    fake = engine_of("fake", editable).run(images, targets, edit).maps[:, 0]
    real = engine_of("onnx", editable).run(images, targets, edit).maps[:, 0]
    step = fake.shape[-1] // real.shape[-1]
    averaged = fake.reshape(2, real.shape[1], step, real.shape[2], step).mean(axis=(2, 4))
    np.testing.assert_allclose(averaged, real, atol=1e-5)


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
    if bundle.card.explanation.takes_attention:
        edits = some_cells(len(images), 5, 9)
        edited = [engine_of(name, bundle, device).run(images, every, edits) for device in ("cpu", "cuda")]
        assert relative(edited[1].logits, edited[0].logits) < 5e-3
        assert relative(edited[1].maps, edited[0].maps) < 5e-3


# every method, in torch


def test_torch_explains_by_every_method_and_leaves_nothing_behind(networks: Path) -> None:
    torch = pytest.importorskip("torch")
    for name in ("graph", "gradient"):
        bundle = read_bundle(networks / name / "1")
        engine = make_torch_engine(bundle, Settings(device="cpu"))
        module = engine._module
        state = {key: tensor.clone() for key, tensor in module.classifier.state_dict().items()}
        images, targets = photos(bundle)[:3], np.array([[-1, 2], [0, 0], [3, -1]])
        alone = engine.run(images, np.empty((3, 0), np.int64))
        assert alone.maps.shape[1] == 0
        for spec in bundle.card.methods:
            if spec.needs == "predictions":
                continue
            found = engine.explain(spec.method, images, targets)
            assert found.maps.shape[:2] == (3, 2)
            assert np.isfinite(found.maps).all()
            np.testing.assert_allclose(found.logits, alone.logits, rtol=1e-4, atol=1e-4)
        for parameter in module.classifier.parameters():
            assert parameter.grad is None
            assert not parameter.requires_grad
        assert all(torch.equal(tensor, state[key]) for key, tensor in module.classifier.state_dict().items())
        assert len({id(one.classifier) for one in engine._methods.values()}) == 1  # one copy of the weights
        with pytest.raises(UnsupportedMethod, match="unknown explanation 'lime'"):
            engine.explain("lime", images, targets)
        engine.close()


def test_torch_says_whether_its_own_method_takes_a_gradient(networks: Path) -> None:
    pytest.importorskip("torch")
    found = [
        make_torch_engine(read_bundle(networks / name / "1"), Settings(device="cpu")).differentiates
        for name in ("graph", "gradient")
    ]
    assert found == [False, True]


def test_auto_takes_torch_where_there_is_no_graph(networks: Path) -> None:
    engine = engine_of("auto", read_bundle(networks / "gradient" / "1"))
    assert engine.name == "torch"
    engine.warm_up()


@pytest.mark.gpu
def test_cuda_explains_as_the_cpu_does_in_two_threads_at_once(networks: Path) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    bundle = read_bundle(networks / "gradient" / "1")
    cpu, cuda = (make_torch_engine(bundle, Settings(device=device)) for device in ("cpu", "cuda"))
    images, targets = photos(bundle), np.tile([0, 1, 2, 3], (len(photos(bundle)), 1))
    none = np.empty((len(images), 0), np.int64)
    with ThreadPoolExecutor(1) as gradients, ThreadPoolExecutor(1) as passes:
        for method in ("gradcam-plus-plus", "gradcam", "guided-backprop", "text"):
            expected = cpu.explain(method, images, targets)
            explained = [gradients.submit(cuda.explain, method, images, targets) for _ in range(5)]
            predicted = [passes.submit(cuda.run, images, none) for _ in range(20)]
            for future in explained:
                assert relative(future.result().maps, expected.maps) < 2e-2
            for future in (*explained, *predicted):
                assert relative(future.result().logits, expected.logits) < 5e-3
