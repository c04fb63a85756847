"""Every input is bounded, what comes back of it too, and none of it is a place to read from."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from processes import Process, process
from services import EXPLAIN, FILES, NAME, PNG, PREDICT, Service, serving, zoo_settings

from konkyo.errors import MAX_MESSAGE, InvalidParameter, clip
from konkyo.service.long_options import LONG_OPTIONS
from konkyo.service.schemas import ExplainOptions

B64 = base64.b64encode(FILES[0]).decode()
PARAMETERS = sorted({name for kind in (ExplainOptions, *LONG_OPTIONS.values()) for name in kind.model_fields})
HUGE: dict[str, Any] = {
    "text": "x" * 200_000,
    "digits": "9" * 200_000,
    "number": 10**400,
    "texts": ["y" * 2000] * 500,
    "numbers": [1] * 50_000,
    "names": {f"n{number}": 1 for number in range(20_000)},
}


async def ask_json(service: Service, parameters: dict[str, Any]) -> Any:
    body = {"instances": [{"image_bytes": {"b64": B64}}], "parameters": parameters}
    return await service.client.post(EXPLAIN, json=body)


# What comes back is no longer than what is said in it


async def test_no_parameter_is_echoed_at_length() -> None:
    owner = {name: method for method, kind in LONG_OPTIONS.items() for name in kind.model_fields}
    async with serving(zoo_settings()) as service:
        for name in PARAMETERS:
            for what, value in HUGE.items():
                method = {} if name in ExplainOptions.model_fields else {"method": owner[name]}
                response = await ask_json(service, {**method, name: value})
                assert response.status_code < 500, (name, what)
                assert len(response.content) < 20_000, (name, what, response.status_code)


@pytest.mark.parametrize("count", [65, 50_000])
async def test_more_parameters_than_there_are_are_not_looked_at(count: int) -> None:
    async with serving(zoo_settings()) as service:
        response = await ask_json(service, {f"n{number}": 1 for number in range(count)})
        assert response.status_code == 422
        assert response.json()["error"]["message"] == f"{count} parameters; there are not so many"


@pytest.mark.parametrize(
    ("path", "arguments", "status"),
    [
        (f"{EXPLAIN}?target={'a' * 60_000}", {"content": FILES[0], "headers": PNG}, 404),
        (f"{EXPLAIN}?{'a' * 60_000}=1", {"content": FILES[0], "headers": PNG}, 422),
        (f"{EXPLAIN}?targets={'1,' * 30_000}1", {"content": FILES[0], "headers": PNG}, 422),
        (f"/v1/models/{'a' * 60_000}:explain", {"content": FILES[0], "headers": PNG}, 404),
        (f"/v1/models/{NAME}/versions/{'1' * 60_000}:explain", {"content": FILES[0], "headers": PNG}, 404),
        (f"/v2/models/{'a' * 60_000}/infer", {"json": {"inputs": []}}, 404),
        (PREDICT, {"content": FILES[0], "headers": {"content-type": "a" * 60_000}}, 415),
        (PREDICT, {"content": FILES[0], "headers": {**PNG, "content-encoding": "a" * 60_000}}, 415),
        (PREDICT, {"json": {"instances": [{}] * 33}}, 400),
        (PREDICT, {"json": {"instances": [], **{f"n{number}": 1 for number in range(50_000)}}}, 400),
        (PREDICT, {"files": [("image", FILES[0])] * 33}, 400),
        (PREDICT, {"files": [("image", FILES[0]), *((f"n{n}", (None, "1")) for n in range(65))]}, 400),
        (PREDICT, {"files": [("image", FILES[0]), ("a" * 60_000, (None, "1"))]}, 400),
        (PREDICT, {"files": [("a" * 60_000, ("b" * 60_000, FILES[0]))]}, 400),
        (f"/v2/models/{NAME}/infer", {"json": {"inputs": [{"name": "a" * 60_000}]}}, 400),
    ],
    ids=range(15),
)
async def test_refusals_are_short(path: str, arguments: dict[str, Any], status: int) -> None:
    async with serving(zoo_settings()) as service:
        response = await service.client.post(path, **arguments)
        assert response.status_code == status, response.text[:300]
        assert len(response.content) < 5000


async def test_an_id_is_yours_only_while_it_is_short() -> None:
    async with serving(zoo_settings()) as service:
        for given, kept in (("a" * 128, True), ("a" * 129, False), ('"quoted"', False), ("", False)):
            response = await service.client.get("/livez", headers={"x-request-id": given})
            assert (response.headers["x-request-id"] == given) == kept


def test_what_is_clipped() -> None:
    assert clip("a" * 200) == "a" * 200
    assert clip("a" * 201) == "a" * 200 + "…"
    error = InvalidParameter("m" * 10_000, parameter="p" * 10_000, known=["a"], limit=3)
    assert len(error.message) == MAX_MESSAGE + 1
    assert error.detail == {"parameter": "p" * 200 + "…", "known": ["a"], "limit": 3}


# No request names a place to read from

SECRET = "only in this file"


class Canary:
    """Listens, and counts who comes."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.visits = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.visits += 1
            connection.close()

    def visit(self) -> None:
        """Come once; whoever came before has been counted when this returns."""
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            assert connection.recv(1) == b""

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def canary() -> Iterator[Canary]:
    canary = Canary()
    yield canary
    canary.close()


def places(secret: Path, port: int) -> list[str]:
    """What a service that reads where it is told would read from."""
    return [
        f"http://127.0.0.1:{port}/image.png",
        f"//127.0.0.1:{port}/image.png",
        f"file://{secret}",
        str(secret),
        "../" * 12 + str(secret)[1:],
        "..\\" * 12 + str(secret)[1:],
        f"/proc/self/root{secret}",
    ]


def documents(place: str) -> list[bytes]:
    """Files that name the place, of formats that may, and archives of none."""
    link = "http://www.w3.org/1999/xlink"
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:x="{link}"><image x:href="{place}"/></svg>'
    entity = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "{place}">]><x>&e;</x>'
    script = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n({place}) (r) file\n"
    drawing = f"push graphic-context\nfill 'url({place})'\npop graphic-context"
    return [text.encode() for text in (place, svg, entity, script, drawing)]


def requests(schema: dict[str, Any], place: str) -> Iterator[tuple[str, str, bytes, dict[str, str]]]:
    """A request with the place in each parameter and field of each route, and in headers."""
    for path, methods in schema["paths"].items():
        real = dict.fromkeys(names_in(path), "x") | {"model": NAME, "version": "1", "job": "0" * 32}
        for method, route in methods.items():
            if path.endswith("/unload"):
                real = {**real, "model": "another"}  # the one that is served is to stay
            known = path.format(**real)
            for name in names_in(path):
                yield method, path.format(**{**real, name: quote(place, safe="")}), FILES[0], PNG
                yield method, path.format(**{**real, name: quote(place)}), FILES[0], PNG
            for parameter in route.get("parameters", []):
                if parameter["in"] == "query":
                    yield method, f"{known}?{parameter['name']}={quote(place, safe='')}", FILES[0], PNG
            if method == "post":
                for document in documents(place):
                    for kind in ("image/svg+xml", "application/octet-stream"):
                        yield method, known, document, {"content-type": kind}
                for body in bodies(place):
                    yield method, known, json.dumps(body).encode(), {"content-type": "application/json"}
            for header in ("referer", "location", "x-forwarded-host", "forwarded", "x-original-url", "link"):
                yield method, known, FILES[0], {**PNG, header: place}


def names_in(path: str) -> list[str]:
    return [part.partition("}")[0] for part in path.split("{")[1:]]


def bodies(place: str) -> list[dict[str, Any]]:
    """What other servers take a URL or a path in, and every field of ours."""
    tensor = {"name": "image_bytes", "datatype": "BYTES", "shape": [1], "data": [place]}
    image = {"b64": B64}
    return [
        *(
            {"instances": [{name: place}]}
            for name in ("image_bytes", "image", "image_url", "url", "uri", "path")
        ),
        {"instances": [{"image_bytes": {"b64": place}}]},
        {"instances": [{"image_bytes": {"b64": base64.b64encode(place.encode()).decode()}}]},
        {"instances": [{"image_bytes": {"url": place}}]},
        *({"instances": [{"image_bytes": image}], "parameters": {name: place}} for name in PARAMETERS),
        {"inputs": [tensor]},
        {"inputs": [{**tensor, "name": place}]},
        {"inputs": [{**tensor, "parameters": {"shared_memory_region": place, "content_type": place}}]},
        {"inputs": [tensor], "outputs": [{"name": place}]},
        {"id": place, "parameters": {"config": place, "file:1/model.onnx": place}},
    ]


def send(
    server: Process, connection: http.client.HTTPConnection, request: tuple[str, str, bytes, dict[str, str]]
) -> tuple[int, bytes]:
    method, path, body, headers = request
    connection.request(method.upper(), path, body if method != "get" else None, headers)
    response = connection.getresponse()
    return response.status, response.read()


def test_no_place_in_a_request_is_ever_read(tmp_path: Path, canary: Canary) -> None:
    secret = tmp_path / "secret.png"
    secret.write_text(SECRET)
    count = 0
    with process(tmp_path, repository_api=True, log_level="warning") as server:
        server.ready()
        schema = server.request("GET", "/openapi.json")[1]
        for place in places(secret, canary.port):
            for request in requests(schema, place):
                connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
                status, answer = send(server, connection, request)
                connection.close()
                assert status < 500, (request[:2], answer[:300])
                assert SECRET.encode() not in answer, request[:2]
                count += 1
        assert server.request("GET", "/livez")[0] == 200
    assert count > 1000
    assert canary.visits == 0
    canary.visit()
    assert canary.visits == 1
