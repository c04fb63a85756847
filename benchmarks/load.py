"""A closed-loop HTTP client that costs little: fixed requests, as many connections as wished."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import uvloop


@dataclass
class Result:
    """What came back: seconds of each answer in order, and how many were not 200."""

    seconds: float
    latencies: list[float] = field(default_factory=list)
    failures: int = 0

    @property
    def per_second(self) -> float:
        """Answers with status 200 a second."""
        return (len(self.latencies) - self.failures) / self.seconds


def request_bytes(address: str, path: str, body: bytes, content_type: str = "image/jpeg") -> bytes:
    """A whole POST request."""
    head = f"POST {path} HTTP/1.1\r\nHost: {urlsplit(address).netloc}\r\nContent-Type: {content_type}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def drive(address: str, requests: Sequence[bytes], *, connections: int, seconds: float) -> Result:
    """Send the requests in turn over keep-alive connections for a while; each waits for its answer."""
    return uvloop.run(_drive(address, requests, connections, seconds))


async def _drive(address: str, requests: Sequence[bytes], connections: int, seconds: float) -> Result:
    target = urlsplit(address)
    assert target.hostname
    assert target.port
    result = Result(seconds)
    source = itertools.cycle(requests)
    end = time.perf_counter() + seconds
    tasks = []
    for _ in range(connections):
        reader, writer = await asyncio.open_connection(target.hostname, target.port, limit=2**22)
        tasks.append(_connection(reader, writer, source, end, result))
    started = time.perf_counter()
    await asyncio.gather(*tasks)
    result.seconds = time.perf_counter() - started
    return result


async def _connection(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    source: Iterator[bytes],
    end: float,
    result: Result,
) -> None:
    try:
        while (now := time.perf_counter()) < end:
            writer.write(next(source))
            head = await reader.readuntil(b"\r\n\r\n")
            start = head.lower().index(b"content-length:") + len(b"content-length:")
            await reader.readexactly(int(head[start : head.index(b"\r\n", start)]))
            result.latencies.append(time.perf_counter() - now)
            result.failures += not head.startswith(b"HTTP/1.1 200")
    finally:
        writer.close()
