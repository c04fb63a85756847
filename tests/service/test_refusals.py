"""Every way a request can be refused: the status, the code, a JSON body, and never a 500."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import random
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import pytest_asyncio
from faults import broken, until
from PIL import Image
from services import Caller, Service, pictures, serving, zoo_settings

from konkyo import errors
from konkyo.errors import KonkyoError
from konkyo.service.schemas import ErrorBody

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "/v1/models/gcm-cifar10"
EXPLAIN, PREDICT = f"{MODEL}:explain", f"{MODEL}:predict"
LIMITS = {"max_body_bytes": 400_000, "max_pixels": 10_000, "max_instances": 3}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service() -> AsyncIterator[Service]:
    async with serving(zoo_settings(**LIMITS)) as running:
        yield running


def file(image: Image.Image, format_: str = "PNG") -> bytes:
    out = io.BytesIO()
    image.save(out, format_)
    return out.getvalue()


PNG = file(Image.fromarray(next(pictures(1))))
INSTANCE = {"image_bytes": {"b64": base64.b64encode(PNG).decode()}}
JSON = {"content-type": "application/json"}
FORM = {"content-type": "multipart/form-data; boundary=x"}


def refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """It is refused so, in the documented body, which is returned."""
    assert (response.status_code, response.headers["content-type"]) == (status, "application/json"), (
        response.text
    )
    body = response.json()
    ErrorBody.model_validate_json(response.content, strict=True)
    assert body["error"]["code"] == code
    assert body["error"]["message"]
    assert len(response.headers["x-request-id"]) >= 1
    return body["error"]  # type: ignore[no-any-return]


def part(disposition: str, content: bytes = PNG) -> bytes:
    return b"--x\r\nContent-Disposition: " + disposition.encode() + b"\r\n\r\n" + content + b"\r\n--x--\r\n"


async def pieces(count: int, size: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"\0" * size


# What is wrong with the request

REQUESTS: dict[str, tuple[int, str, dict[str, Any]]] = {
    "empty": (400, "empty_body", {"content": b""}),
    "no instances": (400, "empty_body", {"json": {"instances": []}}),
    "no part": (400, "empty_body", {"content": b"--x--\r\n", "headers": FORM}),
    "only fields": (400, "empty_body", {"content": part('form-data; name="top_k"', b"3"), "headers": FORM}),
    "broken JSON": (400, "invalid_request", {"content": b'{"instances": [', "headers": JSON}),
    "JSON that is no UTF-8": (400, "invalid_request", {"content": b'{"\xff": 1}', "headers": JSON}),
    "JSON of another shape": (400, "invalid_request", {"json": [1]}),
    "instances of another type": (400, "invalid_request", {"json": {"instances": "x"}}),
    "unknown field": (400, "invalid_request", {"json": {"instances": [INSTANCE], "extra": 1}}),
    "unknown field that is no Unicode": (
        400,
        "invalid_request",
        {"content": b'{"instances": [1], "\\ud800": 1}', "headers": JSON},
    ),
    "a class that is no Unicode": (
        400,
        "invalid_request",
        {"content": b'{"instances": [1], "parameters": {"target": "\\ud800"}}', "headers": JSON},
    ),
    "a number that is none": (
        400,
        "invalid_request",
        {"content": b'{"instances": [1], "parameters": {"alpha": NaN}}', "headers": JSON},
    ),
    "parameters of another type": (
        400,
        "invalid_request",
        {"json": {"instances": [INSTANCE], "parameters": []}},
    ),
    "too many instances": (400, "invalid_request", {"json": {"instances": [INSTANCE] * 4}}),
    "too many parts": (400, "invalid_request", {"files": [("image", PNG)] * 4}),
    "JSON 100,000 deep": (
        400,
        "invalid_request",
        {"content": b"[" * 100_000 + b"]" * 100_000, "headers": JSON},
    ),
    "JSON objects 30,000 deep": (
        400,
        "invalid_request",
        {"content": b'{"a":' * 30_000 + b"1" + b"}" * 30_000, "headers": JSON},
    ),
    "a number of 10,000 digits": (
        400,
        "invalid_request",
        {"content": b'{"instances": ' + b"9" * 10_000 + b"}", "headers": JSON},
    ),
    "no boundary": (
        400,
        "invalid_request",
        {"content": PNG, "headers": {"content-type": "multipart/form-data"}},
    ),
    "another boundary": (400, "invalid_request", {"content": b"--y\r\n" + PNG, "headers": FORM}),
    "a part without a name": (400, "invalid_request", {"content": part("form-data"), "headers": FORM}),
    "a part without an end": (
        400,
        "invalid_request",
        {"content": part('form-data; name="image"; filename="a"')[:-9], "headers": FORM},
    ),
    "the image as text": (
        400,
        "invalid_request",
        {"content": part('form-data; name="image"', b"x"), "headers": FORM},
    ),
    "another file": (400, "invalid_request", {"files": {"picture": PNG}}),
    "a length that is no number": (
        400,
        "invalid_request",
        {"content": PNG, "headers": {"content-length": "-1"}},
    ),
    "a length of 5,000 digits": (
        400,
        "invalid_request",
        {"content": PNG, "headers": {"content-length": "9" * 5000}},
    ),
    "too long by its header": (413, "body_too_large", {"content": b"\0" * 400_001}),
    "too long in pieces": (413, "body_too_large", {"content": lambda: pieces(5, 100_000)}),
    "too long by a lie": (
        413,
        "body_too_large",
        {"content": b"\0" * 400_001, "headers": {"content-length": "5"}},
    ),
    "brotli": (415, "unsupported_media_type", {"content": PNG, "headers": {"content-encoding": "br"}}),
    "gzip that is none": (400, "invalid_request", {"content": PNG, "headers": {"content-encoding": "gzip"}}),
    "text": (415, "unsupported_media_type", {"content": PNG, "headers": {"content-type": "text/plain"}}),
    "video": (415, "unsupported_media_type", {"content": PNG, "headers": {"content-type": "video/mp4"}}),
    "no image": (415, "unsupported_image", {"content": b"hello"}),
    "a GIF": (415, "unsupported_image", {"content": file(Image.new("P", (2, 2)), "GIF")}),
    "32-bit integers": (
        415,
        "unsupported_image",
        {"content": file(Image.fromarray(np.ones((2, 2), np.int32)), "TIFF")},
    ),
    "half an image": (400, "broken_image", {"content": PNG[: len(PNG) // 2]}),
    "too many pixels": (413, "image_too_large", {"content": file(Image.new("1", (101, 100)))}),
}


@pytest.mark.parametrize("path", [PREDICT, EXPLAIN])
@pytest.mark.parametrize("name", REQUESTS)
async def test_requests_that_are_refused(service: Service, name: str, path: str) -> None:
    status, code, request = REQUESTS[name]
    if callable(request.get("content")):
        request = {"content": request["content"]()}
    refused(await service.client.post(path, **request), status, code)


async def test_the_body_at_its_limit_is_read(service: Service) -> None:
    padded = PNG + b"\0" * (400_000 - len(PNG))  # what follows the end of a PNG does not matter
    assert (await service.client.post(PREDICT, content=padded)).status_code == 200


# What is wrong with the parameters

PARAMETERS: dict[str, tuple[int, str, dict[str, Any]]] = {
    "an unknown name": (422, "invalid_parameter", {"colour": "red"}),
    "top_k 0": (422, "invalid_parameter", {"top_k": 0}),
    "top_k 1001": (422, "invalid_parameter", {"top_k": 1001}),
    "top_k a word": (422, "invalid_parameter", {"top_k": "five"}),
    "top_k a fraction": (422, "invalid_parameter", {"top_k": 1.5}),
    "top_k huge": (422, "invalid_parameter", {"top_k": "9" * 5000}),
    "deadline 0": (422, "invalid_parameter", {"deadline_ms": 0}),
    "deadline negative": (422, "invalid_parameter", {"deadline_ms": -1}),
    "deadline not a number": (422, "invalid_parameter", {"deadline_ms": "nan"}),
    "deadline infinite": (422, "invalid_parameter", {"deadline_ms": "inf"}),
    "deadline a week": (422, "invalid_parameter", {"deadline_ms": 7 * 86_400_000}),
    "map": (422, "invalid_parameter", {"map": "jpeg"}),
    "overlay": (422, "invalid_parameter", {"overlay": "glow"}),
    "part": (422, "invalid_parameter", {"part": "neutral"}),
    "colormap": (422, "invalid_parameter", {"colormap": "hot"}),
    "frame": (422, "invalid_parameter", {"frame": "window"}),
    "alpha below 0": (422, "invalid_parameter", {"alpha": -0.1}),
    "alpha over 1": (422, "invalid_parameter", {"alpha": 1.1}),
    "alpha not a number": (422, "invalid_parameter", {"alpha": "nan"}),
    "regions 0": (422, "invalid_parameter", {"regions": 0}),
    "regions 1": (422, "invalid_parameter", {"regions": 1}),
    "regions not a number": (422, "invalid_parameter", {"regions": "NaN"}),
    "no targets": (422, "invalid_parameter", {"targets": ","}),
    "33 targets": (422, "invalid_parameter", {"targets": ",".join(["0"] * 33)}),
    "target and targets": (422, "invalid_parameter", {"target": "cat", "targets": "dog"}),
    "method": (422, "unsupported_method", {"method": "lime"}),
    "an empty method": (422, "unsupported_method", {"method": ""}),
    "no neurons": (422, "invalid_parameter", {"neurons": 0}),
    "51 neurons": (422, "invalid_parameter", {"neurons": 51}),
    "a truth that is no class": (404, "unknown_class", {"truth": "unicorn"}),
    "truth and target": (422, "invalid_parameter", {"truth": "cat", "target": "dog"}),
    "truth and targets": (422, "invalid_parameter", {"truth": "cat", "targets": "dog"}),
    "a class by name": (404, "unknown_class", {"target": "unicorn"}),
    "a class by index": (404, "unknown_class", {"target": 10}),
    "a negative class": (404, "unknown_class", {"target": -1}),
    "an empty class": (404, "unknown_class", {"target": ""}),
    "a class of 5,000 digits": (404, "unknown_class", {"target": "1" * 5000}),
    "one class of several": (404, "unknown_class", {"targets": "cat,unicorn"}),
}


@pytest.mark.parametrize("way", ["query", "form"])
@pytest.mark.parametrize("name", PARAMETERS)
async def test_parameters_that_are_refused(service: Service, name: str, way: str) -> None:
    status, code, parameters = PARAMETERS[name]
    if way == "query":
        response = await service.client.post(EXPLAIN, content=PNG, params=parameters)
    else:
        response = await service.client.post(EXPLAIN, files={"image": PNG}, data=parameters)
    error = refused(response, status, code)
    if code == "unsupported_method":
        assert error["detail"]["methods"][0] == "gcm"
    if code == "unknown_class":
        assert len(error["detail"]["classes"]) == 10


@pytest.mark.parametrize(
    "text",
    [
        '{"top_k": {}}',
        '{"top_k": null}',
        '{"top_k": 1e999}',
        '{"top_k": 1e300}',
        '{"top_k": [1]}',
        '{"deadline_ms": "soon"}',
        '{"target": []}',
        '{"target": {"a": 1}}',
        '{"target": 1.5}',
        '{"targets": {}}',
        '{"targets": [[1]]}',
        '{"targets": 5}',
        '{"map": 1}',
        '{"alpha": "x"}',
        '{"alpha": "NaN"}',
        '{"": 1}',
        '{"__class__": 1}',
        '{"target": ' + "[" * 90 + "]" * 90 + "}",
    ],
)
async def test_json_parameters_of_the_wrong_type(service: Service, text: str) -> None:
    body = f'{{"instances": [{json.dumps(INSTANCE)}], "parameters": {text}}}'
    response = await service.client.post(EXPLAIN, content=body.encode(), headers=JSON)
    error = refused(response, 422, "invalid_parameter")
    assert error["detail"]["parameters"][0]["message"]
    assert "top_k" in error["detail"]["known"]


@pytest.mark.parametrize("target", [10**4000, -(10**30), 10, -1])
async def test_a_class_that_is_not_there_is_an_error_of_each_instance(service: Service, target: int) -> None:
    body = {"instances": [INSTANCE, INSTANCE], "parameters": {"target": target}}
    response = await service.client.post(EXPLAIN, json=body)
    assert response.status_code == 200
    assert [answer["error"]["code"] for answer in response.json()["explanations"]] == ["unknown_class"] * 2


async def test_explain_parameters_are_unknown_to_predict(service: Service) -> None:
    error = refused(
        await service.client.post(PREDICT, content=PNG, params={"target": "cat"}), 422, "invalid_parameter"
    )
    assert error["detail"]["known"] == ["deadline_ms", "top_k"]


async def test_every_fault_is_named_at_once(service: Service) -> None:
    response = await service.client.post(EXPLAIN, content=PNG, params={"alpha": 2, "top_k": 0, "nonsense": 1})
    error = refused(response, 422, "invalid_parameter")
    assert {fault["parameter"] for fault in error["detail"]["parameters"]} == {"alpha", "top_k", "nonsense"}
    assert "nonsense: not a parameter here; detail.known has those there are" in error["message"]


async def test_a_value_given_twice_is_refused_instead_of_dropped(service: Service) -> None:
    query = await service.client.post(f"{EXPLAIN}?targets=cat&targets=dog", content=PNG)
    assert refused(query, 422, "invalid_parameter")["detail"]["parameter"] == "targets"
    form = await service.client.post(EXPLAIN, files={"image": PNG}, data={"target": ["cat", "dog"]})
    refused(form, 422, "invalid_parameter")


async def test_a_picture_answers_for_one_image_only(service: Service) -> None:
    response = await service.client.post(
        EXPLAIN, json={"instances": [INSTANCE]}, headers={"accept": "image/png"}
    )
    refused(response, 422, "invalid_parameter")


async def test_no_picture_where_none_is_wanted(service: Service) -> None:
    response = await service.client.post(
        EXPLAIN, content=PNG, params={"overlay": "none"}, headers={"accept": "image/png"}
    )
    refused(response, 422, "invalid_parameter")


async def test_a_picture_too_long_for_its_format(service: Service) -> None:
    async with serving(zoo_settings()) as unlimited:
        data = file(Image.new("1", (20_000, 10)))
        webp = await unlimited.client.post(EXPLAIN, content=data, headers={"accept": "image/webp"})
        refused(webp, 422, "invalid_parameter")
        assert (
            await unlimited.client.post(EXPLAIN, content=data, headers={"accept": "image/png"})
        ).status_code == 200


# What is not there


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/v1/models/nothing:predict", 404, "unknown_model"),
        ("POST", "/v1/models/nothing/versions/1:explain", 404, "unknown_model"),
        ("GET", "/v1/models/nothing", 404, "unknown_model"),
        ("GET", "/v1/models/%00", 404, "unknown_model"),
        ("POST", f"{MODEL}/versions/2:predict", 404, "unknown_version"),
        ("POST", f"{MODEL}/versions/01:explain", 404, "unknown_version"),
        ("GET", f"{MODEL}/versions/latest", 404, "unknown_version"),
        ("GET", "/nowhere", 404, "not_found"),
        ("POST", f"{MODEL}:classify", 405, "method_not_allowed"),
        ("POST", "/v1/models/a/b/c:predict", 404, "not_found"),
        ("GET", "/static/nothing.js", 404, "not_found"),
        ("GET", "/static/%00", 404, "not_found"),
        ("GET", "/static/%2e%2e/app.py", 404, "not_found"),
        ("GET", f"/static/{'a' * 5000}", 404, "not_found"),
        ("GET", "/%ff%fe", 404, "not_found"),
        ("DELETE", MODEL, 405, "method_not_allowed"),
        ("PUT", "/livez", 405, "method_not_allowed"),
        ("POST", "/metrics", 405, "method_not_allowed"),
        ("POST", "/static/app.js", 405, "method_not_allowed"),
        ("BREW", "/livez", 405, "method_not_allowed"),
    ],
)
async def test_what_is_not_there(service: Service, method: str, path: str, status: int, code: str) -> None:
    refused(await service.client.request(method, path), status, code)


# What is wrong with the service


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/jobs/0", "DELETE, GET"),  # of two routes
        ("/v1/models", "GET"),
        (EXPLAIN, "POST"),
        ("/static/app.js", "GET, HEAD"),
    ],
)
async def test_what_is_not_allowed_says_what_is(service: Service, path: str, allowed: str) -> None:
    response = await service.client.put(path)
    assert (response.status_code, response.headers["allow"]) == (405, allowed)


async def test_too_much_at_once(service: Service) -> None:
    async with serving(zoo_settings(max_buffered_bytes=4000)) as small:
        image = file(Image.new("1", (60, 60)))  # a small file, but 10,800 bytes of pixels
        response = await small.client.post(PREDICT, content=image)
        assert refused(response, 429, "overloaded")["detail"] == {"limit_bytes": 4000}
        assert response.headers["retry-after"] == "1"
        assert small.state.budget.held == 0
        assert (await small.client.post(PREDICT, content=file(Image.new("1", (9, 9))))).status_code == 200


async def test_a_full_queue(service: Service) -> None:
    async with serving(zoo_settings(queue_capacity=1)) as small:
        small.engine.gate.shut()
        accepted = [asyncio.create_task(small.client.post(EXPLAIN, content=PNG))]
        await small.engine.gate.entered()
        accepted.append(asyncio.create_task(small.client.post(EXPLAIN, content=PNG)))
        await until(lambda: small.depth("explain") == 1)
        response = await small.client.post(EXPLAIN, content=PNG)
        assert refused(response, 429, "queue_full")["detail"] == {"capacity": 1}
        assert response.headers["retry-after"] == "1"
        small.engine.gate.open()
        assert [response.status_code for response in await asyncio.gather(*accepted)] == [200, 200]


async def test_a_full_queue_may_cost_the_map_and_not_the_label(service: Service) -> None:
    async with serving(zoo_settings(queue_capacity=1, shed=True)) as small:
        small.engine.gate.shut()
        waiting = [asyncio.create_task(small.client.post(EXPLAIN, content=PNG))]
        await small.engine.gate.entered()
        waiting.append(asyncio.create_task(small.client.post(EXPLAIN, content=PNG)))
        await until(lambda: small.depth("explain") == 1)
        shed = asyncio.create_task(small.client.post(EXPLAIN, content=PNG))
        await until(lambda: small.depth("predict") == 1)
        small.engine.gate.open()
        body = (await shed).json()
        assert body["label"] == "truck"
        assert body["explanation"] == {"method": "gcm", "status": "shed", "target": None}
        assert (await waiting[0]).json()["explanation"]["status"] != "shed"
        await asyncio.gather(*waiting)


async def test_a_model_that_is_not_ready(service: Service) -> None:
    async with serving(zoo_settings(), wait=False) as early:
        response = await early.client.post(PREDICT, content=PNG)
        assert refused(response, 503, "not_ready")["detail"]["state"] == "loading"
        assert response.headers["retry-after"] == "1"
        health = await early.client.get("/readyz")
        assert (health.status_code, health.json()["status"]) == (503, "unavailable")
        assert any("loading" in problem for problem in health.json()["problems"])
        assert (await early.client.get("/livez")).status_code == 200
        assert (await early.client.get(MODEL)).json()["ready"] is False
        await early.loaded()
        assert (await early.client.post(PREDICT, content=PNG)).status_code == 200


async def test_a_service_that_closes(service: Service) -> None:
    async with serving(zoo_settings()) as closing:
        await closing.model.close()
        response = await closing.client.post(PREDICT, content=PNG)
        refused(response, 503, "draining")
        assert response.headers["retry-after"] == "1"


async def test_a_deadline_that_has_passed_is_no_fault_of_ours(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    response = await service.client.post(EXPLAIN, content=PNG, params={"deadline_ms": 1e-9})
    refused(response, 504, "deadline_exceeded")
    assert not [record for record in caplog.records if record.name.startswith("konkyo")]


async def test_a_body_that_does_not_arrive(service: Service) -> None:
    async with serving(zoo_settings(body_timeout_seconds=0.001)) as hasty:
        caller = Caller(hasty.app, PREDICT)
        caller.send(PNG[:10], more=True)
        await caller.done
        assert caller.status == 408
        assert json.loads(caller.body)["error"]["code"] == "body_timeout"
        assert hasty.state.budget.held == 0


async def test_an_engine_that_fails(service: Service) -> None:
    async with serving(zoo_settings()) as poor:
        poor.engine.fault = broken
        response = await poor.client.post(PREDICT, content=PNG)
        error = refused(response, 500, "inference_failed")
        assert "injected" not in error["message"]  # what is inside is for the log
        poor.engine.fault = None
        assert (await poor.client.post(PREDICT, content=PNG)).status_code == 200


def _leaves(tree: type[KonkyoError] = KonkyoError) -> Iterator[type[KonkyoError]]:
    for branch in tree.__subclasses__():
        yield branch
        yield from _leaves(branch)


async def test_every_error_has_its_own_code() -> None:
    ours = [error for error in _leaves() if error.__module__ == errors.__name__]
    codes = [error.code for error in ours]
    assert len(codes) > 20
    assert len(set(codes)) == len(codes)
    for error in ours:
        assert error("why").body() == {"error": {"code": error.code, "message": "why", "detail": {}}}
        assert (error.retry_after is not None) == (error.status in (429, 503))


# Anything


def _bytes(dice: random.Random) -> bytes:
    return dice.choice(
        [b"", b"{}", b"[]", b"null", b'{"instances":[{}]}', PNG, PNG[:40], dice.randbytes(50), b"--x\r\n\r\n"]
    )


def _word(dice: random.Random) -> str:
    words = [
        "",
        "0",
        "-1",
        "cat",
        "nan",
        "inf",
        "1e999",
        "é",
        "\x00",
        "a,b",
        "../..",
        "%",
        "true",
        "[]",
        "9" * 40,
    ]
    return dice.choice(words)


@pytest.mark.parametrize("seed", range(6))
async def test_nothing_that_is_sent_is_our_fault(service: Service, seed: int) -> None:
    """Random methods, paths, parameters, headers and bodies: an answer below 500, and still alive."""
    dice = random.Random(seed)
    names = [
        "top_k",
        "target",
        "targets",
        "map",
        "overlay",
        "alpha",
        "regions",
        "frame",
        "part",
        "deadline_ms",
        "x",
    ]
    types = [
        "image/png",
        "application/json",
        "multipart/form-data; boundary=x",
        "text/x",
        "multipart/form-data",
        ";",
    ]
    roads: list[Callable[[], str]] = [
        lambda: EXPLAIN,
        lambda: PREDICT,
        lambda: f"/v1/models/{dice.choice(['%00', '..', 'x' * 300, '%F0%9F%98%80'])}:explain",
        lambda: f"{MODEL}/versions/{dice.choice(['0', '1', '-1', '9' * 50])}:predict",
        lambda: dice.choice(
            ["/", "/v1", "/v1/models", "/metrics", "/readyz", "/docs", "/openapi.json", "/static/"]
        ),
    ]
    for _ in range(60):
        response = await service.client.request(
            dice.choices(["POST", "GET", "PUT", "HEAD"], [12, 2, 1, 1])[0],
            dice.choice(roads)(),
            params={dice.choice(names): _word(dice) for _ in range(dice.randrange(3))},
            content=_bytes(dice),
            headers={
                "content-type": dice.choice(types),
                "accept": dice.choice(["*/*", "image/png", "image/webp", "", ";;,", "application/json"]),
                "x-request-id": dice.choice(["", "a b", "x" * 500, "ok"]),
            },
        )
        assert response.status_code < 500 or response.json()["error"]["code"] == "deadline_exceeded"
    assert (await service.client.post(PREDICT, content=PNG)).status_code == 200
    assert service.state.budget.held == 0
