"""haproxy over replicas, and k6 before it: the tools, and what they were told."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine

from chaos.scenario import NotRunError
from chaos.servers import PATIENCE

SCRIPTS = Path(__file__).parent

CONFIG = """
global
    maxconn 4000
    log stdout format raw local0 info

defaults
    mode http
    log global
    option httplog
    option dontlog-normal
    timeout connect 1s
    timeout client 60s
    timeout server 60s
    timeout check 5s
    # Nothing is tried twice: not a connection that is refused, not a request that got no answer, not at
    # another replica. What the replicas lose, the caller sees.
    retries 0
    no option redispatch

listen stats
    bind 127.0.0.1:{stats}
    stats enable
    stats uri /

frontend in
    bind 127.0.0.1:{port}
    default_backend replicas

backend replicas
    balance roundrobin
    option httpchk
    http-check send meth GET uri /readyz ver HTTP/1.1 hdr Host konkyo
    http-check expect status 200
    default-server check inter 200ms fall 1 rise 1
{servers}
"""


def tool(name: str) -> str:
    """Where a program is: in the variable of its name, on the path, or beside our tools.

    Raises:
        NotRunError: nowhere.
    """
    places = [os.environ.get(name.upper()), shutil.which(name), SCRIPTS.parent / ".venv-tools" / "bin" / name]
    for place in places:
        if place and Path(place).exists():
            return str(place)
    raise NotRunError(f"there is no {name}: make tools, or apt-get install {name}")


class Proxy:
    """haproxy over replicas on these ports of this machine; ``address`` is its own."""

    def __init__(self, folder: Path, ports: Sequence[int]) -> None:
        program, port, stats = tool("haproxy"), machine.free_port(), machine.free_port()
        servers = [f"    server replica{number} 127.0.0.1:{each}" for number, each in enumerate(ports)]
        config = folder / "haproxy.cfg"
        config.write_text(CONFIG.format(port=port, stats=stats, servers="\n".join(servers)))
        with (folder / "haproxy.log").open("ab") as log:
            self._child = subprocess.Popen([program, "-db", "-f", str(config)], stdout=log, stderr=log)
        self.address = f"http://127.0.0.1:{port}"
        self._stats = f"http://127.0.0.1:{stats}/;csv"
        machine.wait_for(f"{self.address}/readyz", self._child, every=0.05)

    def wait_up(self) -> None:
        """Until its checks say that every replica is up. Raises ``RuntimeError`` if they never do."""
        give_up = time.monotonic() + PATIENCE
        while time.monotonic() < give_up:
            with urllib.request.urlopen(self._stats) as answer:
                rows = list(csv.DictReader(answer.read().decode().removeprefix("# ").splitlines()))
            replicas = [row for row in rows if row["svname"].startswith("replica")]
            if replicas and all(row["status"] == "UP" for row in replicas):
                return
            time.sleep(0.05)
        raise RuntimeError("the proxy does not see every replica up")

    def end(self) -> None:
        """Stop it."""
        self._child.terminate()
        self._child.wait()


class K6:
    """A k6 script at work; ``summary`` waits for its end."""

    def __init__(self, folder: Path, script: str, **variables: object) -> None:
        self._summary, self._log = folder / "k6.json", folder / "k6.log"
        self._summary.unlink(missing_ok=True)
        environment = {**os.environ, "K6_NO_USAGE_REPORT": "true", "SUMMARY": str(self._summary)}
        environment |= {name.upper(): str(value) for name, value in variables.items()}
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(
                [tool("k6"), "run", "--quiet", str(SCRIPTS / script)], env=environment, stdout=log, stderr=log
            )

    @property
    def running(self) -> bool:
        """Whether it still sends."""
        return self._child.poll() is None

    def summary(self) -> dict[str, dict[str, Any]]:
        """The values of each of its metrics."""
        self._child.wait()
        if not self._summary.exists():
            raise RuntimeError(f"k6 failed: {self._log.read_text(errors='replace')[-2000:]}")
        metrics = json.loads(self._summary.read_text())["metrics"]
        return {name: metric["values"] for name, metric in metrics.items()}

    def end(self) -> None:
        """Whatever state it is in."""
        if self.running:
            self._child.kill()
        self._child.wait()
