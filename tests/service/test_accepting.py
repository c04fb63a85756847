"""Who accepts a connection."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ctypes import Array, c_int

import pytest
from faults import until

from konkyo.service.accepting import NOBODY, Acceptor


class Counting(asyncio.Protocol):
    """A connection of the process at a place."""

    def __init__(self, counts: Array[c_int], place: int, got: list[int]) -> None:
        self._counts, self._place, self._got = counts, place, got

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._counts[self._place] += 1
        self._got.append(self._place)
        self.transport = transport


@asynccontextmanager
async def accepting(counts: list[int], places: list[int]) -> AsyncIterator[tuple[socket.socket, list[int]]]:
    """Acceptors at some of the places; yields the listener, and where each connection came."""
    shared = (c_int * len(counts))(*counts)
    got: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        own = {place: listener.dup() for place in places}
        acceptors = [
            Acceptor(
                lambda place=place: Counting(shared, place, got),  # type: ignore[misc]
                own[place], shared, place, tls=None, handshake_seconds=None,
            )
            for place in places
        ]  # fmt: skip
        try:
            yield listener, got
        finally:
            for acceptor in acceptors:
                acceptor.close()
            assert [shared[place] for place in places] == [NOBODY] * len(places)
            for each in own.values():
                each.close()


async def connect(listener: socket.socket, got: list[int]) -> socket.socket:
    """A connection that has been accepted."""
    number = len(got)
    connection = socket.create_connection(listener.getsockname())
    await until(lambda: len(got) > number)
    return connection


@pytest.mark.parametrize(
    ("counts", "expected"), [([0, 3], [0, 0, 0]), ([5, 2], [1, 1, 1]), ([0, NOBODY], [0, 0, 0])]
)
async def test_the_one_with_fewest_connections_does(counts: list[int], expected: list[int]) -> None:
    async with accepting(counts, [0, 1]) as (listener, got):
        connections = [await connect(listener, got) for _ in expected]
        assert got == expected
        for connection in connections:
            connection.close()


async def test_another_does_if_that_one_is_busy() -> None:
    async with accepting([7, 0], [0]) as (listener, got):  # nobody accepts at place 1
        connections = [await connect(listener, got) for _ in range(3)]
        assert got == [0, 0, 0]
        for connection in connections:
            connection.close()


async def test_many_at_once_are_shared_out() -> None:
    async with accepting([0, 0], [0, 1]) as (listener, got):
        connections = [socket.create_connection(listener.getsockname()) for _ in range(20)]
        await until(lambda: len(got) == 20)
        assert sorted(got) == [0] * 10 + [1] * 10
        for connection in connections:
            connection.close()
