"""A real Prometheus scrapes a real server, and finds something for every panel and every alert."""

from __future__ import annotations

import json
import math
import re
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from scraping import (
    OPERATIONS,
    PATIENCE,
    alerts,
    eventually,
    expressions,
    needs_prometheus,
    needs_promtool,
    prometheus,
)

from konkyo.service.demo import SAMPLE, running_server
from konkyo.service.keys import append_key, make_key
from konkyo.service.settings import ZOO

NAME = "gcm-cifar10"


class Server:
    """A server that asks for keys, with a folder of models that it follows."""

    def __init__(self, address: str, models: Path, key: str) -> None:
        self.address, self.models, self.key = address, models, key
        self.target = urllib.parse.urlsplit(address).netloc

    def ask(self, path: str, body: bytes | None = None, *, key: str | None = None, **headers: str) -> int:
        """The status of the answer."""
        headers = {"x-api-key": key or self.key, "content-type": "image/jpeg", **headers}
        request = urllib.request.Request(self.address + path, data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                response.read()
                return int(response.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code

    def metrics(self) -> str:
        request = urllib.request.Request(f"{self.address}/metrics", headers={"x-api-key": self.key})
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            return str(response.read().decode())

    def mixed_traffic(self) -> None:
        """A little of everything."""
        v1, image = f"/v1/models/{NAME}", SAMPLE.read_bytes()
        instances = {"instances": [{"image_bytes": {"b64": "bm8gaW1hZ2U="}}]}
        assert self.ask(f"{v1}:predict", image) == 200
        assert self.ask(f"{v1}:explain?overlay=spotlight", image) == 200
        assert self.ask(f"{v1}:explain?target=1", png(32, 255)) == 200  # nothing in white speaks for a car
        assert self.ask(f"{v1}:explain?method=occlusion", image, accept="text/event-stream") == 200
        raw = {"inference-header-content-length": "0", "content-type": "application/octet-stream"}
        assert self.ask(f"/v2/models/{NAME}/infer", image, **raw) == 200
        as_json = {"content-type": "application/json"}
        assert self.ask(f"{v1}:predict", json.dumps(instances).encode(), **as_json) == 200
        assert self.ask(f"{v1}:predict", b"no image") == 415
        assert self.ask(f"{v1}:predict?deadline_ms=0.0001", image) == 504
        assert self.ask(f"{v1}:predict", png(2500, 0)) == 429  # takes more memory than there may be taken
        assert self.ask(f"{v1}:predict", image, key="wrong") == 401
        assert self.ask("/nowhere") == 404
        with socket.create_connection(tuple(self.target.split(":")), timeout=PATIENCE) as connection:
            connection.sendall(b"POST / HTTP/1.1\r\nno header\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 400")


def png(side: int, value: int) -> bytes:
    _, data = cv2.imencode(".png", np.full((side, side, 3), value, np.uint8))
    return data.tobytes()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    key, made = make_key("prometheus", ["predict", "explain", "admin"])
    append_key(folder / "keys", made)
    models = folder / "models"
    (models / NAME).mkdir(parents=True)
    (models / NAME / "1").symlink_to(ZOO / NAME / "1")
    options = {
        "threads": 1,
        "device": "cpu",
        "engine": "onnx",
        "repository": models,
        "repository-watch": "poll",
        "repository-poll-seconds": 0.2,
        "max-buffered-bytes": 20_000_000,
        "api-keys-file": folder / "keys",
        "audit-log": folder / "audit",
        "log-level": "error",
    }
    with running_server(*(f"--{name}={value}" for name, value in options.items())) as address:
        yield Server(address, models, key)


@needs_promtool
def test_promtool_finds_nothing_wrong_with_the_metrics(server: Server) -> None:
    server.mixed_traffic()
    text = server.metrics()
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    explained = dict(re.findall(r"^# HELP (konkyo_\w+) (.*)$", text, re.M))
    assert explained.keys() == set(re.findall(r"^# TYPE (konkyo_\w+) ", text, re.M))
    assert all(len(words.split()) > 1 for words in explained.values())


def test_nothing_a_caller_sends_makes_a_series(server: Server) -> None:
    def series() -> set[str]:
        return {line.rpartition(" ")[0] for line in server.metrics().splitlines() if not line.startswith("#")}

    def attack(number: int) -> None:
        for path in (
            f"/v1/models/m{number}", f"/v1/models/m{number}:predict", f"/v2/models/m{number}/infer",
            f"/v2/models/{NAME}/versions/{number + 7}/infer", f"/v2/models/m{number}/stats", f"/x{number}",
            f"/static/{number}", f"/v1/jobs/{number}", f"/v1/models/{NAME}:explain?method=m{number}",
            f"/v1/models/{NAME}:explain?target=t{number}", f"/v2/repository/models/m{number}/load",
        ):  # fmt: skip
            assert server.ask(path, SAMPLE.read_bytes(), **{"x-request-id": f"r{number}"}) >= 400, path
            server.ask(path, key=f"konkyo_{number}", **{"user-agent": f"agent {number}"})
        strange = ("PROPFIND", "REPORT", "LOCK", "SEARCH", "PURGE", "LINK")[number]
        request = urllib.request.Request(f"{server.address}/v1/models", method=strange)
        with pytest.raises(urllib.error.HTTPError, match="405"):
            urllib.request.urlopen(request, timeout=PATIENCE)

    server.mixed_traffic()
    attack(0)
    series()  # which is a request as well
    before = series()
    for number in range(1, 6):
        attack(number)
    assert series() == before


@needs_prometheus
def test_every_panel_and_every_alert_finds_something(server: Server, tmp_path: Path) -> None:
    queries = {
        (title, expression): expression.replace("$job", "konkyo")
        .replace("$instance", ".*")
        .replace("$model", ".*")
        .replace("$__rate_interval", "10s")
        for title, expression in expressions()
    }
    with prometheus(tmp_path, server.target, server.key) as found:
        (server.models / NAME / "2").mkdir()  # a new version that is none
        (server.models / NAME / "2" / "card.json").write_text("{}")

        def empty() -> list[tuple[str, str]]:
            server.mixed_traffic()
            return [
                query
                for query, expression in queries.items()
                if all(math.isnan(value) for value in found.values(expression))
            ]

        def all_found() -> bool:
            nonlocal missing
            missing = empty()
            return not missing

        missing: list[tuple[str, str]] = []
        try:
            eventually(all_found)
        except AssertionError:
            pytest.fail(f"nothing for {missing}")

        def evaluated() -> bool:
            groups = found.get("rules")["groups"]
            return all(rule["health"] == "ok" for group in groups for rule in group["rules"])

        eventually(evaluated)

        def states() -> dict[str, str]:
            groups = found.get("rules", type="alert")["groups"]
            return {rule["name"]: rule["state"] for group in groups for rule in group["rules"]}

        eventually(lambda: states()["KonkyoModelLoadFailed"] == "firing")
        assert states().keys() == {alert["alert"] for alert in alerts()}
        firing = {name for name, state in states().items() if state == "firing"}
        assert firing == {"KonkyoModelLoadFailed"}
        for alert in alerts():
            found.values(alert["expr"])
        told = re.findall(r"^```promql\n(.*?)^```", OPERATIONS.read_text(), re.M | re.S)
        assert len(told) >= len(states())  # the page has one for each alert
        eventually(lambda: all(found.values(query) for query in told))  # a rate takes two samples
        eventually(lambda: any(mean > 0 for mean in found.values("job:konkyo_queue_seconds:mean2m")))
