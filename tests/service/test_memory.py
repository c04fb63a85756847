"""Memory is bounded: whatever is sent, and however it ends."""

from __future__ import annotations

import asyncio
import json
import re
import select
import struct
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from faults import Clock, broken, until
from processes import Process, process
from services import EXPLAIN, FILES, NAME, PREDICT, Caller, Service, ask, hold, right, serving, zoo_settings

from konkyo.errors import Overloaded
from konkyo.imaging import decoding_bytes, open_image
from konkyo.service.budget import MemoryBudget
from konkyo.service.engines.base import Outputs, UInt8

IMAGE_TYPE = ("content-type", "image/png")
DECODED = decoding_bytes(open_image(FILES[0]))
MEBIBYTE = 2**20


def test_the_budget_counts_exactly() -> None:
    budget = MemoryBudget(100)
    with budget.hold(60):
        budget.take(40)
        assert budget.held == 100
        with pytest.raises(Overloaded, match="too much image data") as caught:
            budget.take(1)
        assert (caught.value.status, caught.value.code, caught.value.retry_after) == (429, "overloaded", 1)
        with pytest.raises(Overloaded), budget.hold(1):
            pytest.fail("the block must not run")
        assert budget.held == 100
        budget.release(40)
        assert budget.held == 60
    assert budget.held == 0
    with pytest.raises(ZeroDivisionError), budget.hold(100):
        raise ZeroDivisionError
    assert budget.held == 0


async def test_what_is_over_the_budget_is_refused_and_what_is_held_is_counted() -> None:
    both = len(FILES[0]) + DECODED + len(FILES[1]) + DECODED
    async with serving(zoo_settings(max_buffered_bytes=both)) as service:
        held = await hold(service, PREDICT)
        assert service.state.budget.held == len(FILES[0]) + DECODED
        fits = ask(service, 1, PREDICT)
        await until(lambda: service.depth("predict") == 1)
        assert service.state.budget.held == both
        refused = await ask(service, 2, PREDICT)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "overloaded"
        assert refused.headers["retry-after"] == "1"
        assert service.state.budget.held == both
        service.engine.gate.open()
        assert right(await held, 0)
        assert right(await fits, 1)
        assert service.state.budget.held == 0
        assert right(await ask(service, 2, PREDICT), 2)


async def test_a_decoded_image_over_the_budget_is_refused() -> None:
    async with serving(zoo_settings(max_buffered_bytes=len(FILES[0]) + DECODED - 1)) as service:
        assert (await ask(service, 0)).status_code == 429
        assert service.state.budget.held == 0
        assert service.count("rejected_total", reason="overloaded") == 1


# bodies


async def test_a_declared_length_over_the_limit_is_refused_unread() -> None:
    async with serving(zoo_settings(max_body_bytes=1000)) as service:
        caller = Caller(service.app, PREDICT, headers=[IMAGE_TYPE, ("content-length", "1001")])
        await caller.done
        assert caller.status == 413
        assert b'"body_too_large"' in caller.body
        assert not caller.reading.is_set()


async def test_a_chunked_body_over_the_limit_is_refused_at_the_limit() -> None:
    async with serving(zoo_settings(max_body_bytes=1000)) as service:
        caller = Caller(service.app, PREDICT, headers=[IMAGE_TYPE])
        for _ in range(10):
            caller.send(bytes(100), more=True)
        await until(lambda: caller.received_bytes == 1000 and caller.reading.is_set())
        assert service.state.budget.held == 1000
        for _ in range(10):
            caller.send(b"\0", more=True)
        await caller.done
        assert caller.status == 413
        assert caller.received_bytes == 1001
        assert service.state.budget.held == 0


async def test_a_body_that_does_not_come_is_given_up(clock: Clock) -> None:
    async with serving(zoo_settings(body_timeout_seconds=30)) as service:
        caller = Caller(service.app, PREDICT, headers=[IMAGE_TYPE])
        for _ in range(3):  # slow, but never silent for long: the limit is for the whole
            caller.send(bytes(100), more=True)
            await until(caller.reading.is_set)
            await clock.advance(9)
        assert service.state.budget.held == 300
        await clock.advance(9)
        await caller.done
        assert caller.status == 408
        assert b'"body_timeout"' in caller.body
        assert service.state.budget.held == 0


async def test_many_tiny_chunks_are_one_body() -> None:
    async with serving(zoo_settings()) as service:
        caller = Caller(service.app, PREDICT, headers=[IMAGE_TYPE])
        for byte in FILES[1]:
            caller.send(bytes([byte]), more=True)
        caller.send()
        await caller.done
        assert caller.status == 200
        whole = (await ask(service, 1, PREDICT)).json()
        pieces = json.loads(caller.body)
        assert (pieces["label"], pieces["score"]) == (whole["label"], whole["score"])
        assert service.state.budget.held == 0


async def test_who_leaves_while_sending_gives_everything_back() -> None:
    async with serving(zoo_settings()) as service:
        caller = Caller(service.app, PREDICT, headers=[IMAGE_TYPE])
        caller.send(bytes(100), more=True)
        await until(lambda: service.state.budget.held == 100)
        caller.leave()
        await caller.done
        assert caller.status == 499
        assert service.state.budget.held == 0


# however it ends


async def _broken_image(service: Service, clock: Clock) -> int:
    half = FILES[1][: len(FILES[1]) // 2]
    return (await service.client.post(EXPLAIN, content=half)).status_code


async def _not_an_image(service: Service, clock: Clock) -> int:
    return (await service.client.post(EXPLAIN, content=b"GIF89a")).status_code


async def _bad_parameter(service: Service, clock: Clock) -> int:
    return (await ask(service, 1, alpha=7)).status_code


async def _unknown_class(service: Service, clock: Clock) -> int:
    return (await ask(service, 1, target="unicorn")).status_code


async def _cancelled(service: Service, clock: Clock) -> int:
    held = await hold(service)
    caller = Caller(service.app, EXPLAIN, headers=[IMAGE_TYPE])
    caller.send(FILES[1])
    await until(lambda: service.depth("explain") == 1)
    caller.leave()
    await caller.done
    service.engine.gate.open()
    await held
    assert caller.status is not None
    return caller.status


async def _late(service: Service, clock: Clock) -> int:
    held = await hold(service)
    late = ask(service, 1, deadline_ms=1000)
    await until(lambda: service.depth("explain") == 1)
    await clock.advance(2)
    service.engine.gate.open()
    await held
    return (await late).status_code


async def _queue_full(service: Service, clock: Clock) -> int:
    tasks = [await hold(service)]
    for number in (1, 2):
        tasks.append(ask(service, number))
        await until(lambda: service.depth("explain") == len(tasks) - 1)
    refused = await ask(service, 3)
    service.engine.gate.open()
    await asyncio.gather(*tasks)
    return refused.status_code


async def _engine_failure(service: Service, clock: Clock) -> int:
    service.engine.fault = broken
    return (await ask(service, 1)).status_code


def no_outputs(images: UInt8, outputs: Outputs) -> None:
    """A fault: an engine that breaks its contract."""


async def _unexpected_failure(service: Service, clock: Clock) -> int:
    service.engine.fault = no_outputs  # type: ignore[assignment]
    return (await ask(service, 1)).status_code


@pytest.mark.parametrize(
    ("fail", "status"),
    [
        (_broken_image, 400),
        (_not_an_image, 415),
        (_bad_parameter, 422),
        (_unknown_class, 404),
        (_cancelled, 499),
        (_late, 504),
        (_queue_full, 429),
        (_engine_failure, 500),
        (_unexpected_failure, 500),
    ],
)
async def test_every_end_gives_the_memory_back(
    clock: Clock, fail: Callable[[Service, Clock], Awaitable[int]], status: int
) -> None:
    async with serving(zoo_settings(queue_capacity=2)) as service:
        assert await fail(service, clock) == status
        assert service.state.budget.held == 0
        service.engine.fault = None
        assert right(await ask(service, 5), 5)
        assert service.state.budget.held == 0


# bombs, in a process whose memory can be read


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(side: int, pixels: bytes, *extra: bytes) -> bytes:
    """An 8-bit grey PNG with this side in its header, whatever its data."""
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + b"".join(extra)
        + _chunk(b"IDAT", pixels)
        + _chunk(b"IEND", b"")
    )


def _deflated_zeros(count: int) -> bytes:
    compressor = zlib.compressobj(9)
    pieces = [compressor.compress(bytes(MEBIBYTE)) for _ in range(count // MEBIBYTE)]
    return b"".join(pieces) + compressor.flush()


def _peak(server: Process) -> int:
    """The most memory that was ever resident."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{server.pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


def _flood(server: Process) -> tuple[int, bytes]:
    """A chunked body without end; what was sent until the answer came, and the answer."""
    piece = b"10000\r\n" + bytes(65536) + b"\r\n"
    sent = 0
    with server.connect() as connection:
        connection.sendall(
            f"POST {EXPLAIN} HTTP/1.1\r\nhost: k\r\ntransfer-encoding: chunked\r\n\r\n".encode()
        )
        try:
            while not select.select([connection], [], [], 0)[0]:
                connection.sendall(piece)
                sent += 65536
                assert sent < 200 * MEBIBYTE
            return sent, connection.recv(65536)
        except ConnectionError:  # the server has closed on what it no longer reads
            return sent, b""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_bombs_do_not_grow_the_process(tmp_path: Path) -> None:
    zeros = _deflated_zeros(400 * MEBIBYTE)
    assert len(zeros) < MEBIBYTE
    profile = _chunk(b"iCCP", b"p\0\0" + zeros)
    text = _chunk(b"zTXt", b"t\0\0" + zeros)
    bombs = [
        (413, _png(20_000, zeros)),  # 400 megapixels
        (413, _png(8_000, zeros)),  # under Pillow's own limit, over ours
        (413, _png(60_000, zeros)),  # where Pillow itself refuses
    ]
    tricks = [_png(32, zeros), _png(32, FILES[1], profile), _png(32, FILES[1], text)]
    with process(tmp_path) as server:
        server.ready()
        assert server.request("POST", EXPLAIN, FILES[0])[0] == 200
        before = _peak(server)
        for status, bomb in bombs:
            for _ in range(5):
                answer, body = server.request("POST", EXPLAIN, bomb)
                assert (answer, body["error"]["code"]) == (status, "image_too_large")
        for trick in tricks:
            assert server.request("POST", EXPLAIN, trick)[0] in (200, 400)
        for path in (EXPLAIN, f"/v2/models/{NAME}/infer"):
            for _ in range(5):
                answer, _ = server.request("POST", path, zeros, {"content-encoding": "deflate"})
                assert answer == 413
        sent, refusal = _flood(server)
        assert sent >= 20 * MEBIBYTE
        assert refusal[:12] in (b"HTTP/1.1 413", b"")
        assert _peak(server) - before < 150 * MEBIBYTE
        assert server.request("POST", EXPLAIN, FILES[1])[0] == 200
        assert server.request("GET", "/readyz")[0] == 200
