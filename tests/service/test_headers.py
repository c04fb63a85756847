"""What browsers are told, and what is not taken from them."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from services import EXPLAIN, FILES, PNG, PREDICT, Service, serving, zoo_settings
from starlette.types import Receive, Scope, Send

from konkyo.service.keys import append_key, make_key
from konkyo.service.settings import Settings

FRIEND, STRANGER = "https://friend.example", "https://stranger.example"


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving(zoo_settings()) as service:
        yield service


@pytest.fixture
async def friendly(tmp_path: Path) -> AsyncIterator[tuple[Service, str]]:
    """A service that lets one origin in, and asks for a key; and a key."""
    secret, key = make_key("page", ["predict", "explain"])
    append_key(tmp_path / "keys", key)
    async with serving(zoo_settings(cors_origins=[FRIEND], api_keys_file=tmp_path / "keys")) as service:
        yield service, secret


# Headers

EVERYWHERE = {
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
}
ON_PAGES = {
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
    "cache-control": "no-cache",
}
ANSWERS = [
    *(("GET", path, 200) for path in ("/livez", "/readyz", "/metrics", "/openapi.json", "/v1/models", "/v2")),
    *(("GET", path, 200) for path in ("/", "/docs", "/static/app.js", "/static-offline-docs/swagger-ui.css")),
    ("POST", PREDICT, 200),
    ("GET", "/nowhere", 404),
    ("DELETE", PREDICT, 405),
    ("GET", "/v1/models/none", 404),
    ("GET", "/v2/models/none", 404),
]


def directives(policy: str) -> dict[str, str]:
    return {name: rest for name, _, rest in (part.strip().partition(" ") for part in policy.split(";"))}


@pytest.mark.parametrize(("method", "path", "status"), ANSWERS)
async def test_every_answer_carries_them(service: Service, method: str, path: str, status: int) -> None:
    content = FILES[0] if method == "POST" else None
    response = await service.client.request(method, path, content=content, headers=PNG if content else {})
    assert response.status_code == status
    assert EVERYWHERE.items() <= dict(response.headers).items()
    assert "strict-transport-security" not in response.headers
    policy = directives(response.headers["content-security-policy"])
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"


@pytest.mark.parametrize("path", ["/", "/docs", "/static/app.js"])
async def test_pages_carry_more(service: Service, path: str) -> None:
    headers = (await service.client.get(path)).headers
    assert ON_PAGES.items() <= dict(headers).items()
    features = re.findall(r"([a-z-]+)=\(\)", headers["permissions-policy"])
    assert {"camera", "microphone", "geolocation", "payment", "usb"} <= set(features)
    policy = directives(headers["content-security-policy"])
    assert policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["connect-src"] == "'self'"


async def test_scripts_are_our_own_files(service: Service) -> None:
    policy = directives((await service.client.get("/")).headers["content-security-policy"])
    assert policy["script-src"] == policy["style-src"] == "'self'"


async def test_the_one_script_of_the_documentation_is_known_by_its_hash(service: Service) -> None:
    response = await service.client.get("/docs")
    [script] = re.findall(r"<script>(.*?)</script>", response.text, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = directives(response.headers["content-security-policy"])
    assert policy["script-src"] == f"'self' 'sha256-{digest}'"
    assert len(response.headers.get_list("content-security-policy")) == 1
    for file in re.findall(r'(?:src|href)="(/[^"]+)"', response.text):
        assert (await service.client.get(file)).status_code == 200


async def test_transport_security_where_the_transport_is_secure(service: Service) -> None:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(service.app), base_url="https://konkyo"
    ) as client:
        for path in ("/", "/livez", "/v1/models"):
            response = await client.get(path)
            assert response.headers["strict-transport-security"] == "max-age=31536000"


async def test_an_unexpected_error_carries_them_too(service: Service) -> None:
    """Its answer is made outside of all that routes and handlers do."""

    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("injected")

    service.app.mount("/broken", broken)
    transport = httpx.ASGITransport(service.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://konkyo") as client:
        response = await client.get("/broken/", headers={"x-request-id": "mine"})
    assert response.status_code == 500
    assert (EVERYWHERE | {"x-request-id": "mine"}).items() <= dict(response.headers).items()


# Who may read an answer


def preflight(origin: str, method: str, headers: str) -> dict[str, str]:
    return {
        "origin": origin,
        "access-control-request-method": method,
        "access-control-request-headers": headers,
    }


async def test_closed_unless_told_otherwise(service: Service) -> None:
    asked = preflight(STRANGER, "POST", "authorization")
    assert (await service.client.options(PREDICT, headers=asked)).status_code == 405
    response = await service.client.get("/v1/models", headers={"origin": STRANGER})
    assert not [name for name in response.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "headers", ["authorization, content-type", "x-api-key", "inference-header-content-length"]
)
@pytest.mark.parametrize("path", [PREDICT, EXPLAIN, "/v1/jobs/0", "/v2/models/gcm-cifar10/infer"])
async def test_a_preflight_needs_no_key(friendly: tuple[Service, str], path: str, headers: str) -> None:
    service, _ = friendly
    response = await service.client.options(path, headers=preflight(FRIEND, "POST", headers))
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == FRIEND
    assert set(headers.split(", ")) <= set(
        response.headers["access-control-allow-headers"].lower().split(", ")
    )
    assert "access-control-allow-credentials" not in response.headers


async def test_a_preflight_of_a_stranger_is_refused(friendly: tuple[Service, str]) -> None:
    service, _ = friendly
    response = await service.client.options(PREDICT, headers=preflight(STRANGER, "POST", "x-api-key"))
    assert response.status_code == 400
    assert "access-control-allow-origin" not in response.headers


async def test_a_page_of_that_origin_asks_with_a_key(friendly: tuple[Service, str]) -> None:
    service, secret = friendly
    headers = {**PNG, "origin": FRIEND, "sec-fetch-site": "cross-site"}
    response = await service.client.post(PREDICT, content=FILES[0], headers=headers)
    assert response.status_code == 401
    assert response.headers["access-control-allow-origin"] == FRIEND  # or the page could not tell why
    headers["authorization"] = f"Bearer {secret}"
    response = await service.client.post(PREDICT, content=FILES[0], headers=headers)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == FRIEND
    assert {"x-request-id", "server-timing", "retry-after", "location"} <= set(
        response.headers["access-control-expose-headers"].lower().split(", ")
    )


# What a page may have a visitor's browser send

SENT: dict[str, tuple[dict[str, str], int]] = {
    "a program": ({}, 200),
    "our page": ({"sec-fetch-site": "same-origin", "origin": "http://konkyo"}, 200),
    "typed by a person": ({"sec-fetch-site": "none"}, 200),
    "our page, old browser": ({"origin": "http://konkyo"}, 200),
    "our page, behind TLS": ({"origin": "https://konkyo"}, 200),
    "another page": ({"sec-fetch-site": "cross-site", "origin": STRANGER}, 403),
    "a neighbour": ({"sec-fetch-site": "same-site", "origin": "http://other.konkyo"}, 403),
    "another page, old browser": ({"origin": STRANGER}, 403),
    "another port": ({"origin": "http://konkyo:8080"}, 403),
    "a sandbox": ({"origin": "null"}, 403),
}


@pytest.mark.parametrize("who", SENT)
async def test_what_other_pages_have_a_browser_send_is_refused(service: Service, who: str) -> None:
    """A form needs no preflight, so that CORS alone would let it in."""
    headers, expected = SENT[who]
    for path in (PREDICT, EXPLAIN, "/v2/models/gcm-cifar10/infer"):
        before = len(service.engine.batches)
        response = await service.client.post(path, files={"image": FILES[0]}, headers=headers)
        assert (response.status_code == 403) == (expected == 403), (path, response.text)
        if expected == 403:
            assert len(service.engine.batches) == before
    assert (await service.client.get("/v1/models", headers=headers)).status_code == 200


async def test_the_refusal_is_an_error_like_any_other(service: Service) -> None:
    response = await service.client.post(PREDICT, content=FILES[0], headers={"origin": STRANGER})
    assert response.json()["error"]["code"] == "cross_origin"


async def test_a_listed_origin_may(friendly: tuple[Service, str]) -> None:
    service, secret = friendly
    headers = {"x-api-key": secret, "sec-fetch-site": "cross-site"}
    for origin, expected in ((FRIEND, 200), (STRANGER, 403)):
        response = await service.client.post(
            PREDICT, content=FILES[0], headers={**PNG, **headers, "origin": origin}
        )
        assert response.status_code == expected


# The setting


@pytest.mark.parametrize(
    "value",
    [
        "*",
        "null",
        "friend.example",
        "https://",
        "https://friend.example/",
        "https://u@friend.example",
        "ftp://a",
    ],
)
def test_what_is_no_origin_is_refused_at_the_start(value: str) -> None:
    with pytest.raises(ValueError, match="is no origin such as"):
        Settings(cors_origins=[value])


def test_origins_from_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KONKYO_CORS_ORIGINS", "https://A.example, http://b.example:8080,")
    assert Settings().cors_origins == ["https://a.example", "http://b.example:8080"]
    monkeypatch.setenv("KONKYO_CORS_ORIGINS", "")
    assert Settings().cors_origins == []
