"""Callers who mean harm: bombs, floods, endless and slow bodies. Others must hardly notice."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import uvloop

from chaos import files
from chaos.client import Connection, request_bytes
from chaos.scenario import Context, Scenario
from chaos.servers import SMALL, Server, forget_peak, only, server, status

EXPLAIN, PREDICT, OIP = (
    f"/v1/models/{SMALL}:explain",
    f"/v1/models/{SMALL}:predict",
    f"/v2/models/{SMALL}/infer",
)
BODY_BYTES = 20 * files.MEBIBYTE
MAX_GROWTH = 400 * files.MEBIBYTE
"""Ten bodies of the largest size at once, what they are decoded to, and what the allocator keeps."""

MAX_PAUSE = 2.0
SLOW_SECONDS = 3
"""How long a header or a body may take to arrive."""

AT_ONCE = 4
Headers = Mapping[str, str]


@dataclass(frozen=True)
class Attack:
    """What is sent, so many times, and the statuses it may be answered with; 0 is a closed connection."""

    name: str
    send: Callable[[Server], Awaitable[int]]
    times: int
    allowed: tuple[int, ...]


def run(context: Context) -> None:
    """Each kind alone, with a caller beside it whose answers are timed."""
    repository = only(context.folder, SMALL)
    limits = {
        "header_timeout_seconds": SLOW_SECONDS,
        "body_timeout_seconds": SLOW_SECONDS,
        "max_connections": 400,
    }
    with server(context.folder, repository=repository, **limits) as running:
        image = files.honest()["png-RGB"]
        before = running.post(PREDICT, image)[1]
        resident = status(running.pid, "VmRSS")
        forget_peak(running.pid)
        statuses: dict[str, dict[int, int]] = {}
        pauses: list[float] = []
        for attack in attacks(context):
            found, pause = uvloop.run(_attack(running, attack))
            statuses[attack.name], grown = found, status(running.pid, "VmHWM") - resident
            pauses.append(pause)
            context.figures |= {
                "kinds": len(statuses),
                "requests": sum(sum(found.values()) for found in statuses.values()),
                "longest_pause_of_livez_s": round(max(pauses), 3),
                "most_memory_mib": grown >> 20,
            }
            said = f"{attack.name}: {found}, pause {pause:.2f} s, grown {grown >> 20} MiB"
            context.hold(set(found) <= set(attack.allowed), f"{said}; allowed {attack.allowed}")
            context.hold(pause < MAX_PAUSE, said)
            context.hold(grown < MAX_GROWTH, said)
        after = running.post(PREDICT, image)[1]
        context.hold(running.get("/readyz")[0] == 200, "not ready afterwards")
        context.hold(before["top_k"] == after["top_k"], "another answer afterwards")


async def _attack(running: Server, attack: Attack) -> tuple[dict[int, int], float]:
    """Statuses with their counts, and the longest that ``/livez`` took meanwhile."""
    found: dict[int, int] = {}
    left = attack.times
    done = asyncio.Event()

    async def attacker() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            code = await attack.send(running)
            found[code] = found.get(code, 0) + 1

    async def watch() -> float:
        connection, longest = Connection(running.address), 0.0
        request = request_bytes(running.address, "GET", "/livez")
        while not done.is_set():
            answer = await connection.ask(request)
            assert answer.status == 200, answer
            longest = max(longest, answer.seconds)
            await asyncio.sleep(0.01)
        connection.close()
        return longest

    watcher = asyncio.create_task(watch())
    await asyncio.gather(*(attacker() for _ in range(min(attack.times, AT_ONCE))))
    done.set()
    return found, await watcher


def attacks(context: Context) -> list[Attack]:
    """All of them."""
    times = context.pick(4, 20)
    images = [
        Attack(name, _posting(EXPLAIN, data), times, (200, 400, 413))
        for name, data in files.hostile().items()
    ]
    zeros = gzip.compress(bytes(200 * files.MEBIBYTE), 9)
    inflating = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    deep, wide = b"[" * 250_000 + b"]" * 250_000, b'{"instances": [' + b"{}," * 5_000_000 + b"{}]}"
    numbers = b'{"instances": [' + b"0," * 9_000_000 + b"0]}"
    as_json = {"Content-Type": "application/json"}
    return [
        *images,
        Attack("gzip of 200 MB", _posting(OIP, zeros, inflating), times, (413,)),
        Attack("gzip of 200 MB to our own API", _posting(PREDICT, zeros, inflating), times, (413, 415)),
        Attack("JSON 250,000 deep", _posting(PREDICT, deep, as_json), times, (400,)),
        Attack("JSON 250,000 deep by OIP", _posting(OIP, deep, as_json), times, (400,)),
        Attack("JSON of 5 million instances", _posting(PREDICT, wide, as_json), times, (400, 429)),
        Attack("JSON of 9 million numbers", _posting(PREDICT, numbers, as_json), times, (400, 429)),
        Attack("JSON of 9 million numbers by OIP", _posting(OIP, _numbers(), as_json), times, (400, 429)),
        Attack("a form of 19 MB without an end", _form(b"x" * 19 * files.MEBIBYTE), times, (400,)),
        Attack("a form of 100,000 parts", _form(_parts(100_000)), times, (400,)),
        Attack("a length over the limit", _declaring(BODY_BYTES + 1), times, (413,)),
        Attack("a length of 10^17", _declaring(10**17), times, (413,)),
        Attack("chunks without end", _chunks(65_536, 400 * files.MEBIBYTE), times, (413, 0)),
        Attack("chunks of one byte", _chunks(1, 50_000, end=True), times, (400, 408, 413, 415)),
        Attack("10,000 header fields", _raw(_fields(10_000)), times, (400, 431, 0)),
        Attack("a header field of 10 MB", _raw(b"x: " + b"y" * 10_000_000), times, (400, 431, 0)),
        Attack("a path of 1 MB", _raw(b"", path="/" + "a" * 1_000_000), times, (400, 404, 414, 431, 0)),
        Attack("noise", _raw_bytes(bytes(range(256)) * 4000), times, (400, 0)),
        Attack("16 requests in one piece", _pipeline(16), times, (200,)),
        Attack("a thousand requests in one piece", _raw_bytes(_predictions(1000)), times, (200, 400)),
        Attack("300 callers with slow headers", _slow(300, header=True), 1, (0,)),
        Attack("300 callers with slow bodies", _slow(300, header=False), 1, (0,)),
        Attack("300 callers who say nothing", _silent(300), 1, (0,)),
    ]  # fmt: skip


def _posting(path: str, body: bytes, headers: Headers = {}) -> Callable[[Server], Awaitable[int]]:  # noqa: B006
    async def send(running: Server) -> int:
        request = request_bytes(running.address, "POST", path, body, headers)
        connection = Connection(running.address)
        try:
            return (await connection.ask(request)).status
        except (OSError, asyncio.IncompleteReadError):
            return 0
        finally:
            connection.close()

    return send


def _form(content: bytes) -> Callable[[Server], Awaitable[int]]:
    return _posting(PREDICT, content, {"Content-Type": "multipart/form-data; boundary=x"})


def _parts(count: int) -> bytes:
    return b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * count + b"--x--\r\n"


def _numbers() -> bytes:
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 32, 32, 3], "data": "HERE"}
    text = json.dumps({"inputs": [tensor]}).encode()
    return text.replace(b'"HERE"', b"[" + b"0," * 9_000_000 + b"0]")


def _fields(count: int) -> bytes:
    return b"".join(b"x%d: y\r\n" % number for number in range(count))[:-2]


def _declaring(length: int) -> Callable[[Server], Awaitable[int]]:
    return _raw(b"Content-Length: %d" % length, method="POST", path=PREDICT)


def _raw(fields: bytes, *, method: str = "GET", path: str = "/livez") -> Callable[[Server], Awaitable[int]]:
    head = f"{method} {path} HTTP/1.1\r\nHost: konkyo\r\n".encode()
    return _raw_bytes(head + fields + (b"\r\n" if fields else b"") + b"\r\n")


def _raw_bytes(data: bytes) -> Callable[[Server], Awaitable[int]]:
    async def send(running: Server) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        try:
            writer.write(data)
            return await _status(reader)
        except OSError:
            return 0
        finally:
            writer.close()

    return send


async def _status(reader: asyncio.StreamReader) -> int:
    """Of the next answer; 0 if the connection was closed instead."""
    async with asyncio.timeout(60):
        line = await reader.readline()
    return int(line.split()[1]) if line.startswith(b"HTTP/") else 0


def _chunks(size: int, most: int, *, end: bool = False) -> Callable[[Server], Awaitable[int]]:
    """A chunked body until an answer comes, at most so many bytes of it, ended or not."""
    head = f"POST {EXPLAIN} HTTP/1.1\r\nHost: konkyo\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    piece = (b"%x\r\n" % size + bytes(size) + b"\r\n") * max(1, 4096 // size)

    async def send(running: Server) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        answer = asyncio.create_task(_status(reader))
        try:
            writer.write(head)
            for _ in range(most // (size * max(1, 4096 // size))):
                if answer.done():
                    break
                writer.write(piece)
                await writer.drain()
            if end:
                writer.write(b"0\r\n\r\n")
            return await answer
        except OSError:
            return 0
        finally:
            answer.cancel()
            writer.close()

    return send


def _predictions(count: int) -> bytes:
    return request_bytes("http://konkyo", "POST", PREDICT, files.honest()["png-RGB"]) * count


def _pipeline(count: int) -> Callable[[Server], Awaitable[int]]:
    async def send(running: Server) -> int:
        connection = Connection(running.address)
        codes = {(await connection.ask(_predictions(count))).status}
        codes |= {(await connection.ask(b"")).status for _ in range(count - 1)}
        connection.close()
        return codes.pop() if len(codes) == 1 else -1

    return send


def _slow(callers: int, *, header: bool) -> Callable[[Server], Awaitable[int]]:
    """A byte now and then, for longer than is allowed."""
    whole = request_bytes("http://konkyo", "POST", PREDICT, bytes(1000), {"x": "y" * 1000})
    sent = whole[: 20 if header else -1000]

    async def one(running: Server) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(sent)
        closed = asyncio.create_task(reader.read())  # until the end, which the server makes
        try:
            async with asyncio.timeout(10 * SLOW_SECONDS):
                while not closed.done():
                    writer.write(b"x")
                    await asyncio.wait([closed], timeout=0.5)
        finally:
            closed.cancel()
            writer.close()

    async def send(running: Server) -> int:
        await asyncio.gather(*(one(running) for _ in range(callers)))
        return 0

    return send


def _silent(callers: int) -> Callable[[Server], Awaitable[int]]:
    async def one(running: Server) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        async with asyncio.timeout(10 * SLOW_SECONDS):
            await reader.read()
        writer.close()

    async def send(running: Server) -> int:
        await asyncio.gather(*(one(running) for _ in range(callers)))
        return 0

    return send


SCENARIO = Scenario(
    "bombs, floods, endless and slow requests",
    f"each refused or answered as it should, /livez within {MAX_PAUSE:g} s all the time, "
    f"resident memory never grows by {MAX_GROWTH >> 20} MiB",
    run,
)
