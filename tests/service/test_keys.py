"""API keys and their scopes: what is let in, what is refused, and what is never said."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from services import EXPLAIN, FILES, NAME, PNG, PREDICT, Caller, Service, serving, zoo_settings
from typer.testing import CliRunner

from konkyo.cli import app as commands
from konkyo.service import keys as keys_module
from konkyo.service.access import warn_if_open
from konkyo.service.app import create_app
from konkyo.service.keys import MAX_KEYS, SCOPES, Key, KeyFile, Scope, append_key, make_key, match, parse_keys
from konkyo.service.settings import Settings


@dataclass
class Ring:
    """A file of keys, and the keys themselves, by name."""

    path: Path
    secrets: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, *scopes: Scope) -> str:
        self.secrets[name], key = make_key(name, scopes)
        append_key(self.path, key)
        return self.secrets[name]

    def bearer(self, name: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.secrets[name]}"}


@pytest.fixture
def ring(tmp_path: Path) -> Ring:
    """One key of each scope, and one of all."""
    ring = Ring(tmp_path / "keys")
    for scope in SCOPES:
        ring.add(scope, scope)
    ring.add("all", *SCOPES)
    return ring


@pytest.fixture
async def service(ring: Ring) -> AsyncIterator[Service]:
    async with serving(zoo_settings(api_keys_file=ring.path)) as service:
        yield service


async def status(service: Service, path: str, headers: dict[str, str], method: str = "POST") -> int:
    content = FILES[0] if method == "POST" else None
    response = await service.client.request(method, path, content=content, headers={**PNG, **headers})
    return response.status_code


# Scopes

NEEDS: dict[tuple[str, str], set[str]] = {
    ("POST", PREDICT): {"predict"},
    ("POST", f"/v1/models/{NAME}/versions/1:predict"): {"predict"},
    ("POST", EXPLAIN): {"explain"},
    ("POST", f"/v1/models/{NAME}/versions/1:explain"): {"explain"},
    ("GET", "/v1/models"): set(SCOPES),
    ("GET", f"/v1/models/{NAME}"): set(SCOPES),
    ("GET", f"/v1/models/{NAME}/versions/1"): set(SCOPES),
    ("GET", "/v1/info"): set(SCOPES),
    ("GET", "/metrics"): set(SCOPES),
}
OPEN = ("/livez", "/readyz", "/", "/static/app.js", "/docs", "/openapi.json")


@pytest.mark.parametrize(("method", "path"), NEEDS, ids=[" ".join(route) for route in NEEDS])
async def test_each_route_takes_the_keys_of_its_scope(
    service: Service, ring: Ring, method: str, path: str
) -> None:
    allowed = NEEDS[method, path] | {"all"}
    for name in ring.secrets:
        expected = 200 if name in allowed else 403
        assert await status(service, path, ring.bearer(name), method) == expected, name
        assert await status(service, path, {"x-api-key": ring.secrets[name]}, method) == expected, name
    assert await status(service, path, {}, method) == 401


@pytest.mark.parametrize("path", OPEN)
async def test_what_is_always_open(service: Service, path: str) -> None:
    assert await status(service, path, {}, "GET") == 200


async def test_every_other_route_asks_for_a_key(service: Service) -> None:
    """Also those that are written tomorrow."""
    paths = service.app.openapi()["paths"]
    open_ = {"/livez", "/readyz", "/v2", "/v2/", "/v2/health/live", "/v2/health/ready"}
    asking = [
        (method, path)
        for path, methods in paths.items()
        if path not in open_ and not path.startswith("/v1/studies/")  # they take the tokens of subjects
        for method in methods
    ]
    assert len(asking) >= len(NEEDS)
    names = {"model": NAME, "version": "1", "job": "0" * 32}
    for method, path in asking:
        real = re.sub(r"\{(\w+)(:\w+)?\}", lambda found: names.get(found[1], "x"), path)
        assert await status(service, real, {}, method.upper()) == 401, (method, path)
        security = paths[path][method]["security"]
        assert security == [{"bearer": []}, {"key": []}], (method, path)


async def test_without_a_file_everything_is_open() -> None:
    async with serving(zoo_settings()) as service:
        assert await status(service, EXPLAIN, {}) == 200
        assert await status(service, EXPLAIN, {"authorization": "Bearer whatever"}) == 200
        assert service.count("unauthorized_total") == 0


async def test_openapi_describes_both_ways(service: Service) -> None:
    schemes = service.app.openapi()["components"]["securitySchemes"]
    assert (schemes["bearer"]["type"], schemes["bearer"]["scheme"]) == ("http", "bearer")
    assert (schemes["key"]["type"], schemes["key"]["in"], schemes["key"]["name"]) == (
        "apiKey",
        "header",
        "X-API-Key",
    )


# Refusals


async def test_the_errors(service: Service, ring: Ring) -> None:
    missing = await service.client.post(EXPLAIN, content=FILES[0], headers=PNG)
    assert missing.status_code == 401
    assert missing.headers["www-authenticate"] == 'Bearer realm="konkyo"'
    assert missing.json()["error"]["code"] == "unauthorized"
    wrong = await service.client.post(EXPLAIN, headers={"x-api-key": "konkyo_" + "A" * 43})
    assert wrong.status_code == 401
    assert wrong.headers["www-authenticate"] == 'Bearer realm="konkyo", error="invalid_token"'
    scope = await service.client.post(EXPLAIN, headers=ring.bearer("predict"))
    assert scope.status_code == 403
    assert scope.json()["error"] == {
        "code": "forbidden",
        "message": "this API key does not have the scope explain",
        "detail": {"scope": "explain"},
    }
    counted = {reason: service.count("unauthorized_total", reason=reason) for reason in REASONS}
    assert counted == {"missing": 1, "unknown": 1, "scope": 1}


REASONS = ("missing", "unknown", "scope")


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("authorization", "Basic {key}"),
        ("authorization", "Bearer"),
        ("authorization", "Bearer  "),
        ("authorization", "{key}"),
        ("authorization", "Bearer {key}x"),
        ("authorization", "Bearer {half}"),
        ("authorization", "Bearer {digest}"),
        ("x-api-key", "all"),
        ("x-api-key", "{digest}"),
        ("x-api-key", "\xe9\xff"),
        ("x-api-key", "k" * 5000),
        ("cookie", "key={key}"),
    ],
)
async def test_what_is_no_key(service: Service, ring: Ring, header: str, value: str) -> None:
    key = ring.secrets["all"]
    digest = hashlib.sha256(key.encode()).hexdigest()
    sent = value.format(key=key, half=key[: len(key) // 2], digest=digest).encode("latin-1")
    response = await service.client.get("/v1/models", headers=[(header.encode(), sent)])
    assert response.status_code == 401


async def test_a_key_in_the_query_is_no_key(service: Service, ring: Ring) -> None:
    response = await service.client.get("/v1/models", params={"api_key": ring.secrets["all"]})
    assert response.status_code == 401


async def test_it_is_refused_before_the_body_is_read(service: Service, ring: Ring) -> None:
    for headers, expected in (([], 401), (list(ring.bearer("predict").items()), 403)):
        caller = Caller(service.app, EXPLAIN, headers=headers)
        await caller.done  # and no body was ever sent
        assert (caller.status, caller.received_bytes) == (expected, 0)
        assert not caller.reading.is_set()


async def test_the_scheme_may_be_written_in_any_case(service: Service, ring: Ring) -> None:
    for scheme in ("bearer", "BEARER", "Bearer"):
        headers = {"authorization": f"{scheme}  {ring.secrets['all']} "}
        assert await status(service, "/v1/models", headers, "GET") == 200


async def test_a_bearer_goes_before_the_other_header(service: Service, ring: Ring) -> None:
    headers = {"authorization": "Bearer wrong", "x-api-key": ring.secrets["all"]}
    assert await status(service, "/v1/models", headers, "GET") == 401
    headers["authorization"] = "Basic dXNlcjpwYXNz"  # another's business, such as a proxy's
    assert await status(service, "/v1/models", headers, "GET") == 200


# What is never said


async def test_no_key_and_no_hash_appears_anywhere(
    ring: Ring, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    audit = tmp_path / "audit"
    texts = []
    wrong = make_key("wrong", ["predict"])[0]
    async with serving(
        zoo_settings(api_keys_file=ring.path, access_log=True, audit_log=audit, log_level="debug")
    ) as service:
        for key in (*ring.secrets.values(), wrong):
            for path in (EXPLAIN, PREDICT):
                response = await service.client.post(
                    path, content=FILES[0], headers={**PNG, "authorization": f"Bearer {key}"}
                )
                texts += [response.text, str(response.headers)]
        texts.append((await service.client.get("/metrics", headers=ring.bearer("admin"))).text)
    texts += [caplog.text, audit.read_text()]
    assert '"key": "all"' in texts[-1]  # the name, which is what the record is for
    for key in (*ring.secrets.values(), wrong):
        for secret in (key, hashlib.sha256(key.encode()).hexdigest()):
            assert not any(secret in text for text in texts)


def test_every_entry_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever matches, first, last or none: the same comparisons by ``hmac.compare_digest``."""
    secrets, keys = zip(*(make_key(str(number), ["predict"]) for number in range(5)), strict=True)
    compared: list[tuple[bytes, bytes]] = []
    really = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return really(one, other)

    monkeypatch.setattr(keys_module.hmac, "compare_digest", compare)
    for given, expected in ((secrets[0], keys[0]), (secrets[4], keys[4]), ("nothing", None)):
        compared.clear()
        assert match(keys, given) is expected
        digest = hashlib.sha256(given.encode()).digest()
        assert compared == [(key.digest, digest) for key in keys]
    assert all(len(one) == len(other) == 32 for one, other in compared)


# The file


def line(name: str = "name", scopes: str = "predict", digest: str = "ab" * 32) -> str:
    return f"{name} {scopes} {digest}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no key in it"),
        ("# only a comment\n\n", "there is no key in it"),
        ("konkyo_secret predict", "line 1: expected NAME SCOPES SHA256"),
        (f"\n{line()} more", "line 2: expected NAME SCOPES SHA256"),
        (line(name="a/b"), "line 1: a name is up to 64 letters"),
        (line(name="n" * 65), "line 1: a name is up to 64 letters"),
        (line(scopes="predict,all"), "line 1: scopes are of predict, explain, admin"),
        (line(scopes="predict,"), "line 1: scopes are of predict, explain, admin"),
        (line(digest="AB" * 32), "line 1: the third word is not a SHA-256"),
        (line(digest="ab" * 31), "line 1: the third word is not a SHA-256"),
        (line() + "\n" + line(digest="cd" * 32), "two lines have the same name"),
        (line() + "\n" + line(name="other"), "two lines have the same key"),
        ("\n".join(line(f"n{n}", digest=f"{n:064x}") for n in range(MAX_KEYS + 1)), "the limit is 1000"),
    ],
)
def test_files_that_are_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        parse_keys(text)
    assert "secret" not in str(caught.value)
    assert "ab" * 31 not in str(caught.value).lower()


def test_a_file_as_people_write_it() -> None:
    text = f"# keys\r\n\r\n  first   predict,explain  {'0a' * 32}   # until May\r\nsecond\tadmin\t{'0b' * 32}"
    assert parse_keys(text) == [
        Key("first", frozenset({"predict", "explain"}), bytes([10] * 32)),
        Key("second", frozenset({"admin"}), bytes([11] * 32)),
    ]


def test_a_mark_of_the_byte_order_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    secret, key = make_key("first", ["predict"])
    (tmp_path / "keys").write_bytes(b"\xef\xbb\xbf" + key.line.encode())
    assert KeyFile(tmp_path / "keys").find(secret) == key


def test_a_line_is_read_as_it_is_written() -> None:
    for scopes in (["admin", "predict"], ["explain"], list(SCOPES)):
        _, key = make_key("name", scopes)
        assert parse_keys(key.line) == [key]


@pytest.mark.parametrize(
    "content",
    [b"", b"nonsense", b"\xff\xfe", b"#" * 1_000_001, None],
    ids=["empty", "text", "utf", "large", "no"],
)
def test_a_service_does_not_begin_without_a_usable_file(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="api_keys_file"):
        create_app(zoo_settings(api_keys_file=path))


async def test_keys_come_and_go_without_a_restart(service: Service, ring: Ring) -> None:
    old = ring.bearer("all")
    ring.add("new", "predict")
    assert await status(service, PREDICT, ring.bearer("new")) == 200
    ring.path.write_text(
        "".join(line for line in ring.path.read_text().splitlines(True) if "all" not in line)
    )
    assert await status(service, PREDICT, old) == 401
    assert await status(service, PREDICT, ring.bearer("new")) == 200


async def test_a_secret_of_kubernetes_is_followed(tmp_path: Path) -> None:
    """A volume is a link to ``..data``, itself a link to a folder, which is turned to a new folder."""
    rings = []
    for number in (1, 2):
        folder = tmp_path / f"..version-{number}"
        folder.mkdir()
        rings.append(Ring(folder / "keys"))
        rings[-1].add(f"key-{number}", "predict")
    data = tmp_path / "..data"
    data.symlink_to(rings[0].path.parent)
    (tmp_path / "keys").symlink_to(data / "keys")
    async with serving(zoo_settings(api_keys_file=tmp_path / "keys")) as service:
        assert await status(service, PREDICT, rings[0].bearer("key-1")) == 200
        (tmp_path / "..new").symlink_to(rings[1].path.parent)
        (tmp_path / "..new").rename(data)
        assert await status(service, PREDICT, rings[0].bearer("key-1")) == 401
        assert await status(service, PREDICT, rings[1].bearer("key-2")) == 200


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff", None], ids=["empty", "text", "utf", "gone"])
async def test_a_broken_new_file_keeps_the_old_keys(
    service: Service, ring: Ring, caplog: pytest.LogCaptureFixture, content: bytes | None
) -> None:
    before = ring.path.read_text()
    if content is None:
        ring.path.unlink()
    else:
        ring.path.write_bytes(content)
    for _ in range(3):
        assert await status(service, PREDICT, ring.bearer("predict")) == 200
    assert await status(service, PREDICT, {"x-api-key": "nonsense"}) == 401
    assert caplog.text.count("the old keys stay") == 1  # once, and not with every request
    ring.path.write_text(before)
    ring.add("late", "predict")
    assert await status(service, PREDICT, ring.bearer("late")) == 200


def test_the_file_is_only_read_when_it_has_changed(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    file = KeyFile(ring.path)
    reads = []
    parse = keys_module.parse_keys
    monkeypatch.setattr(keys_module, "parse_keys", lambda text: reads.append(text) or parse(text))
    for _ in range(3):
        assert file.find(ring.secrets["all"]) is not None
    assert reads == []
    ring.add("new", "admin")
    assert len(reads) == 1  # by append_key
    assert file.find(ring.secrets["new"]) is not None
    assert len(reads) == 2


# The command


def run(*arguments: str) -> Any:
    return CliRunner().invoke(commands, ["key", *arguments])


def test_the_command_makes_a_key_that_works(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    made = [run(name, "--scope", "predict", "--scope", "explain", "--file", str(path)) for name in ("a", "b")]
    assert [result.exit_code for result in made] == [0, 0]
    secrets = [result.stdout.strip() for result in made]
    assert all(re.fullmatch(r"konkyo_[A-Za-z0-9_-]{43}", secret) for secret in secrets)
    file = KeyFile(path)
    for secret, name in zip(secrets, "ab", strict=True):
        key = file.find(secret)
        assert key is not None
        assert (key.name, key.scopes) == (name, {"predict", "explain"})
        assert secret not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_without_a_file_the_line_goes_to_stderr() -> None:
    result = run("a", "--scope", "admin")
    [key] = parse_keys(result.stderr)
    assert match([key], result.stdout.strip()) is key
    assert len(result.stdout.splitlines()) == 1


def test_the_file_may_lack_its_last_line_break(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(line())
    assert run("second", "--scope", "predict", "--file", str(path)).exit_code == 0
    assert [key.name for key in parse_keys(path.read_text())] == ["name", "second"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("a b", "--scope", "predict"), "a name is up to 64"),
        (("a", "--scope", "all"), "scopes are of"),
        (("taken", "--scope", "admin", "--file", "{keys}"), "the same name"),
        (("a", "--scope", "admin", "--file", "{nowhere}"), "nowhere"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    places = {"keys": tmp_path / "keys", "nowhere": tmp_path / "nowhere" / "keys"}
    append_key(places["keys"], make_key("taken", ["predict"])[1])
    before = places["keys"].read_bytes()
    result = run(*(argument.format(**places) for argument in arguments))
    assert result.exit_code == 1
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""  # no key that would not work
    assert places["keys"].read_bytes() == before


# The warning


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.org"])
def test_an_open_door_is_loud(host: str, caplog: pytest.LogCaptureFixture, ring: Ring) -> None:
    warn_if_open(Settings(host=host))
    said = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(said) > 3
    assert f"OPEN: listening on {host}, and no API key is asked for." in said
    caplog.clear()
    warn_if_open(Settings(host=host, api_keys_file=ring.path))
    assert not caplog.records


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_a_door_to_this_machine_alone_is_not(host: str, caplog: pytest.LogCaptureFixture) -> None:
    warn_if_open(Settings(host=host))
    assert not caplog.records
