"""What the tests of the monitoring share: its files, and a real Prometheus."""

from __future__ import annotations

import json
import re
import select
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

MONITORING = Path(__file__).parent.parent.parent / "monitoring"
ALERTS, ALERTS_TEST = MONITORING / "alerts.yml", MONITORING / "alerts_test.yml"
CONFIG, DASHBOARD = MONITORING / "prometheus.yml", MONITORING / "dashboard.json"
OPERATIONS = MONITORING.parent / "docs" / "operations.md"
PATIENCE = 60
"""Seconds after which a test gives up; no test that passes waits for it."""

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool")
needs_prometheus = pytest.mark.skipif(shutil.which("prometheus") is None, reason="there is no prometheus")


def rules() -> list[dict[str, Any]]:
    """Every rule of alerts.yml."""
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def panels() -> list[dict[str, Any]]:
    """Every panel of the dashboard but the headings of rows."""
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def expressions() -> list[tuple[str, str]]:
    """Every query of the dashboard, with the title of its panel."""
    return [(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]]


def names(expression: str) -> set[str]:
    """Metrics and recorded series in an expression: what is no label, function or value."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]|\b(by|on|without|ignoring)\s*\([^)]*\)', " ", expression)
    return set(re.findall(r"\b(?:konkyo|process)_\w+|\b\w+:\w+:\w+", bare)) | (
        {"up"} if re.search(r"\bup\b", bare) else set()
    )


def eventually(condition: Callable[[], Any]) -> Any:
    """What the condition gives, once it is true."""
    give_up = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < give_up
        select.select([], [], [], 0.1)
    return found


class Prometheus:
    """A running one, which scrapes and evaluates every second."""

    def __init__(self, address: str) -> None:
        self._address = address

    def get(self, path: str, **parameters: str) -> Any:
        """What its API answers.

        Raises:
            AssertionError: it refuses, such as an expression that it cannot parse; with its message.
        """
        url = f"{self._address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def values(self, expression: str) -> list[float]:
        """The value of every series."""
        data = self.get("query", query=expression)
        results = [data] if data["resultType"] == "scalar" else data["result"]
        return [float(result["value"][1]) for result in results]


@contextmanager
def prometheus(folder: Path, target: str, key: str) -> Iterator[Prometheus]:
    """Prometheus as in prometheus.yml, but of this server, with this API key, and every second."""
    config = yaml.safe_load(CONFIG.read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(ALERTS)]
    [job] = config["scrape_configs"]
    job["static_configs"] = [{"targets": [target]}]
    job["authorization"] = {"credentials": key}
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={file}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=log,
        )
    try:

        def ready() -> bool:
            assert process.poll() is None, (folder / "prometheus.log").read_text()
            try:
                with urllib.request.urlopen(f"http://{address}/-/ready", timeout=PATIENCE) as response:
                    return bool(response.status == 200)
            except OSError:
                return False

        eventually(ready)
        yield Prometheus(f"http://{address}")
    finally:
        process.terminate()
        process.wait()
