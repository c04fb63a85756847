"""Real server processes for the tests of the service."""

from __future__ import annotations

import http.client
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from faults import PATIENCE
from services import PNG


class Process:
    """``konkyo serve``, or another program that is called like it, on a free port."""

    def __init__(self, log: Path, program: tuple[str, ...] = ("-m", "konkyo"), **settings: object) -> None:
        self._log = log
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KONKYO_")}
        environment |= {f"KONKYO_{name.upper()}": str(value) for name, value in settings.items()}
        self.temporary = log.parent / "temporary"
        """Where it puts what it needs for a while: one that is killed leaves it behind."""
        self.temporary.mkdir(exist_ok=True)
        environment["TMPDIR"] = str(self.temporary)
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, *program, "serve", "--port=0", "--engine=onnx", "--threads=1"],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], 60)
        line = self._process.stdout.readline() if readable else "nothing"
        found = re.fullmatch(r"Konkyo on (https?://127\.0\.0\.1:(\d+))\n", line)
        assert found, f"{line!r}; {self.log()}"
        self.address, self.port = found[1], int(found[2])

    @property
    def pid(self) -> int:
        return self._process.pid

    def workers(self) -> set[int]:
        """Process ids of those that serve under it."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return {int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()}

    def log(self) -> str:
        return self.whole_log()[-3000:]

    def whole_log(self) -> str:
        return self._log.read_text(errors="replace")

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] = PNG
    ) -> tuple[int, Any]:
        """Over a connection of its own; the headers go with a body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body, headers if body else {})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def ready(self) -> None:
        eventually(lambda: self.request("GET", "/readyz")[0] == 200)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def exit_code(self) -> int:
        return self._process.wait(PATIENCE)

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(PATIENCE)
        assert self._process.stdout is not None
        self._process.stdout.close()


def eventually(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up
        select.select([], [], [], 0.02)


@contextmanager
def process(
    folder: Path, program: tuple[str, ...] = ("-m", "konkyo"), **settings: object
) -> Iterator[Process]:
    started = Process(folder / "log", program, **settings)
    try:
        yield started
    finally:
        started.end()
