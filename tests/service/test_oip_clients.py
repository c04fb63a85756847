"""Clients of others, as they are installed, speak the Open Inference Protocol with a real server process."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from processes import Process, process
from services import FILES, IMAGES, NAME, PREDICT, one_model

import konkyo

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what the clients import is their affair
    triton: Any = pytest.importorskip("tritonclient.http")
    triton_errors: Any = pytest.importorskip("tritonclient.utils")
    oip: Any = pytest.importorskip("open_inference.openapi")
    oip_client: Any = pytest.importorskip("open_inference.openapi.client")

PHOTO = Path(konkyo.__file__).parent / "service/web/samples/chelsea.jpg"
PIXELS = np.stack(IMAGES[:3])
BATCH = {"rtol": 1e-4, "atol": 1e-5}
"""Kernels of another batch size round otherwise."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "repository").mkdir()
    shutil.copytree(one_model() / NAME, folder / "repository" / NAME)
    with process(folder, repository=folder / "repository", repository_api="true") as running:
        running.ready()
        yield running


@pytest.fixture
def client(server: Process) -> Iterator[Any]:
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}", concurrency=4) as made:
        yield made


@pytest.fixture(scope="module")
def alone(server: Process) -> list[dict[str, Any]]:
    """What our own API answers about the first images, every class."""
    answers = []
    for file in FILES[:3]:
        status, body = server.request("POST", f"/v1/models/{NAME}:explain?map=float32&top_k=10", file)
        assert status == 200
        answers.append(body)
    return answers


def logits_of(answers: list[dict[str, Any]]) -> list[list[float]]:
    return [
        [entry["logit"] for entry in sorted(answer["top_k"], key=lambda entry: entry["index"])]
        for answer in answers
    ]


def maps_of(answers: list[dict[str, Any]]) -> Any:
    data = [base64.b64decode(answer["explanation"]["map"]["data"]) for answer in answers]
    return np.stack([np.frombuffer(one, "<f4").reshape(1, 32, 32) for one in data])


def image(pixels: Any = PIXELS, *, binary: bool = True) -> Any:
    tensor = triton.InferInput("image", list(pixels.shape), "UINT8")
    return tensor.set_data_from_numpy(pixels, binary_data=binary)


def files(parts: list[bytes], *, binary: bool = True) -> Any:
    tensor = triton.InferInput("image_bytes", [len(parts)], "BYTES")
    data = parts if binary else [base64.b64encode(part) for part in parts]
    return tensor.set_data_from_numpy(np.array(data, dtype=object), binary_data=binary)


def wanted(*names: str, binary: bool = True, **others: Any) -> list[Any]:
    return [triton.InferRequestedOutput(name, binary_data=binary, **others) for name in names]


def words(result: Any, name: str) -> list[str]:
    """Elements of BYTES as text, whether they came as bytes or in JSON."""
    return [part.decode() if isinstance(part, bytes) else part for part in result.as_numpy(name).tolist()]


# tritonclient


def test_triton_reads_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(NAME)
    assert client.is_model_ready(NAME, "1")
    assert not client.is_model_ready("none")
    assert client.get_server_metadata()["name"] == "konkyo"
    for version in ("", "1"):
        found = client.get_model_metadata(NAME, version)
        assert found["inputs"][0] == {"name": "image", "datatype": "UINT8", "shape": [-1, 32, 32, 3]}
        assert [output["name"] for output in found["outputs"]][2:4] == ["label", "map"]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_triton_sends_pixels_and_reads_every_tensor(
    client: Any, alone: list[dict[str, Any]], binary_in: bool, binary_out: bool
) -> None:
    outputs = wanted("logits", "probabilities", "label", "map", "overlay", binary=binary_out)
    result = client.infer(NAME, [image(binary=binary_in)], outputs=outputs, request_id="a request")
    assert result.get_response()["id"] == "a request"
    assert result.get_response()["model_version"] == "1"
    assert words(result, "label") == [answer["label"] for answer in alone]
    np.testing.assert_allclose(result.as_numpy("logits"), logits_of(alone), **BATCH)
    np.testing.assert_allclose(result.as_numpy("map"), maps_of(alone), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(result.as_numpy("probabilities").sum(axis=1), 1, rtol=1e-5)
    pictures = result.as_numpy("overlay").tolist()
    decoded = pictures if binary_out else [base64.b64decode(picture) for picture in pictures]
    assert all(picture.startswith(b"\x89PNG\r\n\x1a\n") for picture in decoded)


@pytest.mark.parametrize("version", ["", "1"])
def test_triton_names_no_outputs_and_gets_all_but_the_overlay(
    client: Any, alone: list[dict[str, Any]], version: str
) -> None:
    result = client.infer(NAME, [image(PIXELS[:1])], model_version=version)
    names = [output["name"] for output in result.get_response()["outputs"]]
    assert names == ["logits", "probabilities", "label", "map"]
    assert result.as_numpy("logits").tolist() == logits_of(alone[:1])  # bit by bit
    np.testing.assert_array_equal(result.as_numpy("map"), maps_of(alone[:1]))


@pytest.mark.parametrize("binary", [True, False])
def test_triton_sends_files(client: Any, alone: list[dict[str, Any]], binary: bool) -> None:
    result = client.infer(NAME, [files(FILES[:3], binary=binary)], outputs=wanted("logits", "label"))
    assert words(result, "label") == [answer["label"] for answer in alone]
    np.testing.assert_allclose(result.as_numpy("logits"), logits_of(alone), **BATCH)


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_triton_compresses(client: Any, alone: list[dict[str, Any]], compression: str) -> None:
    for tensor in (image(PIXELS[:1]), image(PIXELS[:1], binary=False)):
        result = client.infer(
            NAME,
            [tensor],
            outputs=wanted("logits"),
            request_compression_algorithm=compression,
            response_compression_algorithm=compression,
        )
        assert result.as_numpy("logits").tolist() == logits_of(alone[:1])


def test_triton_asks_for_classes(client: Any, alone: list[dict[str, Any]]) -> None:
    result = client.infer(NAME, [image(PIXELS[:1])], outputs=wanted("logits", class_count=3))
    expected = [f"{entry['logit']:f}:{entry['index']}:{entry['label']}" for entry in alone[0]["top_k"][:3]]
    assert [part.decode() for part in result.as_numpy("logits")[0]] == expected


def test_triton_sends_targets_and_its_own_parameters(client: Any, server: Process) -> None:
    targets = triton.InferInput("targets", [3, 2], "INT64")
    targets.set_data_from_numpy(np.array([[0, -1], [9, 3], [-1, 4]]))
    result = client.infer(
        NAME,
        [image(), targets],
        outputs=wanted("map"),
        sequence_id=7,
        sequence_start=True,
        sequence_end=True,
        priority=1,
        timeout=60_000_000,
        parameters={"method": "gcm"},
    )
    assert result.as_numpy("map").shape == (3, 2, 32, 32)
    status, body = server.request("POST", f"/v1/models/{NAME}:explain?map=float32&targets=9,3", FILES[1])
    assert status == 200
    expected = [maps_of([{"explanation": entry}])[0, 0] for entry in body["explanation"]["maps"]]
    np.testing.assert_allclose(result.as_numpy("map")[1], expected, rtol=1e-3, atol=1e-4)


def test_triton_asks_without_waiting(client: Any, alone: list[dict[str, Any]]) -> None:
    asked = [client.async_infer(NAME, [image(PIXELS[i : i + 1])], outputs=wanted("label")) for i in (0, 1, 2)]
    found = [words(one.get_result(), "label") for one in asked]
    assert found == [[answer["label"]] for answer in alone]


@pytest.mark.parametrize(
    ("ask", "status", "message"),
    [
        (lambda client: client.infer("none", [image()]), "404", "there is no model 'none'"),
        (lambda client: client.infer(NAME, [image()], model_version="7"), "404", "has no version '7'"),
        (lambda client: client.infer(NAME, [image(PIXELS[:, :5])]), "400", "has to be [3, 32, 32, 3]"),
        (lambda client: client.infer(NAME, [files([b"x"])]), "400", "image_bytes[0]: not an image we read"),
        (lambda client: client.infer(NAME, [image()], outputs=wanted("x")), "400", "there is no output 'x'"),
        (lambda client: client.infer(NAME, [image()], parameters={"a": 1}), "422", "'a' is not a parameter"),
        (lambda client: client.get_model_config(NAME), "404", "Not Found"),
        (lambda client: client.get_system_shared_memory_status(), "404", "Not Found"),
        (lambda client: client.load_model("none"), "404", "there is no bundle of 'none'"),
        (lambda client: client.load_model(NAME, config="{}"), "400", "parameters are not taken"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_triton_reads_what_was_wrong(client: Any, ask: Any, status: str, message: str) -> None:
    with pytest.raises(triton_errors.InferenceServerException) as caught:
        ask(client)
    assert caught.value.status() == status
    assert message in caught.value.message()


def test_triton_reads_statistics(client: Any) -> None:
    def read(version: str = "") -> dict[str, Any]:
        [entry] = client.get_inference_statistics(NAME, version)["model_stats"]
        return entry  # type: ignore[no-any-return]

    before = read()
    client.infer(NAME, [image()], outputs=wanted("label"))
    after = read("1")
    assert after["inference_count"] - before["inference_count"] == 3
    assert after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"] == 3
    assert after["inference_stats"]["queue"]["count"] - before["inference_stats"]["queue"]["count"] == 3
    assert after["last_inference"] >= before["last_inference"]
    everything = client.get_inference_statistics()["model_stats"]
    assert [entry["name"] for entry in everything] == [NAME]
    assert everything[0]["inference_count"] == after["inference_count"]


def test_triton_loads_and_unloads(client: Any) -> None:
    ready = {"name": NAME, "version": "1", "state": "READY", "reason": ""}
    assert client.get_model_repository_index() == [ready]
    client.unload_model(NAME)
    assert not client.is_model_ready(NAME)
    [entry] = client.get_model_repository_index()
    assert (entry["name"], entry["state"]) == (NAME, "UNAVAILABLE")
    client.load_model(NAME)
    assert client.is_model_ready(NAME)
    assert client.get_model_repository_index() == [ready]
    assert len(client.infer(NAME, [image()]).as_numpy("label")) == 3


# The client of the protocol's authors


def test_the_protocols_own_client(server: Process, alone: list[dict[str, Any]]) -> None:
    with httpx.Client() as transport:
        client = oip_client.OpenInferenceClient(
            base_url=f"http://127.0.0.1:{server.port}", httpx_client=transport
        )
        client.check_server_liveness()
        client.check_server_readiness()
        client.check_model_readiness(NAME)
        client.check_model_version_readiness(NAME, "1")
        assert client.read_server_metadata().name == "konkyo"
        metadata = client.read_model_metadata(NAME)
        assert (metadata.platform, metadata.versions) == ("onnxruntime_onnx", ["1"])
        assert client.read_model_version_metadata(NAME, "1") == metadata
        request = oip.InferenceRequest(
            id="mine",
            inputs=[
                oip.RequestInput(name="image", shape=[3, 32, 32, 3], datatype="UINT8", data=PIXELS.tolist())
            ],
            outputs=[oip.RequestOutput(name="logits"), oip.RequestOutput(name="label")],
        )
        for answer in (
            client.model_infer(NAME, request=request),
            client.model_version_infer(NAME, "1", request=request),
        ):
            assert (answer.id, answer.model_name, answer.model_version) == ("mine", NAME, "1")
            logits, label = answer.dict()["outputs"]
            assert label["data"] == [one["label"] for one in alone]
            found = np.array(logits["data"], np.float32).reshape(logits["shape"])
            np.testing.assert_allclose(found, logits_of(alone), **BATCH)
        with pytest.raises(oip.NotFoundError) as missing:
            client.check_model_readiness("none")
        assert missing.value.body == {"error": "there is no model 'none'"}
        bad = oip.InferenceRequest(
            inputs=[oip.RequestInput(name="image", shape=[1], datatype="UINT8", data=[1])]
        )
        with pytest.raises(oip.BadRequestError) as refused:
            client.model_infer(NAME, request=bad)
        assert "has to be [1, 32, 32, 3]" in refused.value.body["error"]


# The documents


def test_the_example_for_python_works(server: Process, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    [example] = re.findall(
        r"^```python\n(.*?)^```", (root / "docs" / "oip.md").read_text("utf-8"), re.M | re.S
    )
    (tmp_path / "src").symlink_to(root / "src")
    done = subprocess.run(
        [sys.executable, "-c", example.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["cat (1, 1, 32, 32)", "[5]"]
    assert (tmp_path / "overlay.png").read_bytes().startswith(b"\x89PNG")


# curl


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl_sends_a_photo_as_it_is(server: Process, tmp_path: Path) -> None:
    answer, headers = tmp_path / "answer", tmp_path / "headers"
    url = f"http://127.0.0.1:{server.port}/v2/models/{NAME}/infer"
    command = ["curl", "-sS", "--noproxy", "*", "-o", answer, "-D", headers, "--data-binary", f"@{PHOTO}"]
    raw = ["-H", "Inference-Header-Content-Length: 0"]
    done = subprocess.run([*command, *raw, url], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    sent = dict(line.split(": ", 1) for line in headers.read_text().splitlines()[1:] if line)
    length = int(sent["inference-header-content-length"])
    head, tensors = json.loads(answer.read_bytes()[:length]), answer.read_bytes()[length:]
    assert [output["shape"] for output in head["outputs"]] == [[1, 10], [1, 10], [1], [1, 1, 32, 32]]
    status, own = server.request("POST", f"{PREDICT}?top_k=10", PHOTO.read_bytes())
    assert status == 200
    assert np.frombuffer(tensors[:40], "<f4").tolist() == logits_of([own])[0]
    assert tensors[84 : 84 + len(own["label"])] == own["label"].encode()
