"""Beginning and end of real server processes."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from processes import Process, eventually, process
from services import EXPLAIN, FILES, NAME, copy_bundle

from konkyo.service.settings import ZOO


@contextmanager
def half_sent(server: Process) -> Iterator[Callable[[], tuple[int, bytes]]]:
    """A request that the server has accepted and half read; call the result to send the rest."""
    connection, body = server.connect(), FILES[1]
    with connection, connection.makefile("rb") as answer:
        head = f"POST {EXPLAIN} HTTP/1.1\r\nhost: konkyo\r\ncontent-type: image/png\r\n"
        connection.sendall(f"{head}content-length: {len(body)}\r\nexpect: 100-continue\r\n\r\n".encode())
        assert answer.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert answer.readline() == b"\r\n"
        connection.sendall(body[:100])

        def finish() -> tuple[int, bytes]:
            connection.sendall(body[100:])
            response = http.client.HTTPResponse(connection)
            response.begin()
            with response:
                return response.status, response.read()

        yield finish


def test_sigterm_when_idle_drains_and_exits_with_0(tmp_path: Path) -> None:
    with process(tmp_path, drain_seconds=0.2) as server:
        server.ready()
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0, server.log()
        assert "Traceback" not in server.log()


def test_sigterm_while_loading_exits_with_0(tmp_path: Path) -> None:
    for version in range(1, 41):  # enough that the signal comes in the middle
        copy_bundle(ZOO / NAME / "1", tmp_path, str(version))
    with process(tmp_path, repository=tmp_path, drain_seconds=0) as server:
        assert server.request("GET", "/livez")[0] == 200
        status, body = server.request("GET", "/readyz")
        assert status == 503
        assert any(problem.endswith(": loading") for problem in body["problems"])
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0, server.log()
        assert "Traceback" not in server.log()


def test_sigterm_when_busy_drops_nothing(tmp_path: Path) -> None:
    with process(tmp_path, drain_seconds=600) as server:
        server.ready()
        with half_sent(server) as finish:
            server.signal(signal.SIGTERM)
            eventually(lambda: server.request("GET", "/readyz")[0] == 503)
            assert server.request("GET", "/readyz")[1]["problems"] == ["draining"]
            assert server.request("POST", EXPLAIN, FILES[2])[0] == 200  # who does not know yet is served
            assert server.request("GET", "/livez")[0] == 200

            server.signal(signal.SIGTERM)  # the second skips the rest of the drain
            eventually(lambda: refuses(server))
            status, body = finish()
            assert status == 200
            assert len(json.loads(body)["explanation"]["map"]["data"]) > 100
        assert server.exit_code() == 0, server.log()
        assert "Traceback" not in server.log()


def test_many_in_flight_when_sigterm_comes_are_all_answered(tmp_path: Path) -> None:
    with process(tmp_path, drain_seconds=0) as server:
        server.ready()
        with ExitStack() as requests:
            finishers = [requests.enter_context(half_sent(server)) for _ in range(20)]
            server.signal(signal.SIGTERM)
            eventually(lambda: refuses(server))
            statuses = [finish()[0] for finish in finishers]
        assert statuses == [200] * 20
        assert server.exit_code() == 0, server.log()


def refuses(server: Process) -> bool:
    """Whether new connections are refused."""
    with suppress(ConnectionResetError):  # it was on its way when the port closed
        try:
            server.connect().close()
        except ConnectionRefusedError:
            return True
    return False


def test_sigint_exits_with_0_without_draining(tmp_path: Path) -> None:
    with process(tmp_path, drain_seconds=600) as server:
        server.ready()
        server.signal(signal.SIGINT)
        assert server.exit_code() == 0, server.log()


def test_a_caller_who_never_finishes_does_not_hold_the_exit(tmp_path: Path) -> None:
    with process(tmp_path, drain_seconds=0, shutdown_seconds=1) as server:
        server.ready()
        with half_sent(server):
            server.signal(signal.SIGTERM)
            assert server.exit_code() == 0, server.log()
        assert "Traceback" not in server.log()


def test_a_stream_that_is_cut_off_says_so(tmp_path: Path) -> None:
    with process(tmp_path, drain_seconds=0, shutdown_seconds=1) as server:
        server.ready()
        with server.connect() as caller, caller.makefile("rb") as answer:
            head = f"POST {EXPLAIN}?method=rise&masks=5000 HTTP/1.1\r\nhost: konkyo\r\n"
            rest = f"accept: text/event-stream\r\ncontent-length: {len(FILES[1])}\r\n\r\n"
            caller.sendall(f"{head}{rest}".encode() + FILES[1])
            assert answer.readline() == b"HTTP/1.1 200 OK\r\n"
            server.signal(signal.SIGTERM)
            events = answer.read().replace(b"\r", b"")
        assert re.findall(rb"^event: (\w+)\n", events, re.M)[-1] == b"error"
        assert json.loads(events.split(b"data: ")[-1].splitlines()[0])["error"]["code"] == "draining"
        assert server.exit_code() == 0, server.log()
        assert "Traceback" not in server.log()


HANGS = """
import sys, threading
from konkyo.service import model
from konkyo.service.server import serve
from konkyo.service.settings import Settings

class Hangs:
    def explain(self, *arguments):
        print("it hangs", file=sys.stderr, flush=True)
        threading.Event().wait()

    def close(self):
        pass

model._load_torch = lambda bundle, settings: Hangs()
sys.exit(serve(Settings(port=0)))
"""


def test_a_gradient_that_hangs_does_not_hold_the_exit(tmp_path: Path) -> None:
    with process(tmp_path, program=("-c", HANGS), drain_seconds=0, shutdown_seconds=1) as server:
        server.ready()
        with server.connect() as caller:
            head = f"POST {EXPLAIN}?method=gradcam HTTP/1.1\r\nhost: konkyo\r\ncontent-type: image/png\r\n"
            caller.sendall(f"{head}content-length: {len(FILES[1])}\r\n\r\n".encode() + FILES[1])
            eventually(lambda: "it hangs" in server.log())
            server.signal(signal.SIGTERM)
            assert server.exit_code() == 1, server.log()
        assert "an engine hangs" in server.log()


def serve(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "konkyo", "serve", *arguments],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_a_port_in_use_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = serve("--port", str(port))
    assert done.returncode == 1
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert str(port) in line
    assert "in use" in line


@pytest.mark.parametrize(
    ("name", "value"),
    [("KONKYO_MAX_BATCH", "0"), ("KONKYO_ENGINE", "steam"), ("KONKYO_DRAIN_SECONDS", "soon")],
)
def test_a_bad_setting_is_one_clear_line_with_its_name(name: str, value: str) -> None:
    done = serve(**{name: value})
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith(f"error: {name.removeprefix('KONKYO_').lower()}: ")
