"""Bodies in, within their limits, for every protocol: read, inflated, and as JSON of bounded depth."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import numpy as np
from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request

from konkyo.errors import (
    BodyTimeout,
    BodyTooLarge,
    InvalidRequest,
    RequestCancelled,
    UnsupportedMediaType,
)  # fmt: skip
from konkyo.service.budget import MemoryBudget
from konkyo.service.settings import Settings

T = TypeVar("T")

JSON_INLINE_BYTES = 64 * 1024
"""Larger JSON texts are parsed in a thread, so that one caller does not hold up the others."""

JSON_DEPTH = 100
"""Arrays and objects inside each other."""

JSON_VALUES = 2**20 + 2**16
"""Values of a JSON text: those of the largest edited map, and some. The parser keeps the event loop waiting
from whatever thread, some 0.1 s for so many numbers."""

LIST_VALUES = 4
"""Values that a list or an object counts for; it takes far longer to make."""

INFLATED_INLINE, INFLATED_STEP = 64 * 1024, 1024 * 1024
"""Bytes inflated at once: first where they are, then in a thread. No more than a step is ever made that the
limits have not seen."""

_ZLIB, _GZIP, _RAW = 15, 31, -15
"""Window bits of ``zlib.decompressobj``, which say what is around the compressed data."""

_VALUE_BYTES = {b",": 40, b"[": 72, b"{": 72, b'"': 28}
"""Memory for the values of a JSON text, by what they show themselves with: a number as Python has it, in a
list and in arrays, a list or an object, half a string."""

_SCANNED = 1024 * 1024
_UNMARKED = bytes(set(range(256)) - set(b'[]{}"'))


@asynccontextmanager
async def read_body(
    request: Request, settings: Settings, budget: MemoryBudget, *, limit: int | None = None
) -> AsyncIterator[bytes]:
    """The whole body, inflated, and counted against the budget for as long as the block runs.

    The limit holds for what comes as for what it is inflated to.

    Args:
        request: whose body.
        settings: of the service.
        budget: of all requests.
        limit: bytes, where fewer than the settings allow are enough.

    Raises:
        BodyTooLarge, BodyTimeout, Overloaded, UnsupportedMediaType, RequestCancelled, InvalidRequest
    """
    limit = min(settings.max_body_bytes, limit or settings.max_body_bytes)
    coding = _coding(request)
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or len(declared) > 18:
        raise InvalidRequest("Content-Length is not a number of bytes")
    if int(declared) > limit:
        raise BodyTooLarge(f"the body has {declared} bytes; the limit is {limit}", limit_bytes=limit)
    held = 0
    chunks: list[bytes] = []
    try:
        try:
            came = _came(request, limit)
            pieces = _inflated(came, gzip=coding == "gzip") if coding else came
            async with asyncio.timeout(settings.body_timeout_seconds), aclosing(came), aclosing(pieces):
                async for piece in pieces:
                    if held + len(piece) > limit:
                        raise _over(limit)
                    budget.take(len(piece))
                    held += len(piece)
                    chunks.append(piece)
        except TimeoutError:
            raise BodyTimeout(f"the body did not arrive within {settings.body_timeout_seconds:g} s") from None
        except ClientDisconnect:
            raise RequestCancelled("the caller left while sending") from None
        yield chunks[0] if len(chunks) == 1 else b"".join(chunks)
    finally:
        budget.release(held)


def read_json(text: bytes) -> Any:
    """JSON without NaN and without half characters, its depth and size bounded before anything is built.

    Raises:
        InvalidRequest: it is malformed, nested more than ``JSON_DEPTH`` deep, or of over ``JSON_VALUES``.
    """
    opened = text.count(b"[") + text.count(b"{")
    if text.count(b",") + LIST_VALUES * opened > JSON_VALUES:
        raise InvalidRequest(f"over {JSON_VALUES} values in JSON; send images as files or as binary tensors")
    if opened > JSON_DEPTH and _too_deep(text):
        raise InvalidRequest(f"malformed JSON: nested more than {JSON_DEPTH} deep")
    try:
        return from_json(text, allow_inf_nan=False, cache_strings="none")
    except ValueError as error:
        raise InvalidRequest(f"malformed JSON: {error}") from None


async def parse_json(text: bytes, parse: Callable[[], T], budget: MemoryBudget) -> T:
    """Do what parses a JSON text: in a thread where it is large, what its values take held meanwhile.

    Raises:
        Overloaded: too much is held already.
    """
    if len(text) <= JSON_INLINE_BYTES:
        return parse()
    with budget.hold(sum(size * text.count(mark) for mark, size in _VALUE_BYTES.items())):
        return await asyncio.to_thread(parse)


def _coding(request: Request) -> str | None:
    given = ",".join(request.headers.getlist("content-encoding")).strip().lower()
    coding = {"": None, "identity": None, "gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}
    if given not in coding:
        raise UnsupportedMediaType("cannot read this Content-Encoding; send gzip, deflate or identity")
    return coding[given]


def _over(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body has over {limit} bytes", limit_bytes=limit)


async def _came(request: Request, limit: int) -> AsyncGenerator[bytes]:
    """What comes, as far as the limit goes: endless data may be inflated to nothing."""
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limit:
            raise _over(limit)
        yield chunk


async def _inflated(came: AsyncIterator[bytes], *, gzip: bool) -> AsyncGenerator[bytes]:
    """Inflate in steps (RFC 1950 to 1952; ``deflate`` comes with and without the header of zlib)."""
    inflater = None
    async for chunk in came:
        if inflater is None and chunk:
            inflater = zlib.decompressobj(_GZIP if gzip else _ZLIB if chunk[0] & 0x0F == 8 else _RAW)
        rest, more, step = chunk, bool(chunk), INFLATED_INLINE
        while inflater and more:
            inflate = partial(inflater.decompress, rest, step)
            try:
                piece = inflate() if step == INFLATED_INLINE else await asyncio.to_thread(inflate)
            except zlib.error as error:
                raise InvalidRequest(f"the compressed body is damaged: {error}") from None
            if inflater.unused_data:
                raise InvalidRequest("something follows the end of the compressed body")
            yield piece
            rest = inflater.unconsumed_tail
            more, step = bool(rest) or len(piece) == step, INFLATED_STEP
    if inflater is None or not inflater.eof:
        raise InvalidRequest("the compressed body is cut off")


def _too_deep(text: bytes) -> bool:
    """Whether brackets outside of strings are nested too deep."""
    marks = text.replace(rb"\\", b"").replace(rb"\"", b"").translate(None, _UNMARKED)
    depth, inside = 0, False
    for start in range(0, len(marks), _SCANNED):
        part = np.frombuffer(marks, np.uint8, min(_SCANNED, len(marks) - start), start)
        quotes = part == ord('"')
        strings = np.logical_xor.accumulate(quotes) ^ inside
        steps = (part & 2).astype(np.int32) - 1  # the bit in which [ and { differ from ] and }
        depths = depth + np.cumsum(np.where(strings | quotes, 0, steps))
        if depths.max() > JSON_DEPTH:
            return True
        depth, inside = int(depths[-1]), bool(strings[-1])
    return False
