"""Bodies inflated within the limits, and JSON of bounded depth, on every route that reads one."""

from __future__ import annotations

import base64
import gzip
import json
import random
import zlib
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
from services import EXPLAIN, FILES, IMAGES, NAME, PNG, PREDICT, Caller, Service, serving, zoo_settings

from konkyo.errors import InvalidRequest
from konkyo.service.body import INFLATED_STEP, JSON_DEPTH, JSON_VALUES, LIST_VALUES, read_json

pytestmark = pytest.mark.asyncio(loop_scope="module")

INFER = f"/v2/models/{NAME}/infer"
JSON = {"content-type": "application/json"}
LIMIT = 400_000
MEBIBYTE = 2**20


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


CODINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-GZIP", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "deflate without a header": ("deflate", raw_deflate),
    "identity": ("identity", bytes),
}


def bodies() -> dict[str, tuple[str, dict[str, str], bytes]]:
    """By route and form: path, headers and body, each about image 1."""
    instance = {"image_bytes": {"b64": base64.b64encode(FILES[1]).decode()}}
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 32, 32, 3], "data": [IMAGES[1].tolist()]}
    part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
    return {
        "an image": (PREDICT, PNG, FILES[1]),
        "a form": (
            EXPLAIN,
            {"content-type": "multipart/form-data; boundary=b"},
            part + FILES[1] + b"\r\n--b--\r\n",
        ),
        "instances": (PREDICT, JSON, json.dumps({"instances": [instance]}).encode()),
        "a tensor": (INFER, {}, json.dumps({"inputs": [tensor]}).encode()),
        "a raw request": (INFER, {"inference-header-content-length": "0"}, FILES[1]),
        "the index": ("/v2/repository/index", {}, b'{"ready": true}'),
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service() -> AsyncIterator[Service]:
    async with serving(zoo_settings(max_body_bytes=LIMIT, body_timeout_seconds=5)) as running:
        yield running


def values(response_text: str) -> object:
    """An answer without what differs from one to the next."""
    body = json.loads(response_text)
    for part in (body, *(body.get("predictions", []) if isinstance(body, dict) else [])):
        if isinstance(part, dict):
            for name in ("id", "timing_ms"):
                part.pop(name, None)
    return body


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("form", bodies())
async def test_a_compressed_body_is_answered_as_if_it_were_none(
    service: Service, form: str, coding: str
) -> None:
    path, headers, body = bodies()[form]
    name, compress = CODINGS[coding]
    plain = await service.client.post(path, content=body, headers=headers)
    packed = await service.client.post(
        path, content=compress(body), headers={**headers, "content-encoding": name}
    )
    assert (plain.status_code, packed.status_code) == (200, 200), packed.text
    if "application/json" in plain.headers["content-type"]:
        assert values(packed.text) == values(plain.text)
    else:
        length = int(plain.headers["inference-header-content-length"])
        assert packed.content[length:] == plain.content[length:]


@pytest.mark.parametrize("size", [1, 2, 7])
async def test_a_compressed_body_may_come_in_the_smallest_pieces(service: Service, size: int) -> None:
    packed = gzip.compress(FILES[2])
    caller = Caller(service.app, PREDICT, headers=[*PNG.items(), ("content-encoding", "gzip")])
    for start in range(0, len(packed), size):
        caller.send(packed[start : start + size], more=True)
    caller.send()
    await caller.done
    plain = await service.client.post(PREDICT, content=FILES[2], headers=PNG)
    assert caller.status == 200
    assert values(caller.body.decode()) == values(plain.text)


async def test_a_body_inflated_in_many_steps_is_whole(service: Service) -> None:
    """Half of it does not compress, half compresses a thousandfold; both sizes of steps are used."""
    noise = random.Random(0).randbytes(3 * MEBIBYTE // 2)
    padded = FILES[3] + bytes(3 * MEBIBYTE) + noise
    assert len(padded) > 4 * INFLATED_STEP
    async with serving(zoo_settings()) as roomy:
        plain = await roomy.client.post(PREDICT, content=FILES[3], headers=PNG)
        packed = await roomy.client.post(
            PREDICT, content=gzip.compress(padded), headers={**PNG, "content-encoding": "gzip"}
        )
        assert packed.status_code == 200
        assert values(packed.text) == values(plain.text)
        assert roomy.count("input_bytes_sum") == len(FILES[3]) + len(padded)
        assert roomy.state.budget.held == 0


PACKED = gzip.compress(FILES[0])
REFUSED: dict[str, tuple[int, str, str, bytes]] = {
    "brotli": (415, "unsupported_media_type", "br", PACKED),
    "two codings": (415, "unsupported_media_type", "gzip, gzip", gzip.compress(PACKED)),
    "no coding": (415, "unsupported_media_type", "zip", PACKED),
    "not compressed": (400, "invalid_request", "gzip", FILES[0]),
    "not deflated": (400, "invalid_request", "deflate", b"\xff" + FILES[0]),
    "gzip as deflate": (400, "invalid_request", "deflate", PACKED),
    "empty": (400, "invalid_request", "gzip", b""),
    "cut off": (400, "invalid_request", "gzip", PACKED[:-1]),
    "half of it": (400, "invalid_request", "deflate", zlib.compress(FILES[0])[: len(FILES[0]) // 2]),
    "a wrong checksum": (400, "invalid_request", "gzip", PACKED[:-8] + b"\0" * 8),
    "something behind it": (400, "invalid_request", "gzip", PACKED + b"x"),
    "a second member": (400, "invalid_request", "gzip", PACKED + PACKED),
    "too large once inflated": (413, "body_too_large", "gzip", gzip.compress(bytes(LIMIT + 1))),
    "too large before": (413, "body_too_large", "gzip", b"\0" * (LIMIT + 1)),
}


@pytest.mark.parametrize("path", [PREDICT, EXPLAIN, INFER, "/v2/repository/index"])
@pytest.mark.parametrize("name", REFUSED)
async def test_what_cannot_be_inflated_is_refused(service: Service, name: str, path: str) -> None:
    status, code, coding, body = REFUSED[name]
    response = await service.client.post(path, content=body, headers={**PNG, "content-encoding": coding})
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert isinstance(error, str) if path.startswith("/v2") else error["code"] == code
    assert service.state.budget.held == 0


async def test_the_limit_is_exact_after_inflation(service: Service) -> None:
    padded = FILES[0] + bytes(LIMIT - len(FILES[0]))
    response = await service.client.post(
        PREDICT, content=gzip.compress(padded), headers={**PNG, "content-encoding": "gzip"}
    )
    assert response.status_code == 200


async def test_a_bomb_is_given_up_at_the_limit(service: Service) -> None:
    """Of a body that is a hundred times the limit once inflated no more is taken than makes that much."""
    bomb = gzip.compress(bytes(100 * LIMIT))
    caller = Caller(service.app, PREDICT, headers=[("content-encoding", "gzip")])
    for start in range(0, len(bomb), 500):
        caller.send(bomb[start : start + 500], more=True)
    await caller.done
    assert caller.status == 413
    assert json.loads(caller.body)["error"]["detail"] == {"limit_bytes": LIMIT}
    assert caller.received_bytes <= 1000 < len(bomb) // 30
    assert service.state.budget.held == 0


async def test_what_is_inflated_counts_against_the_budget() -> None:
    async with serving(zoo_settings(max_buffered_bytes=MEBIBYTE)) as service:
        response = await service.client.post(
            PREDICT, content=gzip.compress(bytes(2 * MEBIBYTE)), headers={**PNG, "content-encoding": "gzip"}
        )
        assert response.status_code == 429
        assert response.json()["error"]["code"] == "overloaded"
        assert service.state.budget.held == 0


async def test_endless_nothing_ends_at_the_limit(service: Service) -> None:
    """Empty blocks inflate to no byte at all; what has come is counted too."""
    block = b"\0\0\0\xff\xff"  # RFC 1951, section 3.2.4: stored, of length 0
    caller = Caller(service.app, PREDICT, headers=[("content-encoding", "deflate")])
    caller.send(b"\x78\x9c", more=True)
    for _ in range(LIMIT // (1000 * len(block)) + 1):
        caller.send(1000 * block, more=True)
    await caller.done
    assert caller.status == 413


# The depth of JSON


@pytest.mark.parametrize(
    ("opening", "closing", "deep"),
    [("[", "]", 1), ('{"a":', "}", 1), ('[{"a": "[[{{", "b":', "}]", 2)],
    ids=["lists", "objects", "both"],
)
async def test_json_is_read_up_to_its_depth(opening: str, closing: str, deep: int) -> None:
    fits = JSON_DEPTH // deep
    text = f"{opening * fits}1{closing * fits}"
    assert read_json(text.encode()) == json.loads(text)
    over = f"{opening * (fits + 1)}1{closing * (fits + 1)}"
    with pytest.raises(InvalidRequest, match="nested more than 100 deep"):
        read_json(over.encode())


async def test_brackets_in_strings_are_no_depth() -> None:
    texts = ["[" * 500, '"]' * 200, "\\" * 301 + "[{" * 100, "\u65e5[" * 99, '\\"{', ""]
    document = {text: [texts, {"b": text}] for text in texts}
    assert read_json(json.dumps(document).encode()) == document
    assert read_json(json.dumps(document, ensure_ascii=False).encode()) == document


async def test_depth_is_seen_across_the_pieces_it_is_looked_for_in() -> None:
    flat = "[" + ",".join(['""'] * 700_000)
    read_json(f"{flat}]".encode())
    with pytest.raises(InvalidRequest, match="nested more than 100 deep"):
        read_json(f"{flat},{'[' * 100}{']' * 100}]".encode())


@pytest.mark.parametrize("path", [PREDICT, INFER])
async def test_json_of_very_many_values_is_refused_before_it_is_built(path: str) -> None:
    numbers = JSON_VALUES - LIST_VALUES
    text = b"[" + b"0," * numbers
    assert read_json(text + b"0]") == [0] * (numbers + 1)
    for over in (text + b"0,0]", b"[" + b"[]," * (JSON_VALUES // 5) + b"[]]"):
        with pytest.raises(InvalidRequest, match="over 1114112 values in JSON"):
            read_json(over)
    async with serving(zoo_settings()) as roomy:
        response = await roomy.client.post(path, content=text + b"0,0]", headers=JSON)
        assert response.status_code == 400
        assert "binary tensors" in response.text


@pytest.mark.parametrize("path", [PREDICT, INFER])
@pytest.mark.parametrize(
    "text", ["[" * 250_000, '{"a":' * 60_000, '{"inputs":' + "[" * 120 + "]" * 120 + "}"], ids=len
)
async def test_deep_json_is_refused_everywhere(service: Service, path: str, text: str) -> None:
    response = await service.client.post(path, content=text.encode(), headers=JSON)
    assert response.status_code == 400
    assert "nested more than 100 deep" in response.text
