"""The cpu image at work, as a cluster runs it: read-only, without root, without privileges."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import konkyo
from container import Image, Server
from konkyo.service.demo import SAMPLE, ask

WEB = Path(konkyo.__file__).parent / "service" / "web"


@pytest.fixture(scope="module")
def server(image: Image) -> Iterator[Server]:
    with image.server() as started:
        started.ready()
        yield started


def post(address: str, path: str, body: bytes, content_type: str) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(f"{address}{path}", body, {"content-type": content_type})
    with urllib.request.urlopen(request) as response:
        return response.status, json.load(response)


def test_the_container_is_what_it_says(image: Image) -> None:
    """Else the others would show nothing."""
    code, said = image.run("sh", "-c", "id -u; id -g; id -G; touch /opt/new; touch /tmp/new && echo written")
    assert (code, said.splitlines()) == (
        0,
        ["10001", "10001", "10001", "touch: cannot touch '/opt/new': Read-only file system", "written"],
    )
    code, said = image.run("grep", "-E", "^(Cap|NoNewPrivs)", "/proc/self/status")
    assert dict(line.split(":\t") for line in said.splitlines()) == {
        **{f"Cap{kind}": "0" * 16 for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")},
        "NoNewPrivs": "1",
    }
    assert image.run("sh", "-c", "touch /tmp/new", scratch=False)[0] == 1


def test_a_class_and_its_map(server: Server) -> None:
    image = SAMPLE.read_bytes()
    status, answer = post(server.address, "/v1/models/gcm-cifar10:predict", image, "image/jpeg")
    assert (status, answer["label"]) == (200, "cat")
    answer = ask(server.address, "efficientnet-lite0-imagenet", (WEB / "samples/astronaut.jpg").read_bytes())
    assert answer["label"] == "football helmet"
    assert answer["explanation"]["status"] == "ok"


def test_the_page(server: Server) -> None:
    with urllib.request.urlopen(f"{server.address}/") as response:
        assert response.read() == (WEB / "index.html").read_bytes()


def test_it_writes_nothing(server: Server) -> None:
    """Also not for a part of a multipart body that other servers would spool to a file."""
    part = (WEB / "samples/chelsea.jpg").read_bytes() + bytes(3_000_000)
    body = (
        b'--x\r\ncontent-disposition: form-data; name="image"; filename="a"\r\n\r\n' + part + b"\r\n--x--\r\n"
    )
    status, answer = post(
        server.address, "/v1/models/gcm-cifar10:explain", body, "multipart/form-data; boundary=x"
    )
    assert (status, answer["label"]) == (200, "cat")
    assert server.run("find", "/tmp", "-mindepth", "1") == (0, "")


def test_health_follows_readiness_and_the_stop_signal_ends_it_well(image: Image) -> None:
    with image.server(drain_seconds=0) as server:
        server.ready()
        assert server.run("konkyo", "health", "--live") == (0, "")
        assert server.stop() == 0


def test_without_anything_to_write_to(image: Image) -> None:
    with image.server(scratch=False, drain_seconds=0) as server:
        server.ready()
        assert ask(server.address, "gcm-cifar10", SAMPLE.read_bytes())["label"] == "cat"
        assert server.stop() == 0


def test_several_processes(image: Image) -> None:
    """Whose counters take the one place there is to write to."""
    with image.server(processes=2, drain_seconds=0) as server:
        server.ready()
        assert ask(server.address, "gcm-cifar10", SAMPLE.read_bytes())["label"] == "cat"
        with urllib.request.urlopen(f"{server.address}/metrics") as response:
            assert (
                b'konkyo_requests_total{kind="explain",model="gcm-cifar10",outcome="success",version="1"} 1.0'
                in response.read()
            )
        assert server.stop() == 0


def test_a_command_of_its_own(image: Image) -> None:
    code, said = image.run(
        "konkyo", "inspect", "/opt/konkyo/lib/python3.11/site-packages/konkyo/zoo/gcm-cifar10/1"
    )
    assert code == 0
    assert said.startswith("gcm-cifar10 1, sha256:")
