"""Several worker processes at one address."""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from ctypes import c_int
from pathlib import Path
from typing import Any

import httpx
import pytest
from processes import Process, eventually, process
from services import EXPLAIN, FILES, PREDICT, one_model
from test_lifecycle import half_sent, refuses, serve

from konkyo.service.accepting import NOBODY
from konkyo.service.engines import make_engine
from konkyo.service.place import Place
from konkyo.service.settings import Settings
from konkyo.service.sharing import Sharing
from konkyo.service.worker import OTHERS_READY

TWO: dict[str, Any] = {"repository": one_model(), "processes": 2}

PROGRAM = """
import os, sys, threading
from pathlib import Path
from konkyo.service import supervisor
from konkyo.service.engines.fake import FakeEngine
from konkyo.service.model import Model
from konkyo.service.server import serve
from konkyo.service.settings import Settings

HERE = Path(__file__).parent
supervisor.MAX_FAILURES = 2

class Faulty(FakeEngine):
    def run(self, images, targets, attention=None):
        if (HERE / "hang").exists():
            threading.Event().wait()
        return super().run(images, targets, attention)

def make(bundle, settings):
    if (HERE / "crash").exists():
        os._exit(7)
    if (HERE / "slow").exists():
        print("it loads", file=sys.stderr, flush=True)
        threading.Event().wait()
    return Faulty(bundle)

if __name__ != "__main__" and (HERE / "late").exists():
    try:
        (HERE / "first").touch(exist_ok=False)
    except FileExistsError:  # the second worker starts when somebody writes
        (HERE / "late").read_text()

def said(file):
    return file.exists() and file.read_text() == str(os.getpid())

Model.dead = property(lambda model: "a queue has stopped" if said(HERE / "dead") else None)

if __name__ == "__main__":
    os.environ.setdefault("KONKYO_PORT", "0")
    sys.exit(serve(Settings(processes=2), make))
"""


@pytest.fixture
def program(tmp_path: Path) -> tuple[str]:
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    return (str(file),)


def both_ready(server: Process) -> set[int]:
    """The workers, once both serve."""
    server.ready()
    workers = server.workers()
    assert len(workers) == 2
    return workers


def replaced(server: Process, worker: int) -> None:
    """Wait until another serves in its place, while every request is answered."""

    def done() -> bool:
        assert server.request("POST", PREDICT, FILES[0])[0] == 200
        return server.whole_log().count("Application startup complete") >= 3

    eventually(done)
    assert worker not in server.workers()
    assert len(server.workers()) == 2
    server.ready()


def test_a_worker_that_is_killed_is_replaced_without_a_failed_request(tmp_path: Path) -> None:
    with process(tmp_path, **TWO) as server:
        victim, survivor = both_ready(server)
        os.kill(victim, signal.SIGKILL)
        replaced(server, victim)
        assert survivor in server.workers()
        assert f"(process {victim}) ended with SIGKILL; starting another in 0 s" in server.whole_log()


def test_one_that_loads_turns_nobody_away_while_another_serves(tmp_path: Path, program: tuple[str]) -> None:
    with process(tmp_path, program, repository=one_model()) as server:
        victims = both_ready(server)
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        eventually(lambda: len(server.workers() - victims) == 2)
        late = max(server.workers())
        os.kill(late, signal.SIGSTOP)  # there was nobody else when it was started
        server.ready()
        (tmp_path / "slow").touch()
        os.kill(late, signal.SIGCONT)
        eventually(lambda: "it loads" in server.log())
        assert [server.request("POST", PREDICT, FILES[0])[0] for _ in range(20)] == [200] * 20


def test_it_is_not_ready_before_every_worker_is(tmp_path: Path, program: tuple[str], free_port: int) -> None:
    """A worker that starts late would turn away what the readiness of the first one has called."""
    os.mkfifo(tmp_path / "late")

    def problems() -> list[str] | None:
        try:
            response = httpx.get(f"http://127.0.0.1:{free_port}/readyz", trust_env=False)
        except httpx.TransportError:  # nobody listens yet
            return None
        return [] if response.status_code == 200 else response.json()["problems"]

    with ExitStack() as ending, ThreadPoolExecutor() as threads:
        starting = threads.submit(Process, tmp_path / "log", program, port=free_port, repository=one_model())
        try:
            eventually(lambda: problems() == ["another worker process is not ready"])
        finally:
            (tmp_path / "late").write_text("")
            starting.add_done_callback(lambda done: ending.callback(done.result().end))
        server = starting.result()
        server.ready()
        assert [server.request("POST", PREDICT, FILES[0])[0] for _ in range(20)] == [200] * 20


def test_one_that_gives_no_sign_of_life_is_replaced(tmp_path: Path) -> None:
    with process(tmp_path, worker_timeout_seconds=4, **TWO) as server:
        victim, _ = both_ready(server)
        os.kill(victim, signal.SIGSTOP)
        eventually(lambda: f"(process {victim}) gives no sign of life; killing it" in server.whole_log())
        replaced(server, victim)


def test_one_that_needs_a_new_process_gets_one(tmp_path: Path, program: tuple[str]) -> None:
    with process(tmp_path, program, repository=one_model()) as server:
        victim, _ = both_ready(server)
        (tmp_path / "dead").write_text(str(victim))
        replaced(server, victim)
        assert "a queue has stopped; leaving the place to a new process" in server.whole_log()


def test_sigterm_drains_every_worker_and_drops_nothing(tmp_path: Path) -> None:
    with process(tmp_path, drain_seconds=600, **TWO) as server, ExitStack() as requests:
        workers = both_ready(server)
        finishers = [requests.enter_context(half_sent(server)) for _ in range(20)]
        server.signal(signal.SIGTERM)
        for _ in range(2):  # whichever worker answers
            eventually(lambda: server.request("GET", "/readyz")[0] == 503)
        assert "draining" in server.request("GET", "/readyz")[1]["problems"]
        assert server.request("POST", EXPLAIN, FILES[2])[0] == 200
        server.signal(signal.SIGTERM)
        eventually(lambda: refuses(server))
        assert [finish()[0] for finish in finishers] == [200] * 20
        assert server.exit_code() == 0, server.log()
        assert "Traceback" not in server.log()
        assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
        assert list(server.temporary.iterdir()) == []


def test_signals_to_every_process_at_once_do_not_skip_the_drain(tmp_path: Path) -> None:
    """As from a service manager, or from a terminal."""
    with process(tmp_path, drain_seconds=600, **TWO) as server:
        workers = both_ready(server)
        for pid in workers:
            os.kill(pid, signal.SIGINT)
        for pid in (*workers, server.pid):
            os.kill(pid, signal.SIGTERM)
        eventually(lambda: server.request("GET", "/readyz")[0] == 503)
        assert server.request("POST", PREDICT, FILES[0])[0] == 200
        server.signal(signal.SIGINT)
        assert server.exit_code() == 0, server.log()


def test_what_hangs_is_left_behind_and_the_exit_code_tells(tmp_path: Path, program: tuple[str]) -> None:
    settings = {"repository": one_model(), "drain_seconds": 0, "shutdown_seconds": 1}
    with process(tmp_path, program, **settings) as server:
        both_ready(server)
        (tmp_path / "hang").touch()
        with server.connect() as caller:
            head = f"POST {PREDICT} HTTP/1.1\r\nhost: konkyo\r\ncontent-length: {len(FILES[0])}\r\n\r\n"
            caller.sendall(head.encode() + FILES[0])
            server.signal(signal.SIGTERM)
            assert server.exit_code() == 1, server.log()
        assert "an engine hangs" in server.log()


def test_workers_that_keep_dying_end_the_server(tmp_path: Path, program: tuple[str]) -> None:
    (tmp_path / "crash").touch()
    done = subprocess.run(
        [sys.executable, *program], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "KONKYO_REPOSITORY": str(one_model())},
    )  # fmt: skip
    assert done.returncode == 1
    assert "ended with code 7; starting another in 0 s" in done.stderr
    assert "worker processes cannot start; the last ended with code 7" in done.stderr


def test_workers_that_cannot_start_end_it_with_their_reason(tmp_path: Path) -> None:
    done = serve("--processes", "2", "--port", "0", "--api-keys-file", str(tmp_path / "missing"))
    assert done.returncode == 1
    assert done.stdout == ""
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert str(tmp_path / "missing") in line
    assert "Traceback" not in done.stderr


def test_workers_without_a_supervisor_finish_and_end(tmp_path: Path) -> None:
    with process(tmp_path, drain_seconds=0, **TWO) as server:
        workers = both_ready(server)
        with half_sent(server) as finish:
            server.signal(signal.SIGKILL)
            server.exit_code()
            eventually(lambda: refuses(server))
            assert finish()[0] == 200
        eventually(lambda: not any(alive(worker) for worker in workers))


def alive(pid: int) -> bool:
    """Whether it runs; one that has ended may wait for somebody to ask for its code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_long_explanations_are_streams_only(tmp_path: Path) -> None:
    with process(tmp_path, **TWO) as server:
        both_ready(server)
        path = f"{EXPLAIN}?method=occlusion"
        status, body = server.request("POST", path, FILES[0])
        assert (status, body["error"]["code"]) == (406, "not_acceptable")
        assert "text/event-stream" in body["error"]["message"]
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        headers = {"content-type": "image/png", "accept": "text/event-stream"}
        connection.request("POST", path, FILES[0], headers)
        response = connection.getresponse()
        events = response.read().decode().strip().split("\n\n")
        connection.close()
        assert response.status == 200
        assert json.loads(events[-1].partition("data: ")[2])["explanation"]["method"] == "occlusion"


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_metrics_port_in_use_is_one_clear_line(processes: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = serve("--port", "0", "--metrics-port", str(port), "--processes", processes)
    assert done.returncode == 1
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line == f"error: [Errno 98] Address already in use (metrics_port {port} of 127.0.0.1)"


def test_one_that_loads_when_the_server_ends_is_not_waited_for(tmp_path: Path, program: tuple[str]) -> None:
    with process(tmp_path, program, repository=one_model(), drain_seconds=0) as server:
        victim, _ = both_ready(server)
        (tmp_path / "slow").touch()
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: "it loads" in server.log())
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0, server.log()


def test_who_takes_no_messages_holds_nobody_up(tmp_path: Path) -> None:
    """A worker that hangs would stop its supervisor, too, when the pipe between them is full."""
    shared = Sharing(tmp_path, os.getpid())
    counts = multiprocessing.get_context("spawn").RawArray(c_int, [NOBODY])
    place = Place(Settings(**TWO), shared, counts, 0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place.start(make_engine, listener, replaces=False)
        try:
            assert place.process is not None
            assert place.process.pid is not None
            os.kill(place.process.pid, signal.SIGSTOP)
            for _ in range(2000):
                place.tell(OTHERS_READY)
        finally:
            place.kill()
            place.clear()
