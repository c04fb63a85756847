"""Which explanations a model can be asked for, and what comes of each."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from PIL import Image
from services import FILES, IMAGES, PNG, Service, copy_bundle, serving, zoo_settings

from konkyo import rendering
from konkyo.errors import BundleError, UnsupportedMethod
from konkyo.models.bundle import WEIGHTS, Bundle, read_bundle
from konkyo.service.engines import make_engine
from konkyo.service.engines.base import Float32, UInt8
from konkyo.service.engines.fake import FakeEngine
from konkyo.service.methods import Methods
from konkyo.service.schemas import Explained, ModelDetail, ModelList
from konkyo.service.settings import ZOO, Settings

GRAPH, GRADIENT = "/v1/models/graph", "/v1/models/gradient"
LABELS = ("good", "crack", "dent", "stain")
BY_PREDICTIONS = {"occlusion", "rise"}
FINE = ("guided-backprop", "deconvnet", "guided-gradcam", "deconv-gradcam")


def on_module_loop(test: Any) -> Any:
    return pytest.mark.asyncio(loop_scope="module")(test)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(networks: Path) -> AsyncIterator[Service]:
    settings = zoo_settings(repository=networks, engine="auto")
    async with serving(settings, make_engine=make_engine) as service:
        yield service


async def ask(service: Service, path: str = GRAPH, number: int = 1, **parameters: Any) -> dict[str, Any]:
    """Post image ``number``; the answer, of the documented type."""
    response = await service.client.post(
        f"{path}:explain", content=FILES[number], headers=PNG, params=parameters
    )
    assert response.status_code == 200, response.text
    Explained.model_validate_json(response.content, strict=True)
    return response.json()  # type: ignore[no-any-return]


async def refused(service: Service, path: str = GRAPH, **parameters: Any) -> dict[str, Any]:
    headers = {**PNG, "accept": parameters.pop("accept", "application/json")}
    response = await service.client.post(
        f"{path}:explain", content=FILES[1], headers=headers, params=parameters
    )
    assert response.status_code == 422, response.text
    return response.json()["error"]  # type: ignore[no-any-return]


async def drawn(service: Service, path: str = GRAPH, number: int = 1, **parameters: Any) -> tuple[UInt8, Any]:
    """The picture, and its headers."""
    headers = {**PNG, "accept": "image/png"}
    response = await service.client.post(
        f"{path}:explain", content=FILES[number], headers=headers, params=parameters
    )
    assert response.status_code == 200, response.text
    with Image.open(io.BytesIO(response.content)) as opened:
        return np.asarray(opened), response.headers


def values(entry: dict[str, Any]) -> Float32:
    """The map of an entry, sent as float32."""
    map_ = entry["map"]
    assert map_["encoding"] == "float32"
    return np.frombuffer(base64.b64decode(map_["data"]), "<f4").reshape(map_["height"], map_["width"])


def listed(bundle: Bundle, **settings: Any) -> Methods:
    return Methods(bundle, Settings(**settings), FakeEngine(bundle))


# What there is


def test_every_method_of_the_card_where_torch_runs(networks: Path) -> None:
    bundle = read_bundle(networks / "graph" / "1")
    for engine in ("auto", "torch"):
        methods = listed(bundle, engine=engine)
        assert methods.names() == [spec.method for spec in bundle.card.methods]
        assert methods.names()[0] == methods.default.name == methods.find(None).name == "cam"
        assert {"gradcam", "guided-backprop", "text", *BY_PREDICTIONS} <= set(methods.names())
        assert {method.name for method in methods if method.long} == BY_PREDICTIONS
        assert {method.name for method in methods if method.differentiates} == (
            set(methods.names()) - BY_PREDICTIONS - {"cam"}
        )


@pytest.mark.parametrize("engine", ["onnx", "fake"])
def test_a_server_without_torch_has_the_graph_and_predictions(networks: Path, engine: str) -> None:
    methods = listed(read_bundle(networks / "graph" / "1"), engine=engine)
    assert set(methods.names()) == {"cam"} | BY_PREDICTIONS
    with pytest.raises(
        UnsupportedMethod, match=rf"this server runs {engine} only \(engine={engine}\)"
    ) as caught:
        methods.find("gradcam")
    assert caught.value.detail["methods"] == methods.names()
    assert set(caught.value.detail["unavailable"]) >= {"gradcam", "text"}


@pytest.mark.parametrize("missing", ["torch", "timm", "safetensors"])
def test_what_is_not_installed_is_named(
    networks: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find(name))
    methods = listed(read_bundle(networks / "graph" / "1"), engine="auto")
    with pytest.raises(UnsupportedMethod, match=r"needs torch: install konkyo\[torch\]"):
        methods.find("gradcam")


def test_a_bundle_without_weights_says_so(networks: Path) -> None:
    bundle = read_bundle(networks / "graph" / "1")
    files = {name: entry for name, entry in bundle.card.files.items() if name != WEIGHTS}
    bare = Bundle(bundle.path, bundle.card.model_copy(update={"files": files}), bundle.digest)
    with pytest.raises(UnsupportedMethod, match=r"needs weights\.safetensors, which the bundle has not"):
        listed(bare, engine="auto").find("gradcam")


def test_an_older_card_has_its_own_method_and_predictions() -> None:
    bundle = read_bundle(ZOO / "gcm-cifar10" / "1")
    older = Bundle(bundle.path, bundle.card.model_copy(update={"methods": ()}), bundle.digest)
    methods = listed(older, engine="auto")
    assert methods.names() == ["gcm", "occlusion", "rise"]
    assert [method.map_kind for method in methods] == ["class_weight_map", "score_drop", "saliency_map"]
    with pytest.raises(UnsupportedMethod, match=r"'gradcam'$"):  # and no reason, as none is known
        methods.find("gradcam")


@on_module_loop
async def test_the_lists(service: Service, networks: Path) -> None:
    response = await service.client.get("/v1/models")
    ModelList.model_validate_json(response.content, strict=True)
    summaries = {entry["name"]: entry for entry in response.json()["models"]}
    assert summaries["graph"]["default_method"] == "cam"
    assert summaries["gradient"]["default_method"] == "gradcam-plus-plus"

    response = await service.client.get(GRADIENT)
    ModelDetail.model_validate_json(response.content, strict=True)
    body = response.json()
    assert (body["engine"], body["ready"]) == ("torch", True)
    methods = {method["name"]: method for method in body["methods"]}
    assert list(methods) == summaries["gradient"]["methods"]
    assert methods["gradcam-plus-plus"] == {
        "name": "gradcam-plus-plus",
        "map_kind": "class_activation_map",
        "class_specific": True,
        "needs": "weights",
        "runtime": "torch",
        "default": True,
        "long": False,
    }
    assert (methods["rise"]["needs"], methods["rise"]["long"]) == ("predictions", True)
    graph = {method["name"]: method for method in (await service.client.get(GRAPH)).json()["methods"]}
    assert (graph["cam"]["needs"], graph["cam"]["runtime"]) == ("graph", "onnx")
    assert (graph["gradcam"]["needs"], graph["gradcam"]["runtime"]) == ("weights", "torch")
    assert graph["occlusion"]["runtime"] == "onnx"


@on_module_loop
async def test_a_model_that_is_not_loaded_lists_no_methods(networks: Path) -> None:
    async with serving(zoo_settings(repository=networks, engine="onnx"), make_engine=make_engine) as service:
        body = (await service.client.get(GRADIENT)).json()
        assert (body["state"], body["methods"]) == ("failed", [])
        assert "no model.onnx, as those have none whose explanation takes a gradient" in body["failure"]
        refusal = await service.client.post(f"{GRADIENT}:explain", content=FILES[1])
        assert refusal.status_code == 503


def test_engine_onnx_cannot_load_what_takes_a_gradient(networks: Path) -> None:
    bundle = read_bundle(networks / "gradient" / "1")
    with pytest.raises(BundleError, match="serve it with engine=torch or engine=auto"):
        make_engine(bundle, Settings(engine="onnx", device="cpu"))


@on_module_loop
async def test_what_the_model_cannot_do_is_refused_with_the_list(service: Service) -> None:
    error = await refused(service, method="lime")
    assert error["code"] == "unsupported_method"
    assert error["detail"]["methods"][0] == "cam"
    assert error["detail"]["unavailable"] == {}


# Every method over HTTP is the method itself


@on_module_loop
@pytest.mark.parametrize("path", [GRAPH, GRADIENT])
async def test_every_method_answers_as_it_does_in_python(service: Service, networks: Path, path: str) -> None:
    import torch

    from konkyo.models.explained import Explained as Module
    from konkyo.models.loading import load_explained

    bundle = read_bundle(networks / path.rpartition("/")[2] / "1")
    classifier = load_explained(bundle).classifier
    image = torch.from_numpy(IMAGES[1].copy())[None]
    for method in (await service.client.get(path)).json()["methods"]:
        if method["long"]:
            continue
        body = await ask(service, path, method=method["name"], targets="2,good,2", map="float32", top_k=4)
        logits, maps = Module(classifier, method["name"])(image, torch.tensor([[2, 0, 2]]))
        entries = body["explanation"]["maps"]
        assert [entry["target"]["index"] for entry in entries] == [2, 0, 2]
        assert body["explanation"]["method"] == method["name"]
        scale = float(maps.detach().abs().max())
        for entry, expected in zip(entries, maps[0].detach().numpy(), strict=True):
            np.testing.assert_allclose(values(entry), expected, rtol=0, atol=1e-4 * scale)
        found = {entry["index"]: entry["logit"] for entry in body["top_k"]}
        assert [found[index] for index in range(4)] == pytest.approx(logits[0].tolist(), rel=1e-3, abs=1e-4)


@on_module_loop
@pytest.mark.parametrize("path", [GRAPH, GRADIENT])
async def test_where_the_time_of_a_method_is_spent(service: Service, path: str) -> None:
    own, gradient = await ask(service, path), await ask(service, path, method="gradcam")
    graph = path == GRAPH
    assert (own["timing_ms"]["forward"] > 0) == graph
    assert (own["timing_ms"]["explain"] > 0) != graph
    assert gradient["timing_ms"]["forward"] == 0 < gradient["timing_ms"]["explain"]
    predicted = await service.client.post(f"{path}:predict", content=FILES[1])
    assert predicted.json()["timing_ms"]["explain"] == 0 < predicted.json()["timing_ms"]["forward"]
    assert service.count("stage_duration_seconds_count", stage="explain") > 0
    assert service.count("queue_capacity", model=path.rpartition("/")[2], kind="gradcam") == 256


@on_module_loop
async def test_the_entropy_is_watched_of_the_own_method_alone(service: Service) -> None:
    before = service.count("map_entropy_count", model="graph")
    await ask(service, method="gradcam", targets="0,1")
    assert service.count("map_entropy_count", model="graph") == before
    await ask(service, targets="0,1")
    assert service.count("map_entropy_count", model="graph") == before + 2


@on_module_loop
async def test_an_edit_is_refused_by_a_method_that_takes_none(service: Service) -> None:
    response = await service.client.post(
        f"{GRAPH}:explain", files={"image": FILES[1]}, data={"attention": "[[1]]", "method": "gradcam"}
    )
    assert response.status_code == 422
    assert "by gradcam cannot be edited; only attention maps can" in response.json()["error"]["message"]


# Explaining a failure


@on_module_loop
@pytest.mark.parametrize("path", [GRAPH, GRADIENT])
@pytest.mark.parametrize("method", [None, "gradcam", "guided-backprop", "text"])
async def test_the_predicted_and_the_true_class(service: Service, path: str, method: str | None) -> None:
    options = {"map": "float32", "top_k": 4, **({"method": method} if method else {})}
    own = await ask(service, path, **options)
    wrong = (own["index"] + 1) % 4
    body = await ask(service, path, truth=LABELS[wrong], **options)
    score = next(entry["score"] for entry in own["top_k"] if entry["index"] == wrong)
    assert body["truth"] == {
        "label": LABELS[wrong], "index": wrong, "score": pytest.approx(score, rel=1e-4), "correct": False,
    }  # fmt: skip
    predicted, true = body["explanation"]["maps"]
    assert (predicted["role"], predicted["target"]["index"]) == ("predicted", own["index"])
    assert (true["role"], true["target"]["index"]) == ("true", wrong)
    scale = np.abs(values(own["explanation"])).max()
    np.testing.assert_allclose(values(predicted), values(own["explanation"]), rtol=0, atol=1e-5 * scale)
    alone = await ask(service, path, target=wrong, **options)
    np.testing.assert_allclose(values(true), values(alone["explanation"]), rtol=0, atol=1e-5 * scale)
    assert {key: body["explanation"][key] for key in predicted} == predicted


@on_module_loop
async def test_of_a_right_answer_there_is_one_map(service: Service) -> None:
    own = await ask(service)
    body = await ask(service, truth=own["index"])
    assert body["truth"]["correct"] is True
    assert [entry["role"] for entry in body["explanation"]["maps"]] == ["predicted"]
    picture, headers = await drawn(service, truth=own["index"])
    assert picture.shape == (32, 32, 3)
    assert (headers["x-truth"], headers["x-maps"]) == (own["label"], "predicted")


@on_module_loop
@pytest.mark.parametrize("method", ["cam", "guided-backprop"])
@pytest.mark.parametrize("frame", ["original", "input"])
async def test_a_failure_as_a_picture_lies_side_by_side(service: Service, method: str, frame: str) -> None:
    own = await ask(service, method=method)
    wrong = (own["index"] + 1) % 4
    options = {"method": method, "frame": frame}
    picture, headers = await drawn(service, truth=wrong, **options)
    assert picture.shape == (32, 32 + 4 + 32, 3)
    assert (picture[:, 32:36] == 255).all()
    assert (headers["x-truth"], headers["x-maps"]) == (LABELS[wrong], "predicted,true")
    for side, target in ((picture[:, :32], own["index"]), (picture[:, 36:], wrong)):
        alone, _ = await drawn(service, target=target, **options)
        assert np.abs(side.astype(int) - alone.astype(int)).max() <= 2


@on_module_loop
async def test_each_of_several_images_has_the_truth(service: Service) -> None:
    parts = [("image", FILES[number]) for number in (1, 2, 3)]
    response = await service.client.post(f"{GRAPH}:explain", files=parts, data={"truth": "dent"})
    for body in response.json()["explanations"]:
        assert body["truth"]["index"] == 2
        assert body["explanation"]["maps"][-1]["target"]["index"] == 2


@on_module_loop
async def test_truth_needs_maps_of_a_class(service: Service) -> None:
    from services import attention_models

    async with serving(zoo_settings(repository=attention_models())) as attentive:
        response = await attentive.client.post(
            "/v1/models/one:explain", content=FILES[1], params={"truth": 1}
        )
        assert response.status_code == 422
        assert response.json()["error"]["detail"] == {"parameter": "truth"}
    assert (await refused(service, truth=1, target=2))["detail"] == {"parameter": "truth"}


# In words


@on_module_loop
async def test_the_neurons_for_and_against_a_class_by_name(service: Service) -> None:
    body = await ask(service, method="text", neurons=3, map="float32", target="dent")
    explanation = body["explanation"]
    importances = values(explanation)
    assert importances.shape == (1, 64)
    assert body["geometry"]["map"] is None
    assert explanation["regions"] == []
    text = explanation["text"]
    named = importances[0, ::2]  # every second neuron has a name
    order = np.argsort(-named, kind="stable")
    because = [2 * int(unit) for unit in order if named[unit] > 0][:3]
    despite = [2 * int(unit) for unit in order[::-1] if named[unit] < 0][:3]
    assert [unit["neuron"] for unit in text["because"]] == because != []
    assert [unit["neuron"] for unit in text["despite"]] == despite != []
    first = text["because"][0]
    assert (first["name"], first["iou"]) == (f"concept {because[0]}", 0.25)
    assert first["importance"] == pytest.approx(importances[0, because[0]])
    assert first["rank"] == 1 + int((importances[0] > importances[0, because[0]]).sum())
    words = [", ".join(f"concept {unit}" for unit in units) for units in (because, despite)]
    assert text["words"] == f"dent: because of {words[0]}; despite {words[1]}"


@on_module_loop
async def test_neurons_without_names_go_by_their_channel(service: Service) -> None:
    explanation = (await ask(service, GRADIENT, method="text", neurons=1))["explanation"]
    assert explanation["map"] is None
    (unit,) = explanation["text"]["because"]
    assert (unit["name"], unit["iou"], unit["rank"]) == (None, None, 1)
    assert f"because of neuron {unit['neuron']}" in explanation["text"]["words"]


@on_module_loop
@pytest.mark.parametrize(
    "parameters",
    [{"accept": "image/png"}, {"overlay": "blend"}, {"map": "png"}],
    ids=lambda case: next(iter(case)),
)
async def test_words_have_no_picture(service: Service, parameters: dict[str, str]) -> None:
    error = await refused(service, method="text", **parameters)
    assert error["code"] == "invalid_parameter"
    assert error["message"].startswith("text answers in words")


async def test_names_of_another_layer_are_an_error_of_the_request(networks: Path, tmp_path: Path) -> None:
    from konkyo.export.neurons import write_neurons
    from konkyo.models.neurons import NamedNeuron, Neurons

    copy = read_bundle(copy_bundle(networks / "graph" / "1", tmp_path))
    far = Neurons(layer="fc", threshold=0.05, neurons={1000: NamedNeuron(concept="fur", iou=0.5)})
    write_neurons(copy, far)
    async with serving(zoo_settings(repository=tmp_path, engine="torch"), make_engine=make_engine) as other:
        response = await other.client.post(f"{GRAPH}:explain", content=FILES[1], params={"method": "text"})
        assert (response.status_code, response.json()["error"]["code"]) == (500, "inference_failed")
        assert (await other.client.get("/readyz")).status_code == 200


async def test_names_that_cannot_be_read_are_found_at_the_start(networks: Path, tmp_path: Path) -> None:
    from konkyo.models.bundle import NEURONS, describe_file

    folder = copy_bundle(networks / "graph" / "1", tmp_path)
    (folder / NEURONS).write_text('{"layer": 3}')
    card = json.loads((folder / "card.json").read_text())
    card["files"][NEURONS] = describe_file(folder / NEURONS).model_dump()
    (folder / "card.json").write_text(json.dumps(card))
    async with serving(zoo_settings(repository=tmp_path, engine="onnx"), make_engine=make_engine) as other:
        body = (await other.client.get(GRAPH)).json()
        assert body["state"] == "failed"
        assert "not names of neurons" in body["failure"]


# Pictures of gradients


@on_module_loop
@pytest.mark.parametrize("method", FINE)
async def test_a_gradient_is_grey_where_it_is_nothing(service: Service, method: str) -> None:
    explanation = (await ask(service, method=method, map="float32"))["explanation"]
    map_ = values(explanation)
    assert map_.shape == (32, 32)
    picture, _ = await drawn(service, method=method)
    assert picture.shape == (32, 32, 3)
    assert (picture[..., 0] == picture[..., 1]).all()
    assert (picture[..., 0] == picture[..., 2]).all()
    strongest = np.quantile(np.abs(map_), 0.995)
    expected = np.clip((map_ / strongest + 1) / 2 * 255, 0, 255)
    assert np.abs(picture[..., 0] - expected).max() <= 2
    one, _ = await drawn(service, method=method, part="positive")
    assert np.abs(one[..., 0] - np.clip(map_ / strongest * 255, 0, 255)).max() <= 2


@on_module_loop
async def test_the_regions_of_a_gradient_are_those_of_its_smoothed_positive_part(service: Service) -> None:
    body = await ask(service, method="guided-backprop", map="float32", regions=0.4)
    grounds = rendering.smoothed(values(body["explanation"]), "positive")
    affine = tuple(body["geometry"]["map_to_original"])
    expected = rendering.regions(grounds, 0.4, affine)
    assert len(body["explanation"]["regions"]) == len(expected) >= 1
    for found, region in zip(body["explanation"]["regions"], expected, strict=True):
        assert found["box"] == pytest.approx(region["box"])
        assert found["peak"] == pytest.approx(region["peak"])
