"""The Open Inference Protocol: what goes in and out, and that it is the service of our own API."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import pytest_asyncio
from faults import until
from services import (
    EXPLAIN,
    FILES,
    IMAGES,
    NAME,
    PNG,
    PREDICT,
    Service,
    attention_models,
    copy_bundle,
    one_model,
    serving,
    zoo_settings,
)
from tensors import HEADER, Binary, as_json, files_as_json, infer_path, outputs_of

import konkyo
from konkyo.service.engines import make_engine
from konkyo.service.engines.base import Float32
from konkyo.service.keys import append_key, make_key
from konkyo.service.settings import ZOO

pytestmark = pytest.mark.asyncio(loop_scope="module")

INFER = infer_path(NAME)
ALL = ["logits", "probabilities", "label", "map"]
LABELS = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service() -> AsyncIterator[Service]:
    """The shipped model in its real engine."""
    async with serving(zoo_settings(), make_engine=make_engine) as running:
        yield running


async def explained(service: Service, number: int, path: str = EXPLAIN, **parameters: Any) -> dict[str, Any]:
    """What our own API answers about image ``number``."""
    response = await service.client.post(
        path, content=FILES[number], headers=PNG, params={"top_k": 1000, "map": "float32", **parameters}
    )
    assert response.status_code == 200, response.text
    return response.json()  # type: ignore[no-any-return]


def logits_in(body: dict[str, Any]) -> list[float]:
    return [entry["logit"] for entry in sorted(body["top_k"], key=lambda entry: entry["index"])]


def scores_in(body: dict[str, Any]) -> list[float]:
    return [entry["score"] for entry in sorted(body["top_k"], key=lambda entry: entry["index"])]


def map_in(entry: dict[str, Any]) -> Float32:
    sent = entry["map"]
    return np.frombuffer(base64.b64decode(sent["data"]), "<f4").reshape(sent["height"], sent["width"])


async def post(service: Service, path: str = INFER, **request: Any) -> httpx.Response:
    return await service.client.post(path, **request)


# What is here


async def test_the_server(service: Service) -> None:
    for path in ("/v2", "/v2/"):
        response = await service.client.get(path)
        assert response.json() == {
            "name": "konkyo",
            "version": konkyo.__version__,
            "extensions": ["binary_tensor_data", "classification", "model_repository", "statistics"],
        }


async def test_health(service: Service) -> None:
    assert (await service.client.get("/v2/health/live")).json() == {"live": True}
    assert (await service.client.get("/v2/health/ready")).json() == {"live": True, "ready": True}


@pytest.mark.parametrize("version", ["", "/versions/1"])
async def test_the_tensors_of_a_model(service: Service, version: str) -> None:
    response = await service.client.get(f"/v2/models/{NAME}{version}")
    assert response.json() == {
        "name": NAME,
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [
            {"name": "image", "datatype": "UINT8", "shape": [-1, 32, 32, 3]},
            {"name": "image_bytes", "datatype": "BYTES", "shape": [-1]},
            {"name": "targets", "datatype": "INT64", "shape": [-1, -1], "parameters": {"optional": True}},
        ],
        "outputs": [
            {"name": "logits", "datatype": "FP32", "shape": [-1, 10]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
            {"name": "map", "datatype": "FP32", "shape": [-1, -1, -1, -1]},
            {"name": "overlay", "datatype": "BYTES", "shape": [-1]},
        ],
    }
    assert (await service.client.get(f"/v2/models/{NAME}{version}/ready")).json() == {
        "name": NAME,
        "ready": True,
    }


async def test_a_model_with_an_attention_map_takes_one() -> None:
    async with serving(zoo_settings(repository=attention_models())) as service:
        inputs = (await service.client.get("/v2/models/three")).json()["inputs"]
        assert inputs[-1] == {
            "name": "attention", "datatype": "FP32", "shape": [-1, -1, -1], "parameters": {"optional": True},
        }  # fmt: skip


async def test_what_is_not_ready_says_so(tmp_path: Path) -> None:
    copy_bundle(ZOO / NAME / "1", tmp_path, "1")
    (tmp_path / NAME / "1" / "model.onnx").write_bytes(b"broken")
    async with serving(zoo_settings(repository=tmp_path)) as service:
        for path in ("/v2/health/ready", f"/v2/models/{NAME}/ready", f"/v2/models/{NAME}/versions/1/ready"):
            response = await service.client.get(path)
            assert response.status_code == 503
            assert list(response.json()) == ["error"]
            assert "model.onnx" in response.json()["error"]
            assert response.headers["retry-after"] == "1"
        for method, path in (("GET", f"/v2/models/{NAME}"), ("POST", INFER)):
            response = await service.client.request(method, path, content=FILES[0], headers={HEADER: "0"})
            assert response.status_code == 503
            assert "could not be loaded" in response.json()["error"]
        assert (await service.client.get("/v2/health/live")).json() == {"live": True}


async def test_nothing_new_is_ready_while_draining() -> None:
    async with serving(zoo_settings()) as service:
        service.state.draining = True
        response = await service.client.get("/v2/health/ready")
        assert (response.status_code, response.json()) == (503, {"error": "draining"})


# What is answered

FORMS: dict[str, Callable[[list[int]], dict[str, Any]]] = {
    "JSON, nested": lambda numbers: {"json": {"inputs": [as_json("image", pixels(numbers))]}},
    "JSON, flat": lambda numbers: {"json": {"inputs": [as_json("image", pixels(numbers), flat=True)]}},
    "JSON, as floats": lambda numbers: {
        "json": {"inputs": [as_json("image", pixels(numbers).astype(np.float64), "UINT8")]}
    },
    "JSON without a type": lambda numbers: {
        "content": json.dumps({"inputs": [as_json("image", pixels(numbers))]}).encode()
    },
    "binary": lambda numbers: Binary().add("image", pixels(numbers)).request(),
    "files in base64": lambda numbers: {
        "json": {"inputs": [files_as_json([base64.b64encode(FILES[number]).decode() for number in numbers])]}
    },
    "files": lambda numbers: Binary().add_files([FILES[number] for number in numbers]).request(),
    "a raw file": lambda numbers: {"content": FILES[numbers[0]], "headers": {HEADER: "0"}},
}


def pixels(numbers: list[int]) -> Any:
    return np.stack([IMAGES[number] for number in numbers])


@pytest.mark.parametrize("version", [None, "1"])
@pytest.mark.parametrize("form", FORMS)
async def test_every_form_of_a_request_is_answered_as_our_own_api_answers(
    service: Service, form: str, version: str | None
) -> None:
    response = await post(service, infer_path(NAME, version), **FORMS[form]([5]))
    body = await explained(service, 5)
    outputs = outputs_of(response)
    assert list(outputs) == ALL
    assert outputs["logits"].tolist() == [logits_in(body)]
    assert outputs["probabilities"].tolist() == [scores_in(body)]
    assert outputs["label"] == [body["label"].encode() if form == "a raw file" else body["label"]]
    np.testing.assert_array_equal(outputs["map"], [[map_in(body["explanation"])]], strict=True)
    assert response.headers["x-model"] == NAME
    assert response.headers["x-model-version"] == "1"
    binary = form == "a raw file"
    assert response.headers["content-type"] == ("application/octet-stream" if binary else "application/json")
    assert (HEADER in response.headers) == binary


@pytest.mark.parametrize("form", [form for form in FORMS if form != "a raw file"])
async def test_several_images_are_answered_in_order(service: Service, form: str) -> None:
    numbers = [3, 1, 4, 1, 5]
    outputs = outputs_of(await post(service, **FORMS[form](numbers)))
    alone = [await explained(service, number) for number in numbers]
    assert outputs["label"] == [body["label"] for body in alone]
    # Kernels of another batch size round otherwise.
    np.testing.assert_allclose(outputs["logits"], [logits_in(body) for body in alone], rtol=1e-4, atol=1e-5)
    maps = [[map_in(body["explanation"])] for body in alone]
    np.testing.assert_allclose(outputs["map"], maps, rtol=1e-3, atol=1e-4)


async def test_the_head_of_an_answer(service: Service) -> None:
    request = {"inputs": [as_json("image", pixels([0]))], "outputs": [{"name": "label"}]}
    named = await post(service, json={"id": "a \u65e5", **request})
    assert named.json() == {
        "model_name": NAME,
        "model_version": "1",
        "id": "a \u65e5",
        "outputs": [{"name": "label", "datatype": "BYTES", "shape": [1], "data": ["frog"]}],
    }
    for unnamed in (request, {**request, "id": None}, {**request, "id": ""}):
        response = await post(service, json=unnamed, headers={"x-request-id": "mine"})
        assert response.json()["id"] == response.headers["x-request-id"] == "mine"


@pytest.mark.parametrize("all_binary", [True, False, None])
async def test_each_output_is_sent_as_it_was_asked_for(service: Service, all_binary: bool | None) -> None:
    asked = [
        {"name": "map", "parameters": {"binary_data": True}},
        {"name": "label", "parameters": {"binary_data": False}},
        {"name": "logits"},
    ]
    parameters = {} if all_binary is None else {"parameters": {"binary_data_output": all_binary}}
    request = {"inputs": [as_json("image", pixels([2]))], "outputs": asked, **parameters}
    response = await post(service, json=request)
    text = json.loads(response.content[: int(response.headers[HEADER])])
    sizes = [output.get("parameters", {}).get("binary_data_size") for output in text["outputs"]]
    assert sizes == [4 * 32 * 32, None, 40 if all_binary else None]
    assert [output["name"] for output in text["outputs"]] == ["map", "label", "logits"]
    body = await explained(service, 2)
    outputs = outputs_of(response)
    assert outputs["label"] == [body["label"]]
    assert outputs["logits"].tolist() == [logits_in(body)]


async def test_binary_text_is_the_text(service: Service) -> None:
    wanted = [{"name": "label", "parameters": {"binary_data": True}}]
    response = await post(service, json={"inputs": [as_json("image", pixels([0, 1]))], "outputs": wanted})
    assert response.content[int(response.headers[HEADER]) :] == b"\x04\0\0\0frog\x03\0\0\0cat"


@pytest.mark.parametrize(("name", "best"), [("logits", 3), ("probabilities", 1), ("logits", 99)])
async def test_the_best_classes_as_text(service: Service, name: str, best: int) -> None:
    request = {"inputs": [as_json("image", pixels([0, 1]))]}
    wanted = [{"name": name, "parameters": {"classification": best}}, {"name": "map"}]
    response = await post(service, json={**request, "outputs": wanted})
    plain = outputs_of(await post(service, json={**request, "outputs": [{"name": name}, {"name": "map"}]}))
    expected = [
        f"{row[index]:.6f}:{index}:{LABELS[index]}"
        for row in plain[name]
        for index in np.argsort(-row)[:best]
    ]
    assert outputs_of(response)[name] == expected
    assert response.json()["outputs"][0]["shape"] == [2, min(best, 10)]


async def test_each_image_has_its_own_targets(service: Service) -> None:
    targets = np.array([[3, -1], [-1, 8]], np.int64)
    for request in (
        {"json": {"inputs": [as_json("image", pixels([6, 7])), as_json("targets", targets)]}},
        Binary().add("targets", targets).add("image", pixels([6, 7])).request(),
    ):
        maps = outputs_of(await post(service, **request))["map"]
        assert maps.shape == (2, 2, 32, 32)
        for number, row, got in zip((6, 7), targets, maps, strict=True):
            body = await explained(service, number)
            classes = [body["index"] if target < 0 else int(target) for target in row]
            own = await explained(service, number, targets=",".join(map(str, classes)))
            expected = [map_in(entry) for entry in own["explanation"]["maps"]]
            np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


async def test_a_class_by_name(service: Service) -> None:
    request = {"inputs": [as_json("image", pixels([6]))], "parameters": {"target": "ship"}}
    body = await explained(service, 6, target="ship")
    assert body["label"] != "ship"
    outputs = outputs_of(await post(service, json=request))
    np.testing.assert_array_equal(outputs["map"], [[map_in(body["explanation"])]])


@pytest.mark.parametrize(
    "options",
    [{}, {"overlay": "blend", "alpha": 0.5, "colormap": "turbo", "part": "both"}, {"frame": "input"}],
    ids=len,
)
async def test_the_overlay_is_the_picture_of_our_own_api(service: Service, options: dict[str, Any]) -> None:
    photo = (Path(konkyo.__file__).parent / "service/web/samples/chelsea.jpg").read_bytes()
    own = await service.client.post(EXPLAIN, content=photo, params=options, headers={"accept": "image/png"})
    wanted = [{"name": "overlay", "parameters": {"binary_data": True}}]
    binary = outputs_of(
        await post(service, **Binary().add_files([photo]).request(outputs=wanted, parameters=options))
    )
    assert binary["overlay"] == [own.content]
    request = {"inputs": [files_as_json([base64.b64encode(photo).decode()])], "parameters": options}
    text = outputs_of(await post(service, json={**request, "outputs": [{"name": "overlay"}]}))
    assert base64.b64decode(text["overlay"][0]) == own.content


async def test_the_overlay_of_pixels_is_drawn_over_them(service: Service) -> None:
    own = await service.client.post(EXPLAIN, content=FILES[4], headers={**PNG, "accept": "image/png"})
    wanted = [{"name": "overlay"}, {"name": "label"}]
    outputs = outputs_of(await post(service, **Binary().add("image", pixels([4])).request(outputs=wanted)))
    assert base64.b64decode(outputs["overlay"][0]) == own.content


async def test_another_method(networks: Path) -> None:
    settings = zoo_settings(repository=networks, engine="auto")
    async with serving(settings, make_engine=make_engine) as service:
        for method in ("gradcam", "text"):
            request = {"inputs": [as_json("image", pixels([3]))], "parameters": {"method": method}}
            outputs = outputs_of(await post(service, infer_path("graph"), json=request))
            body = await explained(service, 3, "/v1/models/graph:explain", method=method)
            np.testing.assert_array_equal(outputs["map"], [[map_in(body["explanation"])]])
        pictured = {**request, "outputs": [{"name": "overlay"}]}
        response = await post(service, infer_path("graph"), json=pictured)
        assert (response.status_code, response.json()) == (
            422, {"error": "text answers in words; accept application/json"},
        )  # fmt: skip


@pytest.mark.parametrize(("model", "maps"), [("one", 1), ("three", 3)])
async def test_an_edited_map_decides(model: str, maps: int) -> None:
    """As in our own API; there the answer without the edit is computed too, and here it is not."""
    edits = np.array([[[0, 0.5], [-2, 1]], [[-1, -1], [-1, 0.25]]], np.float32)
    async with serving(zoo_settings(repository=attention_models())) as service:
        outputs = outputs_of(
            await post(
                service,
                infer_path(model),
                **Binary().add("image", pixels([8, 9])).add("attention", edits).request(),
            )
        )
        assert service.count("inferences_total", model=model, kind="explain") == 1 + 2  # 1: the canary
        assert outputs["map"].shape == (2, maps, 32, 32)
        for index, number in enumerate((8, 9)):
            body = await explained(
                service, number, f"/v1/models/{model}:explain", attention=json.dumps(edits[index].tolist())
            )
            assert outputs["logits"][index].tolist() == logits_in(body)
            np.testing.assert_array_equal(outputs["map"][index][0], map_in(body["explanation"]))
        alone = {
            "inputs": [as_json("image", pixels([8])), as_json("attention", edits[:1])],
            "outputs": [{"name": "logits"}],
        }
        decided = outputs_of(await post(service, infer_path(model), json=alone))
        assert decided["logits"].tolist() == outputs["logits"][:1].tolist()


async def test_numbers_that_are_not_finite_are_null_in_json() -> None:
    async with serving(zoo_settings()) as service:

        def spoil(images: Any, outputs: Any) -> Any:
            outputs.maps[..., 0, 0], outputs.maps[..., 0, 1] = np.nan, np.inf
            return outputs

        service.engine.fault = spoil
        request = {"inputs": [as_json("image", pixels([0]))], "outputs": [{"name": "map"}]}
        data = (await post(service, json=request)).json()["outputs"][0]["data"]
        assert data[:2] == [None, None]
        assert data[2:] == pytest.approx(
            (IMAGES[0].mean(axis=2) / 255 - 0.9).reshape(-1)[2:].tolist(), abs=1e-6
        )
        binary = {**request, "parameters": {"binary_data_output": True}}
        sent = outputs_of(await post(service, json=binary))["map"].reshape(-1)
        assert np.isnan(sent[0])
        assert sent[1] == np.inf
        assert service.count("degenerate_maps_total", reason="non_finite") == 2


# What it is worth to the service


async def test_a_map_is_computed_only_when_it_is_asked_for() -> None:
    async with serving(zoo_settings()) as service:
        before = {kind: service.count("inferences_total", kind=kind) for kind in ("predict", "explain")}
        plain = {
            "inputs": [as_json("image", pixels([0, 1]))],
            "outputs": [{"name": "logits"}, {"name": "label"}],
        }
        targets = as_json("targets", np.array([[1], [2]], np.int64))
        for request in (plain, {**plain, "inputs": [*plain["inputs"], targets]}):
            assert (await post(service, json=request)).status_code == 200
        assert service.count("inferences_total", kind="predict") - before["predict"] == 4
        assert service.count("inferences_total", kind="explain") == before["explain"]
        assert service.count("requests_total", kind="predict", outcome="success") == 4
        assert service.count("predictions_total", label="truck") == 4
        for name in ("map", "overlay"):
            assert (await post(service, json={**plain, "outputs": [{"name": name}]})).status_code == 200
        assert service.count("inferences_total", kind="explain") - before["explain"] == 4
        assert service.count("requests_total", kind="explain", outcome="success") == 4
        assert service.count("map_entropy_count") == 4
        assert service.count("input_pixels_count") == 8
        assert service.count("input_bytes_count") == 0  # there was no file
        assert service.count("requests_total", outcome="invalid") == 0


async def test_what_a_model_has_done() -> None:
    async with serving(zoo_settings(max_batch=4)) as service:
        [before] = (await service.client.get(f"/v2/models/{NAME}/stats")).json()["model_stats"]
        assert before["inference_count"] == before["last_inference"] == 0
        held = asyncio.create_task(service.client.post(PREDICT, content=FILES[0], headers=PNG))
        service.engine.gate.shut()
        await service.engine.gate.entered()
        images = Binary().add("image", pixels(list(range(1, 8))))
        several = asyncio.create_task(post(service, **images.request(outputs=[{"name": "logits"}])))
        await until(lambda: service.depth("predict") == 7)
        service.engine.gate.open()
        assert (await held).status_code == (await several).status_code == 200
        assert (await post(service, content=b"{")).status_code == 400
        stats = []
        for path in ("/v2/models", f"/v2/models/{NAME}", f"/v2/models/{NAME}/versions/1"):
            [entry] = (await service.client.get(f"{path}/stats")).json()["model_stats"]
            stats.append(entry)
        assert stats[0] == stats[1] == stats[2]
        after = stats[0]
        assert (after["name"], after["version"]) == (NAME, "1")
        assert after["inference_count"] == 8
        assert after["execution_count"] - before["execution_count"] == 3  # of 1, 4 and 3 images
        batches = {entry["batch_size"]: entry["compute_infer"]["count"] for entry in after["batch_stats"]}
        ones = {entry["batch_size"]: entry["compute_infer"]["count"] for entry in before["batch_stats"]}
        assert batches == {1: ones[1] + 1, 3: 1, 4: 1}
        inference = after["inference_stats"]
        assert {name: entry["count"] for name, entry in inference.items()} == {
            "success": 8, "fail": 1, "queue": 8, "compute_input": 8, "compute_infer": 8, "compute_output": 8,
        }  # fmt: skip
        assert all(entry["ns"] > 0 for entry in inference.values())
        parts = sum(inference[name]["ns"] for name in ("queue", "compute_infer"))
        assert parts <= inference["success"]["ns"]
        seconds = service.count("last_inference_timestamp_seconds")
        assert after["last_inference"] == int(seconds * 1e3) > 1_700_000_000_000


# The description


@pytest.mark.parametrize("version", ["", "/versions/{version}"])
async def test_the_description_knows_both_forms(service: Service, version: str) -> None:
    document = (await service.client.get("/openapi.json")).json()
    infer = document["paths"][f"/v2/models/{{model}}{version}/infer"]["post"]
    both = ["application/json", "application/octet-stream"]
    assert sorted(infer["requestBody"]["content"]) == sorted(infer["responses"]["200"]["content"]) == both
    [header] = [entry for entry in infer["parameters"] if entry["in"] == "header"]
    assert (header["name"], header["required"]) == (HEADER, False)
    assert HEADER in infer["responses"]["200"]["headers"]
    names = infer["requestBody"]["content"]["application/json"]["schema"]["properties"]["inputs"]["items"]
    assert names["properties"]["name"]["enum"] == ["image", "image_bytes", "targets", "attention"]
    assert "422" in infer["responses"]
    for status, answer in infer["responses"].items():
        if status != "200":
            reference = answer["content"]["application/json"]["schema"]["$ref"]
            assert reference == "#/components/schemas/OipError"


# The repository


async def test_the_index_and_what_is_not_enabled(service: Service) -> None:
    entry = {"name": NAME, "version": "1", "state": "READY", "reason": ""}
    for body in (b"", b"{}", b'{"ready": true}'):
        assert (await service.client.post("/v2/repository/index", content=body)).json() == [entry]
    for what in ("load", "unload"):
        response = await service.client.post(f"/v2/repository/models/{NAME}/{what}")
        assert response.status_code == 403
        assert "KONKYO_REPOSITORY_API" in response.json()["error"]


async def test_models_are_loaded_and_unloaded(tmp_path: Path) -> None:
    copy_bundle(ZOO / NAME / "1", tmp_path, "1")
    async with serving(zoo_settings(repository=tmp_path, repository_api=True)) as service:
        api = service.client
        unloaded = await api.post(
            f"/v2/repository/models/{NAME}/unload", json={"parameters": {"unload_dependents": True}}
        )
        assert (unloaded.status_code, unloaded.json()) == (200, {"name": NAME, "state": "UNAVAILABLE"})
        assert (await api.post("/v2/repository/index", json={"ready": True})).json() == []
        [entry] = (await api.post("/v2/repository/index")).json()
        assert (entry["name"], entry["version"], entry["state"]) == (NAME, "1", "UNAVAILABLE")
        gone = await post(service, json={"inputs": [as_json("image", pixels([0]))]})
        assert gone.status_code in (404, 503)
        assert list(gone.json()) == ["error"]

        copy_bundle(ZOO / NAME / "1", tmp_path, "2")
        loaded = await api.post(f"/v2/repository/models/{NAME}/load", json={})
        assert (loaded.status_code, loaded.json()) == (200, {"name": NAME, "state": "READY"})
        answer = await post(service, json={"inputs": [as_json("image", pixels([0]))]})
        assert answer.json()["model_version"] == "2"
        assert (await post(service, "/v2/repository/models/none/load")).status_code == 404
        override = await api.post(
            f"/v2/repository/models/{NAME}/load",
            json={"parameters": {"config": "{}", "file:1/model.onnx": "AA=="}},
        )
        assert override.status_code == 400
        assert "parameters are not taken" in override.json()["error"]


# Who may ask


async def test_keys_and_their_scopes(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    keys = {}
    for name, scopes in {"label": ["predict"], "both": ["predict", "explain"], "admin": ["admin"]}.items():
        keys[name], key = make_key(name, scopes)
        append_key(file, key)
    label = {"inputs": [as_json("image", pixels([0]))], "outputs": [{"name": "label"}]}
    with_map = {**label, "outputs": [{"name": "label"}, {"name": "map"}]}
    async with serving(zoo_settings(repository=one_model(), api_keys_file=file)) as service:

        async def status(who: str, path: str, body: Any = None) -> int:
            headers = {"x-api-key": keys[who]} if who else {}
            method = "GET" if body is None else "POST"
            response = await service.client.request(method, path, json=body, headers=headers)
            if response.status_code >= 400:
                assert list(response.json()) == ["error"]
                assert isinstance(response.json()["error"], str)
                assert ("www-authenticate" in response.headers) == (response.status_code == 401)
            return response.status_code

        for path in ("/v2", "/v2/health/live", "/v2/health/ready"):
            assert await status("", path) == 200
        for path in (f"/v2/models/{NAME}", f"/v2/models/{NAME}/ready", "/v2/models/stats"):
            assert [await status(who, path) for who in ("", "label")] == [401, 200]
        whos = ("", "admin", "label", "both")
        assert [await status(who, INFER, label) for who in whos] == [401, 403, 200, 200]
        assert [await status(who, INFER, with_map) for who in whos] == [401, 403, 403, 200]
        # No outputs are all outputs, and so a map.
        assert await status("label", INFER, {"inputs": label["inputs"]}) == 403
        edited = as_json("attention", np.zeros((1, 1, 1), np.float32))
        assert await status("label", INFER, {**label, "inputs": [*label["inputs"], edited]}) == 403
        load = f"/v2/repository/models/{NAME}/load"
        assert [await status(who, load, {}) for who in whos] == [401, 403, 403, 403]
        assert [await status(who, "/v2/repository/index", {}) for who in whos] == [401, 200, 200, 200]
