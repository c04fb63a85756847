"""Server processes that are signalled, killed and watched from outside."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import machine

from konkyo.service.settings import ZOO

PATIENCE = 60
"""Seconds until a server that should start, get ready or end counts as stuck."""

SMALL, LARGE = "gcm-cifar10", "efficientnet-lite0-imagenet"
"""The quickest of the bundles that ship, and the slowest."""


DEFAULTS = {"port": 0, "engine": "onnx", "threads": 1, "device": "cpu", "log_level": "warning"}


class Server:
    """``konkyo serve``, or another program that is called like it.

    Args:
        log: where its errors go.
        program: what Python runs.
        on: cores to run on; all of them if empty.
        settings: by their names; ``port=0`` takes a free one.
    """

    def __init__(
        self,
        log: Path,
        program: Sequence[str] = ("-m", "konkyo"),
        on: AbstractSet[int] = frozenset(),
        **settings: object,
    ) -> None:
        settings = {**DEFAULTS, **settings}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KONKYO_")}
        environment |= {f"KONKYO_{name.upper()}": str(value) for name, value in settings.items()}
        self.log_file = log
        before = os.sched_getaffinity(0) if on else set()  # inherited by the child, before it counts them
        machine.pin(set(on))
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, *program, "serve"],
                env=environment, stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip
        machine.pin(before)
        self.port = self._read_port()
        self.address = f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of the process that was started; with several workers their parent."""
        return self.process.pid

    def log(self) -> str:
        """The last of what it said."""
        return self.log_file.read_text(errors="replace")[-3000:]

    def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON body."""
        try:
            with urllib.request.urlopen(self.address + path, timeout=PATIENCE) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def post(self, path: str, body: bytes, content_type: str = "image/png") -> tuple[int, Any]:
        """Status and JSON body."""
        request = urllib.request.Request(self.address + path, body, {"content-type": content_type})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def metric(self, name: str, **labels: str) -> float:
        """Sum of the samples of a metric with these labels."""
        with urllib.request.urlopen(f"{self.address}/metrics", timeout=PATIENCE) as answer:
            text = answer.read().decode()
        total = 0.0
        for labelled, value in re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", text, re.M):
            found = dict(re.findall(r'(\w+)="([^"]*)"', labelled))
            if labels.items() <= found.items():
                total += float(value)
        return total

    def wait_ready(self) -> None:
        """Until ``/readyz`` says 200. Raises ``RuntimeError`` if the process ends or takes too long."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if self.get("/readyz")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.02)
        raise RuntimeError(f"the server is not ready: {self.log()}")

    def send(self, number: signal.Signals) -> None:
        """A signal."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Its exit code."""
        return self.process.wait(PATIENCE)

    def end(self) -> None:
        """Whatever state it is in."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read_port(self) -> int:
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        line = self.process.stdout.readline() if readable else ""
        found = re.search(r"http://127\.0\.0\.1:(\d+)$", line.strip())
        if not found:
            self.end()
            raise RuntimeError(f"the server did not start: {line!r} {self.log()}")
        return int(found[1])


@contextmanager
def server(folder: Path, program: Sequence[str] = ("-m", "konkyo"), **settings: Any) -> Iterator[Server]:
    """A server that is ready, while the block runs."""
    started = Server(folder / "server.log", program, **settings)
    try:
        started.wait_ready()
        yield started
    finally:
        started.end()


def only(folder: Path, *models: str) -> Path:
    """A repository of some of the bundles that ship."""
    repository = folder / "repository"
    repository.mkdir(exist_ok=True)
    for model in models:
        if not (repository / model).exists():
            (repository / model).symlink_to(ZOO / model)
    return repository


def family(pid: int) -> list[int]:
    """A process and all that it has started; 0 is this one."""
    pid = pid or os.getpid()
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += map(int, task.read_text().split())
            except OSError:
                continue
    return found


def status(pid: int, name: str) -> int:
    """A number of ``/proc/PID/status``, over a process and all that it has started; memory in bytes."""
    total = 0
    for member in family(pid):
        try:
            text = Path(f"/proc/{member}/status").read_text()
        except OSError:
            continue
        if found := re.search(rf"^{name}:\s+(\d+)( kB)?$", text, re.M):
            total += int(found[1]) * (1024 if found[2] else 1)
    return total


def descriptors(pid: int) -> int:
    """Open file descriptors, likewise."""
    return sum(len(list(Path(f"/proc/{member}/fd").iterdir())) for member in family(pid))


def forget_peak(pid: int) -> None:
    """Let ``VmHWM`` begin at what is resident now."""
    for member in family(pid):
        Path(f"/proc/{member}/clear_refs").write_text("5")
