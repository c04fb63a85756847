"""Malformed requests of the Open Inference Protocol: each is refused with a word, and breaks nothing."""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from services import FILES, IMAGES, NAME, Service, attention_models, serving, zoo_settings
from tensors import HEADER, Binary, as_json, elements, files_as_json, infer_path, outputs_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

INFER = infer_path(NAME)
PIXELS = np.stack(IMAGES[:2])
IMAGE = as_json("image", PIXELS)
BEHIND = Binary().add("image", PIXELS).inputs[0]
SIZE = PIXELS.size


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service() -> AsyncIterator[Service]:
    async with serving(zoo_settings(max_instances=4)) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def attentive() -> AsyncIterator[Service]:
    async with serving(zoo_settings(repository=attention_models())) as running:
        yield running


def refused(response: httpx.Response, status: int, message: str = "") -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert list(body) == ["error"]
    assert isinstance(body["error"], str)
    assert message in body["error"]
    assert body["error"]


def inputs(*tensors: dict[str, Any], **others: Any) -> dict[str, Any]:
    return {"json": {"inputs": list(tensors), **others}}


def changed(tensor: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A request with one input, changed; None takes a field away."""
    merged = {**tensor, **changes}
    return inputs({name: value for name, value in merged.items() if value is not None})


def text(body: str, header: str | None = None) -> dict[str, Any]:
    return {"content": body.encode(), "headers": {} if header is None else {HEADER: header}}


def behind(
    tensors: list[dict[str, Any]], data: bytes, header: str | None = None, **others: Any
) -> dict[str, Any]:
    """A binary request, whether it fits or not."""
    start = json.dumps({"inputs": tensors, **others}).encode()
    return {"content": start + data, "headers": {HEADER: str(len(start)) if header is None else header}}


def sized(tensor: dict[str, Any], size: Any) -> dict[str, Any]:
    return {**tensor, "parameters": {"binary_data_size": size}}


def files(data: bytes, count: int = 2) -> dict[str, Any]:
    """BYTES as they are given, whether they fit or not."""
    return behind([sized({"name": "image_bytes", "shape": [count], "datatype": "BYTES"}, len(data))], data)


def edited(shape: list[Any], data: list[Any]) -> dict[str, Any]:
    return inputs(IMAGE, {"name": "attention", "shape": shape, "datatype": "FP32", "data": data})


def targets(shape: list[Any], data: list[Any], datatype: str = "INT64") -> dict[str, Any]:
    return inputs(IMAGE, {"name": "targets", "shape": shape, "datatype": datatype, "data": data})


LISTS = PIXELS.tolist()
RAGGED = [LISTS[0], LISTS[1][:-1]]
TORN = [*PIXELS.reshape(-1).tolist()[:-1], []]

REQUESTS: dict[str, tuple[int, str, dict[str, Any]]] = {
    # JSON
    "nothing": (400, "the body is empty", text("")),
    "no JSON": (400, "malformed JSON", text("hello")),
    "an image without the header": (400, "malformed JSON", {"content": FILES[0]}),
    "cut off": (400, "malformed JSON", text('{"inputs": [')),
    "not a number": (400, "malformed JSON", text('{"inputs": NaN}')),
    "half a character": (400, "malformed JSON", text(r'{"inputs": "\ud800"}')),
    "no UTF-8": (400, "malformed JSON", {"content": b'{"id": "\xff", "inputs": []}'}),
    "a zero byte": (400, "malformed JSON", {"content": b'\0{"inputs": []}'}),
    "nested 120 deep": (400, "nested more than 100 deep", text('{"inputs":' + "[" * 119 + "]" * 119 + "}")),
    "nested 250,000 deep": (400, "nested more than 100 deep", text("[" * 250_000)),
    "a list": (400, "the request: Input should be", text("[]")),
    "a word": (400, "the request: Input should be", text('"hello"')),
    "no inputs": (400, "inputs: Field required", text("{}")),
    "an empty list of inputs": (400, "inputs: List should have at least 1 item", text('{"inputs": []}')),
    "inputs by name": (400, "inputs: Input should be a valid list", text('{"inputs": {"image": []}}')),
    "an input that is none": (400, "inputs.0: Input should be", text('{"inputs": [5]}')),
    "a number as id": (400, "id: Input should be a valid string", inputs(IMAGE, id=5)),
    "a list of parameters": (400, "parameters: Input should be", inputs(IMAGE, parameters=[])),
    "outputs by name": (400, "outputs: Input should be a valid list", inputs(IMAGE, outputs={"label": {}})),
    # The header
    "a negative header": (400, HEADER, text("{}", "-1")),
    "a header over the body": (400, HEADER, text("{}", "3")),
    "a header over all bodies": (400, HEADER, text("{}", "9" * 5000)),
    "a fraction as header": (400, HEADER, text("{}", "1.5")),
    "a signed header": (400, HEADER, text("{}", "+2")),
    "a word as header": (400, HEADER, text("{}", "all")),
    "an empty header": (400, HEADER, text("{}", "")),
    "a header in other digits": (
        400,
        HEADER,
        {"content": b"{}", "headers": {HEADER.encode(): "\u00b2".encode("latin-1")}},
    ),
    "the header twice": (400, HEADER, {"content": b"{}", "headers": [(HEADER, "2"), (HEADER, "2")]}),
    "a header that ends within the JSON": (400, "malformed JSON", behind([IMAGE], b"", "10")),
    "a raw request of nothing": (400, "the body is empty", text("", "0")),
    "a raw request of no image": (400, "image_bytes[0]: not an image we read", text("{}", "0")),
    # Names
    "an unknown input": (400, "there is no input 'picture'", changed(IMAGE, name="picture")),
    "an input without a name": (400, "inputs.0.name: Field required", changed(IMAGE, name=None)),
    "a number as name": (400, "inputs.0.name: Input should be", changed(IMAGE, name=5)),
    "an input twice": (400, "the input 'image' is given twice", inputs(IMAGE, IMAGE)),
    "both kinds of images": (400, "give one of the inputs", inputs(IMAGE, files_as_json(["", ""]))),
    "no image at all": (
        400,
        "give one of the inputs",
        inputs(as_json("targets", np.zeros((1, 1), np.int64))),
    ),
    "an unknown output": (400, "there is no output 'score'", inputs(IMAGE, outputs=[{"name": "score"}])),
    "an output twice": (
        400,
        "the output 'map' is asked for twice",
        inputs(IMAGE, outputs=[{"name": "map"}] * 2),
    ),
    "an output without a name": (400, "outputs.0.name: Field required", inputs(IMAGE, outputs=[{}])),
    # Shapes
    "no shape": (400, "inputs.0.shape: Field required", changed(IMAGE, shape=None)),
    "an empty shape": (400, "image: 0 images", changed(IMAGE, shape=[])),
    "no images": (400, "image: 0 images", changed(IMAGE, shape=[0, 32, 32, 3], data=[])),
    "too many images": (400, "image: 5 images; 1 to 4", changed(IMAGE, shape=[5, 32, 32, 3])),
    "a negative size": (
        400,
        "inputs.0.shape.0: Input should be greater",
        changed(IMAGE, shape=[-2, 32, 32, 3]),
    ),
    "a size over int64": (
        400,
        "inputs.0.shape.1: Input should be less",
        changed(IMAGE, shape=[2, 2**63, 32, 3]),
    ),
    "a size of 5,000 digits": (400, "malformed JSON", text('{"inputs": [{"shape": [' + "9" * 5000 + "]}]}")),
    "a product over int64": (400, "image: its shape is", changed(IMAGE, shape=[2, 2**62, 2**62, 3])),
    "a product that overflows to the right size": (
        400,
        "has to be [2, 32, 32, 3]",
        changed(IMAGE, shape=[2, 2**32 + 32, 2**32 + 32, 3]),
    ),
    "a fraction as size": (400, "inputs.0.shape.0: Input should be", changed(IMAGE, shape=[2.0, 32, 32, 3])),
    "true as size": (400, "inputs.0.shape.0: Input should be", changed(IMAGE, shape=[True, 32, 32, 3])),
    "words as sizes": (
        400,
        "inputs.0.shape.0: Input should be",
        changed(IMAGE, shape=["2", "32", "32", "3"]),
    ),
    "too many sizes": (400, "inputs.0.shape: List should have at most 8", changed(IMAGE, shape=[1] * 9)),
    "another size": (400, "has to be [2, 32, 32, 3]", changed(IMAGE, shape=[2, 16, 64, 3])),
    "channels first": (400, "has to be [2, 32, 32, 3]", changed(IMAGE, shape=[2, 3, 32, 32])),
    "one image without a batch": (400, "image: 32 images; 1 to 4", changed(IMAGE, shape=[32, 32, 3])),
    "files in two dimensions": (400, "has to be [1]", changed(files_as_json([""]), shape=[1, 1])),
    # Types
    "no datatype": (400, "inputs.0.datatype: Field required", changed(IMAGE, datatype=None)),
    "another datatype": (400, "image is UINT8, and not 'FP32'", changed(IMAGE, datatype="FP32")),
    "an unknown datatype": (400, "image is UINT8, and not 'uint8'", changed(IMAGE, datatype="uint8")),
    "a datatype of 100,000 letters": (400, "not 'XXXX", changed(IMAGE, datatype="X" * 100_000)),
    "files as numbers": (
        400,
        "image_bytes is BYTES, and not 'UINT8'",
        changed(files_as_json(["", ""]), datatype="UINT8"),
    ),
    # Data in JSON
    "no data": (400, "image: neither data nor binary_data_size", changed(IMAGE, data=None)),
    "a word as data": (400, "inputs.0.data: Input should be a valid list", changed(IMAGE, data="AAAA")),
    "an object as data": (
        400,
        "inputs.0.data: Input should be a valid list",
        changed(IMAGE, data={"b64": ""}),
    ),
    "too few numbers": (
        400,
        f"image: {SIZE - 1} elements; its shape has {SIZE}",
        changed(IMAGE, data=[0] * (SIZE - 1)),
    ),
    "too many numbers": (400, f"image: {SIZE + 1} elements", changed(IMAGE, data=[0] * (SIZE + 1))),
    "no numbers": (400, "image: 0 elements", changed(IMAGE, data=[])),
    "ragged lists": (400, "neither flat nor nested as its shape", changed(IMAGE, data=RAGGED)),
    "lists of another shape": (
        400,
        "neither flat nor nested as its shape",
        changed(IMAGE, data=PIXELS.reshape(2, -1).tolist()),
    ),
    "lists nested too deep": (
        400,
        "an element is not a number",
        changed(IMAGE, data=[[[[[v] for v in p] for p in r] for r in i] for i in LISTS]),
    ),
    "a list among numbers": (400, "an element is not a number", changed(IMAGE, data=TORN)),
    "a number among lists": (400, "neither flat nor nested as its shape", changed(IMAGE, data=[LISTS[0], 5])),
    "256 as a byte": (400, "image: a number is no UINT8", changed(IMAGE, data=[256] * SIZE)),
    "-1 as a byte": (400, "image: a number is no UINT8", changed(IMAGE, data=[-1] * SIZE)),
    "a fraction as a byte": (400, "image: a number is no UINT8", changed(IMAGE, data=[0.5] * SIZE)),
    "2^64 as a byte": (400, "image: a number is out of range", changed(IMAGE, data=[2**64] * SIZE)),
    "a huge number as a byte": (
        400,
        "image: a number is no UINT8",
        text(json.dumps(changed(IMAGE, data=[0.5] * SIZE)["json"]).replace("0.5", "1e999")),
    ),
    "words as bytes": (400, "an element is not a number", changed(IMAGE, data=["5"] * SIZE)),
    "true as bytes": (400, "an element is not a number", changed(IMAGE, data=[True] * SIZE)),
    "null among bytes": (400, "an element is not a number", changed(IMAGE, data=[None, *[0] * (SIZE - 1)])),
    "files as numbers in JSON": (
        400,
        "image_bytes: an element is not a string",
        changed(files_as_json(["", ""]), data=[1, 2]),
    ),
    "files that are not base64": (400, "image_bytes[1] is not base64", inputs(files_as_json(["", "a b"]))),
    "files in another alphabet": (
        400,
        "image_bytes[0] is not base64",
        inputs(files_as_json(["\u65e5\u672c"])),
    ),
    "files too few": (
        400,
        "image_bytes: 1 elements; its shape has 2",
        changed(files_as_json([""]), shape=[2]),
    ),
    "files nested": (
        400,
        "image_bytes: an element is not a string",
        changed(files_as_json(["", ""]), data=[[""], [""]]),
    ),
    # Data behind the JSON
    "bytes without the header": (400, "binary_data_size without the header", inputs(BEHIND)),
    "both kinds of data": (
        400,
        "data and binary_data_size exclude each other",
        behind([{**BEHIND, "data": [1]}], PIXELS.tobytes()),
    ),
    "bytes that are not there": (400, "image: binary_data_size", behind([BEHIND], PIXELS.tobytes()[:-1])),
    "bytes behind the last tensor": (
        400,
        "1 bytes follow the last tensor",
        behind([BEHIND], PIXELS.tobytes() + b"x"),
    ),
    "bytes that nobody names": (400, "5 bytes follow the last tensor", behind([IMAGE], b"12345")),
    "a negative number of bytes": (
        400,
        "image: binary_data_size",
        behind([sized(BEHIND, -1)], PIXELS.tobytes()),
    ),
    "a huge number of bytes": (
        400,
        "image: binary_data_size",
        behind([sized(BEHIND, 2**64)], PIXELS.tobytes()),
    ),
    "a fraction of bytes": (
        400,
        "image: binary_data_size",
        behind([sized(BEHIND, SIZE + 0.5)], PIXELS.tobytes()),
    ),
    "a float of bytes": (
        400,
        "image: binary_data_size",
        behind([sized(BEHIND, float(SIZE))], PIXELS.tobytes()),
    ),
    "true bytes": (400, "image: binary_data_size", behind([sized(BEHIND, True)], b"x")),
    "a word of bytes": (400, "image: binary_data_size", behind([sized(BEHIND, str(SIZE))], PIXELS.tobytes())),
    "fewer bytes than the shape": (
        400,
        f"image: {SIZE - 3} bytes; its shape takes {SIZE}",
        behind([sized(BEHIND, SIZE - 3)], PIXELS.tobytes()[:-3]),
    ),
    "more bytes than the shape": (
        400,
        f"image: {SIZE + 3} bytes",
        behind([sized(BEHIND, SIZE + 3)], PIXELS.tobytes() + b"xxx"),
    ),
    "no bytes": (400, f"image: 0 bytes; its shape takes {SIZE}", behind([sized(BEHIND, 0)], b"")),
    "files without bytes": (400, "image_bytes: 0 elements; its shape has 2", files(b"")),
    "files cut off in a length": (
        400,
        "image_bytes: it ends within the length",
        files(elements([b"a", b"b"])[:-3]),
    ),
    "files cut off in a file": (
        400,
        "image_bytes: an element of 1 bytes reaches over",
        files(elements([b"a", b"b"])[:-1]),
    ),
    "a file longer than all": (400, "image_bytes: an element of 4294967295 bytes", files(b"\xff" * 12)),
    "fewer files": (400, "image_bytes: 1 elements; its shape has 2", files(elements([b"a"]))),
    "more files": (400, "image_bytes: more elements; its shape has 2", files(elements([b"a"] * 9))),
    "files without lengths": (400, "image_bytes: an element of", files(FILES[0], 1)),
    "shared memory": (
        400,
        "image: shared memory is not read here",
        changed(IMAGE, data=None, parameters={"shared_memory_region": "r", "shared_memory_byte_size": 5}),
    ),
    "shared memory for an output": (
        400,
        "map: shared memory is not read here",
        inputs(IMAGE, outputs=[{"name": "map", "parameters": {"shared_memory_region": "r"}}]),
    ),
    # Targets
    "targets in one dimension": (400, "targets: its shape is [2, 1 to 32]", targets([2], [0, 0])),
    "no targets": (400, "targets: its shape is [2, 1 to 32]", targets([2, 0], [])),
    "33 targets": (400, "targets: its shape is [2, 1 to 32]", targets([2, 33], [0] * 66)),
    "targets of fewer images": (
        400,
        "targets: its shape is [1, 1], and has to be [2, 1]",
        targets([1, 1], [0]),
    ),
    "a class over the last": (400, "targets: class indices are from 0 to 9, or -1", targets([2, 1], [0, 10])),
    "a class under the first": (400, "targets: class indices", targets([2, 1], [-2, 0])),
    "a class over int64": (400, "targets: a number is out of range", targets([2, 1], [2**63, 0])),
    "a class of 2^63 as a float": (400, "targets: a number is no INT64", targets([2, 1], [2.0**63, 0])),
    "a fraction as class": (400, "targets: a number is no INT64", targets([2, 1], [0.5, 0])),
    "a name as class": (400, "targets: an element is not a number", targets([2, 1], ["cat", "dog"])),
    "targets of 32 bits": (400, "targets is INT64, and not 'INT32'", targets([2, 1], [0, 0], "INT32")),
    "targets and a target": (
        422,
        "give target or targets, not both",
        {"json": {**targets([2, 1], [0, 0])["json"], "parameters": {"target": "cat"}}},
    ),
    # Parameters
    "an unknown parameter": (
        422,
        "'colour' is not a parameter here; there are method, target",
        inputs(IMAGE, parameters={"colour": "red"}),
    ),
    "an unknown method": (422, "cannot be explained by 'lime'", inputs(IMAGE, parameters={"method": "lime"})),
    "a method of many passes": (422, "rise takes many passes", inputs(IMAGE, parameters={"method": "rise"})),
    "a number as method": (
        422,
        "method: Input should be a valid string",
        inputs(IMAGE, parameters={"method": 5}),
    ),
    "an unknown class": (404, "has no class 'unicorn'", inputs(IMAGE, parameters={"target": "unicorn"})),
    "alpha over 1": (422, "alpha: Input should be less", inputs(IMAGE, parameters={"alpha": 2})),
    "a deadline of 0": (
        422,
        "deadline_ms: Input should be greater",
        inputs(IMAGE, parameters={"deadline_ms": 0}),
    ),
    "a negative timeout": (
        422,
        "timeout is not a number of microseconds",
        inputs(IMAGE, parameters={"timeout": -1}),
    ),
    "a word as timeout": (422, "timeout is not a number", inputs(IMAGE, parameters={"timeout": "1000"})),
    "true as timeout": (422, "timeout is not a number", inputs(IMAGE, parameters={"timeout": True})),
    "an overlay of nothing": (
        422,
        "overlay=none leaves no overlay",
        inputs(IMAGE, outputs=[{"name": "overlay"}], parameters={"overlay": "none"}),
    ),
    "a word for all binary": (
        400,
        "the request: binary_data_output is neither",
        inputs(IMAGE, parameters={"binary_data_output": "yes"}),
    ),
    "a number for binary": (
        400,
        "map: binary_data is neither",
        inputs(IMAGE, outputs=[{"name": "map", "parameters": {"binary_data": 1}}]),
    ),
    "classification by a word": (
        400,
        "logits: classification is not a number",
        inputs(IMAGE, outputs=[{"name": "logits", "parameters": {"classification": "3"}}]),
    ),
    "negative classification": (
        400,
        "logits: classification is not a number",
        inputs(IMAGE, outputs=[{"name": "logits", "parameters": {"classification": -1}}]),
    ),
    "true classification": (
        400,
        "logits: classification is not a number",
        inputs(IMAGE, outputs=[{"name": "logits", "parameters": {"classification": True}}]),
    ),
    "classification of maps": (
        400,
        "map: classification is of logits and probabilities",
        inputs(IMAGE, outputs=[{"name": "map", "parameters": {"classification": 3}}]),
    ),
    "an edited map where there is none": (422, "cannot be edited", edited([2, 1, 1], [0, 0])),
}
"""By name: status, what the error says, and the request."""


@pytest.mark.parametrize("name", REQUESTS)
async def test_malformed_requests_are_refused_with_a_word(service: Service, name: str) -> None:
    status, message, request = REQUESTS[name]
    before = service.count("requests_total", outcome="success")
    refused(await service.client.post(INFER, **request), status, message)
    assert service.count("requests_total", outcome="success") == before
    assert service.state.budget.held == 0


EDITS: dict[str, tuple[str, dict[str, Any]]] = {
    "in two dimensions": ("attention: its shape is [2, h, w]", edited([2, 1], [0, 0])),
    "without cells": ("attention: its shape is [2, h, w]", edited([2, 0, 1], [])),
    "with too many cells": ("attention: its shape is [2, h, w]", edited([2, 1, 1025], [0] * 2050)),
    "of one image": ("and has to be [2, 1, 1]", edited([1, 1, 1], [0])),
    "over 1": ("attention: a cell is above 1 or not finite", edited([2, 1, 1], [0, 1.5])),
    "over all": ("attention: a number is out of range", edited([2, 1, 1], [0, 1e39])),
    "of words": ("attention: an element is not a number", edited([2, 1, 1], ["a", "b"])),
    "not a number": (
        "attention: a cell is above 1 or not finite",
        Binary().add("image", PIXELS).add("attention", np.full((2, 1, 1), np.nan, np.float32)).request(),
    ),
}


@pytest.mark.parametrize("name", EDITS)
async def test_malformed_edits_are_refused(attentive: Service, name: str) -> None:
    message, request = EDITS[name]
    refused(await attentive.client.post(infer_path("one"), **request), 400, message)


async def test_targets_where_the_map_is_of_no_class(attentive: Service) -> None:
    response = await attentive.client.post(infer_path("one"), **targets([2, 1], [0, 0]))
    refused(response, 422, "is the same for every class; leave targets out")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", infer_path("none"), 404),
        ("POST", infer_path(NAME, "2"), 404),
        ("POST", infer_path("%00"), 404),
        ("GET", "/v2/models/none", 404),
        ("GET", f"/v2/models/{NAME}/versions/2", 404),
        ("GET", f"/v2/models/{NAME}/versions/2/ready", 404),
        ("GET", "/v2/models/none/stats", 404),
        ("GET", f"/v2/models/{NAME}/versions/2/stats", 404),
        ("GET", f"/v2/models/{NAME}/config", 404),
        ("GET", "/v2/models", 404),
        ("GET", "/v2/nothing", 404),
        ("POST", "/v2/systemsharedmemory/region/a/register", 404),
        ("POST", "/v2", 405),
        ("GET", INFER, 405),
        ("DELETE", f"/v2/models/{NAME}", 405),
        ("GET", "/v2/repository/index", 405),
        ("PUT", "/v2/health/live", 405),
        ("BREW", "/v2/health/ready", 405),
    ],
)
async def test_what_is_not_there(service: Service, method: str, path: str, status: int) -> None:
    response = await service.client.request(method, path, content=b"{}")
    refused(response, status)
    assert ("allow" in response.headers) == (status == 405)


@pytest.mark.parametrize("body", [b"[]", b"{", b"5", b'{"ready": "yes"}', b'{"parameters": []}', b"\xff"])
@pytest.mark.parametrize("path", ["index", f"models/{NAME}/load", f"models/{NAME}/unload"])
async def test_malformed_requests_to_the_repository(service: Service, path: str, body: bytes) -> None:
    refused(await service.client.post(f"/v2/repository/{path}", content=body), 400)


@pytest.mark.parametrize(
    "parameters",
    [
        {"sequence_id": 5, "sequence_start": True, "sequence_end": False},
        {"sequence_id": "five", "priority": 3},
        {"timeout": 60_000_000},
        {"content_type": "np", "headers": {"a": "b"}},
    ],
    ids=lambda parameters: ", ".join(parameters),
)
async def test_what_clients_send_beside_is_let_through(service: Service, parameters: dict[str, Any]) -> None:
    request = inputs({**IMAGE, "parameters": {"content_type": "np"}}, parameters=parameters)
    request["json"]["outputs"] = [{"name": "label", "parameters": {"content_type": "str"}}]
    request["json"]["raw"] = True
    assert outputs_of(await service.client.post(INFER, **request))["label"] == ["truck", "truck"]


# Mutated

LIVELY = settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
LABEL = {"name": "label"}
SMALL = np.zeros((1, 32, 32, 3), np.uint8)
VALID = [
    Binary()
    .add("image", SMALL)
    .add("targets", np.zeros((1, 1), np.int64))
    .request(outputs=[{"name": "label"}]),
    Binary().add_files([FILES[0], FILES[1]]).request(id="x", parameters={"binary_data_output": True}),
    {"content": json.dumps({"inputs": [as_json("image", SMALL, flat=True)]}).encode(), "headers": {}},
    {"content": FILES[2], "headers": {HEADER: "0"}},
]
"""Requests that are answered, in every form."""

words = st.text(max_size=5)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
trees = st.recursive(
    st.none() | st.booleans() | numbers | words,
    lambda nodes: st.lists(nodes, max_size=3) | st.dictionaries(words, nodes, max_size=3),
    max_leaves=6,
)


async def answers(service: Service, content: bytes, headers: dict[str, str]) -> None:
    """That there is an answer in the protocol's form, whatever it is."""
    response = await service.client.post(INFER, content=content, headers=headers)
    if response.status_code == 200:
        outputs_of(response)
    else:
        assert 400 <= response.status_code < 500
        refused(response, response.status_code)
    assert service.state.budget.held == 0


async def test_the_requests_to_mutate_are_answered(service: Service) -> None:
    for request in VALID:
        assert (await service.client.post(INFER, **request)).status_code == 200


@LIVELY
@given(data=st.data())
async def test_mutated_bodies_and_headers_never_break_anything(service: Service, data: st.DataObject) -> None:
    request = data.draw(st.sampled_from(VALID))
    body = bytearray(request["content"])
    for _ in range(data.draw(st.integers(0, 3), label="mutations")):
        place = data.draw(st.integers(0, min(len(body), 400)) | st.integers(0, len(body)), label="place")
        length = data.draw(st.integers(0, 8) | st.integers(0, len(body)), label="taken away")
        body[place : place + length] = data.draw(st.binary(max_size=8), label="put in")
    header = request["headers"].get(HEADER)
    texts = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=8)
    header = data.draw(st.just(header) | st.none() | st.integers(-2, 9000).map(str) | texts, label="header")
    await answers(service, bytes(body), {} if header is None else {HEADER: header})


@LIVELY
@given(data=st.data())
async def test_mutated_json_never_breaks_anything(service: Service, data: st.DataObject) -> None:
    request = data.draw(st.sampled_from(VALID[:3]))
    size = int(request["headers"].get(HEADER, len(request["content"])))
    document = json.loads(request["content"][:size])
    for _ in range(data.draw(st.integers(1, 3), label="mutations")):
        node: Any = document
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(min(len(node), 3)))
            if not keys:
                break
            key = data.draw(st.sampled_from(keys), label="into")
            if isinstance(node[key], dict | list) and data.draw(st.booleans(), label="deeper"):
                node = node[key]
                continue
            if isinstance(node, dict) and data.draw(st.booleans(), label="drop"):
                del node[key]
            else:
                others = [
                    copy.deepcopy(value) for value in (node if isinstance(node, list) else node.values())
                ]
                node[key] = data.draw(trees | st.sampled_from(others), label="replace")
            break
    text = json.dumps(document).encode()
    header = {HEADER: str(len(text))} if request["headers"] else {}
    await answers(service, text + request["content"][size:], header)


@LIVELY
@given(tree=trees, tail=st.binary(max_size=20))
async def test_any_json_is_refused_with_a_word(service: Service, tree: Any, tail: bytes) -> None:
    text = json.dumps(tree).encode()
    await answers(service, text + tail, {HEADER: str(len(text))} if tail else {})
