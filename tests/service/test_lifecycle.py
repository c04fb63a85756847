"""Beginning, pressure, failure and end: in the application behind a gate, and in real processes."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from faults import PATIENCE, Caller, Clock, FaultyEngine, Service, broken, copy_bundle, pictures, serving
from faults import until, zoo_settings
from PIL import Image

from konkyo.models.bundle import Bundle
from konkyo.service.engines import make_engine
from konkyo.service.engines.base import Outputs, UInt8
from konkyo.service.settings import ZOO, Settings

NAME = "gcm-cifar10"
PREDICT, EXPLAIN = f"/v1/models/{NAME}:predict", f"/v1/models/{NAME}:explain"
PNG = {"content-type": "image/png"}


def png(image: UInt8) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    return buffer.getvalue()


IMAGES = list(pictures(20))
FILES = [png(image) for image in IMAGES]


def grey(number: int) -> float:
    """What the fake engine gives as the logit of class 0."""
    return float(IMAGES[number].mean() / 255)


def ask(service: Service, number: int, path: str = EXPLAIN, **parameters: Any) -> asyncio.Task[httpx.Response]:
    return asyncio.create_task(
        service.client.post(path, content=FILES[number], headers=PNG, params={"top_k": 10, **parameters})
    )


def right(response: httpx.Response, number: int) -> bool:
    body = response.json()
    first = next(entry["logit"] for entry in body["top_k"] if entry["index"] == 0)
    return response.status_code == 200 and abs(first - grey(number)) < 1e-5


async def hold(service: Service, path: str = EXPLAIN) -> asyncio.Task[httpx.Response]:
    """Occupy the engine with image 0."""
    service.engine.gate.shut()
    task = ask(service, 0, path)
    await service.engine.gate.entered()
    return task


# pressure


@pytest.mark.parametrize("path", [PREDICT, EXPLAIN])
async def test_a_full_queue_answers_429_to_exactly_those_over_it(path: str) -> None:
    async with serving(zoo_settings(queue_capacity=6, max_batch=4)) as service:
        kind = path.rpartition(":")[2]
        held = await hold(service, path)
        accepted = [ask(service, number, path) for number in range(1, 7)]
        await until(lambda: service.depth(kind) == 6)
        for response in await asyncio.gather(*(ask(service, number, path) for number in range(7, 12))):
            assert response.status_code == 429
            assert response.json()["error"]["code"] == "queue_full"
            assert response.headers["retry-after"] == "1"
        assert not any(task.done() for task in accepted)
        assert service.count("queue_depth", kind=kind) == 6

        service.engine.gate.open()
        for number, response in enumerate(await asyncio.gather(held, *accepted)):
            assert right(response, number)
        assert service.count("requests_total", kind=kind, outcome="success") == 7
        assert service.count("requests_total", kind=kind, outcome="rejected") == 5
        assert service.count("rejected_total", reason="queue_full") == 5
        assert service.count("queue_depth", kind=kind) == 0
        assert not any(service.engine.saw(image) for image in IMAGES[7:12])


async def test_a_full_explain_queue_does_not_refuse_predictions() -> None:
    async with serving(zoo_settings(queue_capacity=1)) as service:
        held = await hold(service)
        explained, predicted = ask(service, 1), ask(service, 2, PREDICT)
        await until(lambda: service.depth("explain") == service.depth("predict") == 1)
        service.engine.gate.open()
        responses = await asyncio.gather(held, explained, predicted)
        assert all(right(response, number) for number, response in enumerate(responses))


async def test_shedding_answers_the_label_without_a_map() -> None:
    async with serving(zoo_settings(queue_capacity=1, shed=True)) as service:
        held, waiting = await hold(service), ask(service, 1)
        await until(lambda: service.depth("explain") == 1)
        shed = ask(service, 2)
        await until(lambda: service.depth("predict") == 1)
        both_full = await ask(service, 3)
        assert both_full.status_code == 429
        picture = await service.client.post(EXPLAIN, content=FILES[4], headers={**PNG, "accept": "image/png"})
        assert picture.status_code == 429  # there is no picture of a label

        service.engine.gate.open()
        responses = await asyncio.gather(held, waiting, shed)
        assert all(right(response, number) for number, response in enumerate(responses))
        assert [response.json()["explanation"]["status"] for response in responses] == ["ok", "ok", "shed"]
        body = responses[2].json()
        assert "map" not in body["explanation"]
        assert body["label"] == "truck"  # the fake engine's answer to every image
        assert service.count("requests_total", kind="explain", outcome="shed") == 1


async def test_a_deadline_that_passes_is_504(clock: Clock) -> None:
    async with serving(zoo_settings()) as service:
        held = await hold(service)
        late, patient = ask(service, 1, deadline_ms=5000), ask(service, 2, deadline_ms=500_000)
        await until(lambda: service.depth("explain") == 2)
        await clock.advance(6)
        response = await late
        assert response.status_code == 504
        assert response.json()["error"]["code"] == "deadline_exceeded"
        service.engine.gate.open()
        assert right(await held, 0)
        assert right(await patient, 2)
        assert not service.engine.saw(IMAGES[1])
        assert service.count("requests_total", outcome="deadline") == 1


async def test_the_default_deadline_of_the_settings(clock: Clock) -> None:
    async with serving(zoo_settings(default_deadline_ms=5000)) as service:
        held = await hold(service)
        await clock.advance(6)
        assert (await held).status_code == 504  # in the middle of its batch


@pytest.mark.parametrize("kind", ["predict", "explain"])
async def test_who_leaves_the_queue_is_counted_and_never_computed(kind: str) -> None:
    async with serving(zoo_settings()) as service:
        path = f"/v1/models/{NAME}:{kind}"
        held = await hold(service, path)
        leaver = Caller(service.app, path, headers=[("content-type", "image/png")])
        leaver.send(FILES[1])
        stayer = ask(service, 2, path)
        await until(lambda: service.depth(kind) == 2)
        leaver.leave()
        await leaver.done
        assert leaver.status == 499
        assert service.depth(kind) == 1
        service.engine.gate.open()
        assert right(await held, 0)
        assert right(await stayer, 2)
        assert not service.engine.saw(IMAGES[1])
        assert service.count("requests_total", kind=kind, outcome="cancelled") == 1
        assert service.count("requests_total", kind=kind, outcome="success") == 2


async def test_who_leaves_mid_batch_harms_nobody() -> None:
    async with serving(zoo_settings()) as service:
        service.engine.gate.shut()
        leaver = Caller(service.app, EXPLAIN, headers=[("content-type", "image/png")])
        leaver.send(FILES[1])
        await service.engine.gate.entered()
        stayer = ask(service, 2)
        leaver.leave()
        await leaver.done
        service.engine.gate.open()
        assert right(await stayer, 2)
        assert service.count("requests_total", outcome="cancelled") == 1


async def test_who_leaves_with_several_images_takes_them_all_out_of_the_queue() -> None:
    async with serving(zoo_settings()) as service:
        held = await hold(service)
        boundary = "----b"
        parts = b"".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{number}"\r\n\r\n'.encode()
            + FILES[number]
            + b"\r\n"
            for number in (1, 2, 3)
        )
        leaver = Caller(
            service.app, EXPLAIN, headers=[("content-type", f"multipart/form-data; boundary={boundary}")]
        )
        leaver.send(parts + f"--{boundary}--\r\n".encode())
        await until(lambda: service.depth("explain") == 3)
        leaver.leave()
        await leaver.done
        assert service.depth("explain") == 0
        service.engine.gate.open()
        assert right(await held, 0)
        assert not any(service.engine.saw(IMAGES[number]) for number in (1, 2, 3))
        assert service.count("requests_total", outcome="cancelled") == 3


# readiness


async def readiness(service: Service) -> tuple[int, list[str]]:
    response = await service.client.get("/readyz")
    assert response.status_code == 200 or response.headers["retry-after"] == "1"
    return response.status_code, response.json()["problems"]


async def test_loading_is_live_and_not_ready() -> None:
    gate = threading.Event()

    def slow(bundle: Bundle, settings: Settings) -> FaultyEngine:
        assert gate.wait(PATIENCE)
        return FaultyEngine(bundle)

    async with serving(zoo_settings(), make_engine=slow, wait=False) as service:
        try:
            assert (await service.client.get("/livez")).status_code == 200
            assert await readiness(service) == (503, [f"{NAME}/1: loading"])
            refused = await ask(service, 0)
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "not_ready"
            assert refused.headers["retry-after"] == "1"
            assert service.count("model_ready") == 0
        finally:
            gate.set()
        await service.loaded()
        assert await readiness(service) == (200, [])
        assert right(await ask(service, 0), 0)
        assert service.count("model_ready") == 1


async def test_closing_while_loading_ends() -> None:
    started, gate = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slow(bundle: Bundle, settings: Settings) -> FaultyEngine:
        loop.call_soon_threadsafe(started.set)
        assert gate.wait(PATIENCE)
        return FaultyEngine(bundle)

    async with asyncio.timeout(PATIENCE), serving(zoo_settings(), make_engine=slow, wait=False) as service:
        await started.wait()
        gate.set()
    assert service.model.state == "loading"


@pytest.mark.parametrize("path", [PREDICT, EXPLAIN])
async def test_a_failing_engine_is_not_ready_until_the_canary_passes(path: str) -> None:
    async with serving(zoo_settings()) as service:
        service.engine.fault = broken
        failed = await ask(service, 1, path)
        assert failed.status_code == 500
        assert failed.json()["error"]["code"] == "inference_failed"
        kind = path.rpartition(":")[2]
        status, problems = await readiness(service)
        assert status == 503
        assert f"{NAME}/1: the {kind} queue fails" in problems
        assert (await service.client.get("/livez")).status_code == 200

        service.engine.fault = None
        assert await readiness(service) == (200, [])  # of itself: a service that is not ready gets no traffic
        assert right(await ask(service, 1, path), 1)


async def test_one_poisoned_image_does_not_make_the_service_unready() -> None:
    def poison(images: UInt8, outputs: Outputs) -> Outputs:
        if (images == IMAGES[3]).all(axis=(1, 2, 3)).any():
            raise ValueError("poison")
        return outputs

    async with serving(zoo_settings()) as service:
        held = await hold(service)
        others = [ask(service, number) for number in range(1, 6)]
        await until(lambda: service.depth("explain") == 5)
        service.engine.fault = poison
        service.engine.gate.open()
        for number, response in enumerate(await asyncio.gather(held, *others)):
            assert response.status_code == 500 if number == 3 else right(response, number)
        assert (await ask(service, 3)).status_code == 500  # alone, and last
        assert await readiness(service) == (200, [])
        assert service.count("requests_total", outcome="error") == 2


async def test_running_out_of_memory_is_counted_and_answered() -> None:
    def small(images: UInt8, outputs: Outputs) -> Outputs:
        if len(images) > 2:
            raise MemoryError
        return outputs

    async with serving(zoo_settings()) as service:
        held = await hold(service)
        others = [ask(service, number) for number in range(1, 5)]
        await until(lambda: service.depth("explain") == 4)
        service.engine.fault = small
        service.engine.gate.open()
        responses = await asyncio.gather(held, *others)
        assert all(right(response, number) for number, response in enumerate(responses))
        assert service.count("oom_total") == 1


async def test_a_stopped_queue_is_not_ready() -> None:
    def die() -> None:
        raise SystemError("injected")

    async with serving(zoo_settings()) as service:
        batcher = service.model.batcher("predict")
        batcher._on_execution = lambda execution: die()
        response = await ask(service, 1, PREDICT)
        assert response.status_code == 503
        assert await readiness(service) == (503, [f"{NAME}/1: the predict queue has stopped"])


def flat(images: UInt8, outputs: Outputs) -> Outputs:
    return Outputs(outputs.logits, np.zeros_like(outputs.maps))


def holes(images: UInt8, outputs: Outputs) -> Outputs:
    return Outputs(outputs.logits, outputs.maps * np.nan)


@pytest.mark.parametrize("fault", [flat, holes])
async def test_the_map_of_the_canary_must_show_something(fault: Callable[..., Outputs]) -> None:
    def hollow(bundle: Bundle, settings: Settings) -> FaultyEngine:
        engine = FaultyEngine(bundle)
        engine.fault = fault
        return engine

    async with serving(zoo_settings(), make_engine=hollow) as service:
        status, [problem] = await readiness(service)
        assert status == 503
        assert "the map of the canary is constant or not finite" in problem


async def test_a_model_that_answers_the_canary_wrongly_is_not_served(tmp_path: Path) -> None:
    folder = copy_bundle(ZOO / NAME / "1", tmp_path)
    card = json.loads((folder / "card.json").read_text())
    logits = card["canary"]["logits"]
    logits[0], logits[1] = logits[1] + 1, logits[0]
    (folder / "card.json").write_text(json.dumps(card))
    settings = zoo_settings(repository=tmp_path, engine="onnx")
    async with serving(settings, make_engine=make_engine) as service:
        status, [problem] = await readiness(service)
        assert status == 503
        assert re.search(r"the canary's logits differ from the card's by \d+\.\d% of their range", problem)
        refused = await ask(service, 0)
        assert refused.status_code == 503


async def test_one_bad_bundle_leaves_the_others_serving(tmp_path: Path) -> None:
    copy_bundle(ZOO / NAME / "1", tmp_path, "1")
    bad = copy_bundle(ZOO / NAME / "1", tmp_path, "2")
    (bad / "model.onnx").write_bytes(b"not a graph")
    async with serving(zoo_settings(repository=tmp_path)) as service:
        assert right(await ask(service, 1), 1)
        status, [problem] = await readiness(service)
        assert status == 503
        assert f"{bad / 'model.onnx'}: truncated" in problem


async def test_draining_is_not_ready_and_still_answers() -> None:
    async with serving(zoo_settings()) as service:
        service.state.draining = True
        assert await readiness(service) == (503, ["draining"])
        assert right(await ask(service, 1), 1)


async def test_closing_finishes_what_was_accepted() -> None:
    async with serving(zoo_settings(max_batch=2)) as service:
        tasks = [await hold(service), *(ask(service, number) for number in range(1, 6))]
        await until(lambda: service.depth("explain") == 5)
        closing = asyncio.create_task(service.state.repository.close())
        await until(lambda: service.model.batcher("explain")._closing)
        late = await ask(service, 6)
        assert late.status_code == 503
        assert late.json()["error"]["code"] == "draining"
        service.engine.gate.open()
        responses = await asyncio.gather(*tasks)
        assert all(right(response, number) for number, response in enumerate(responses))
        await closing


# real processes


class Process:
    """``konkyo serve`` on a free port."""

    def __init__(self, log: Path, **settings: object) -> None:
        self._log = log
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KONKYO_")}
        environment |= {f"KONKYO_{name.upper()}": str(value) for name, value in settings.items()}
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "konkyo", "serve", "--port", "0", "--engine", "onnx", "--threads", "1"],
                env=environment, stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], 60)
        line = self._process.stdout.readline() if readable else "nothing"
        found = re.fullmatch(r"Konkyo on http://127\.0\.0\.1:(\d+)\n", line)
        assert found, f"{line!r}; {self.log()}"
        self.port = int(found[1])

    @property
    def pid(self) -> int:
        return self._process.pid

    def log(self) -> str:
        return self._log.read_text(errors="replace")[-3000:]

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        """Over a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body, PNG if body else {})
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
def process(folder: Path, **settings: object) -> Iterator[Process]:
    started = Process(folder / "log", **settings)
    try:
        yield started
    finally:
        started.end()


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
        statuses = []
        with contextmanager_stack(server, 20) as finishers:
            server.signal(signal.SIGTERM)
            eventually(lambda: refuses(server))
            statuses = [finish()[0] for finish in finishers]
        assert statuses == [200] * 20
        assert server.exit_code() == 0, server.log()


@contextmanager
def contextmanager_stack(server: Process, count: int) -> Iterator[list[Callable[[], tuple[int, bytes]]]]:
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield [stack.enter_context(half_sent(server)) for _ in range(count)]


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
    ("name", "value"), [("KONKYO_MAX_BATCH", "0"), ("KONKYO_ENGINE", "steam"), ("KONKYO_DRAIN_SECONDS", "soon")]
)
def test_a_bad_setting_is_one_clear_line_with_its_name(name: str, value: str) -> None:
    done = serve(**{name: value})
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert name in line
