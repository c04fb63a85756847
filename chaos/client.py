"""An HTTP client that costs little and hides nothing: no retries, no redirects, no pool."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

TIMEOUT = 30.0
"""Seconds after which an answer counts as lost."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; ``seconds`` since the request was due."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


def request_bytes(
    address: str, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> bytes:
    """A whole request."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {urlsplit(address).netloc}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def multipart(image: bytes, fields: Mapping[str, str] | None = None) -> tuple[bytes, dict[str, str]]:
    """A form with one image: the body and its headers."""
    boundary = "chaos-9f2c61d0b7"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in (fields or {}).items()
    ]
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="image"\r\n\r\n'
    body = b"".join(parts) + head.encode() + image + f"\r\n--{boundary}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}


class Connection:
    """One connection, kept alive; opened when it is needed.

    Args:
        timeout: seconds for one answer.
    """

    def __init__(self, address: str, timeout: float = TIMEOUT) -> None:
        self._timeout = timeout
        target = urlsplit(address)
        assert target.hostname
        assert target.port
        self._host, self._port = target.hostname, target.port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes, due: float | None = None) -> Answer:
        """Send a request and read its answer.

        Args:
            due: when it should have been sent, by ``time.perf_counter``; now by default.

        Raises:
            OSError, asyncio.IncompleteReadError: the connection was refused or lost.
            TimeoutError: no answer in time.
        """
        started = time.perf_counter() if due is None else due
        try:
            async with asyncio.timeout(self._timeout):
                reader, writer = await self._open()
                writer.write(request)
                status, headers = await _head(reader)
                body = await _body(reader, headers)
        except BaseException:
            self.close()
            raise
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Answer(status, headers, body, time.perf_counter() - started)

    def close(self) -> None:
        """Drop it; the next request opens another."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port, limit=2**22)
        return self._streams


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = text.split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return int(first.split(" ", 2)[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return await reader.readexactly(int(headers.get("content-length", "0")))
    chunks = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        chunks.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readexactly(2)
    return b"".join(chunks)
