"""Load that does not wait: requests are sent when they are due, whatever became of those before them."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import uvloop

from chaos.client import Answer, Connection


@dataclass
class Load:
    """What came of a stretch of load.

    Attributes:
        seconds: during which requests were sent.
        sent: requests.
        answers: in the order in which they came, those that came after the last request included.
        good: answers with status 200 within the time.
        errors: connections that were refused or lost, and answers that never came.
        latest: seconds by which the generator itself was late at the worst.
    """

    seconds: float = 0.0
    sent: int = 0
    answers: list[Answer] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    latest: float = 0.0
    good: int = 0

    def of(self, *statuses: int) -> list[Answer]:
        """Those with one of these statuses."""
        return [answer for answer in self.answers if answer.status in statuses]

    @property
    def goodput(self) -> float:
        """Good answers a second."""
        return self.good / self.seconds


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that so many are not above; 0 of nothing."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def closed_loop(address: str, requests: Sequence[bytes], connections: int, seconds: float) -> Load:
    """As fast as answers come: each connection sends the next request when it has its answer."""
    return uvloop.run(_closed_loop(address, itertools.cycle(requests), connections, seconds))


def open_loop(address: str, requests: Sequence[bytes], rate: float, seconds: float, seed: int) -> Load:
    """Arrivals at random (Poisson), ``rate`` a second, each over a connection that is free or a new one."""
    return uvloop.run(_open_loop(address, itertools.cycle(requests), rate, seconds, random.Random(seed)))


async def _closed_loop(address: str, source: Iterator[bytes], connections: int, seconds: float) -> Load:
    load, started = Load(), time.perf_counter()

    async def caller() -> None:
        connection = Connection(address)
        while time.perf_counter() < started + seconds:
            await _ask(connection, next(source), time.perf_counter(), load, started + seconds)
        connection.close()

    await asyncio.gather(*(caller() for _ in range(connections)))
    load.seconds = seconds
    return load


async def _open_loop(
    address: str, source: Iterator[bytes], rate: float, seconds: float, dice: random.Random
) -> Load:
    load, free = Load(), list[Connection]()
    tasks: set[asyncio.Task[None]] = set()

    async def one(request: bytes, due: float) -> None:
        connection = free.pop() if free else Connection(address)
        await _ask(connection, request, due, load, started + seconds)
        free.append(connection)

    due = started = time.perf_counter()
    while (due := due + dice.expovariate(rate)) < started + seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        load.latest = max(load.latest, time.perf_counter() - due)
        task = asyncio.create_task(one(next(source), due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    load.seconds = seconds
    await asyncio.gather(*tasks)
    for connection in free:
        connection.close()
    return load


async def _ask(connection: Connection, request: bytes, due: float, load: Load, end: float) -> None:
    load.sent += 1
    try:
        answer = await connection.ask(request, due)
        load.answers.append(answer)
        load.good += answer.status == 200 and time.perf_counter() <= end
    except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
        load.errors.append(repr(error))
