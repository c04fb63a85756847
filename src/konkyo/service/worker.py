"""One of several processes that serve at the same address, as its supervisor starts it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import ssl
import sys
from contextlib import suppress
from ctypes import Array, c_int
from multiprocessing.connection import Connection
from types import FrameType

from fastapi import FastAPI

from konkyo.errors import KonkyoError
from konkyo.service import logs, sharing
from konkyo.service.accepting import NOBODY, Acceptor
from konkyo.service.app import create_app
from konkyo.service.engines import EngineFactory
from konkyo.service.metrics import Metrics
from konkyo.service.process import Server, end_of
from konkyo.service.routes.ops import own_readiness
from konkyo.service.settings import Settings
from konkyo.service.sharing import Sharing

logger = logging.getLogger(__name__)

DRAIN, STOP, OTHERS_READY, OTHERS_NOT_READY = b"drain", b"stop", b"others-ready", b"others-not-ready"
"""What a supervisor tells its workers."""

READY, NOT_READY, ENDING, REASON = b"ready", b"not-ready", b"ending", b"reason:"
"""What they tell it: the first two every second from when they accept connections; why one cannot start."""


class Worker(Server):
    """A server process that obeys a supervisor, tells it that it lives, and ends when it is gone.

    Signals come to the supervisor. Those that reach a worker as well, from a terminal or a service manager
    that sends them to every process, must not count as a second one.
    """

    def __init__(self, app: FastAPI, supervisor: Connection, counts: Array[c_int], place: int) -> None:
        super().__init__(app, self._tell_state)
        self._supervisor = supervisor
        self._counts = counts
        self._place = place
        self._ready = False
        self._looking: asyncio.Task[None] | None = None
        self.state.others_ready = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen to the supervisor from the beginning: loading may take long."""
        asyncio.get_running_loop().add_reader(self._supervisor.fileno(), self._obey)
        await super().startup(sockets)

    async def accept(
        self, listener: socket.socket, tls: ssl.SSLContext | None, handshake_seconds: float | None
    ) -> None:
        """Share the connections out among the workers."""
        self._note_count()
        self.connections.on_change = self._note_count
        acceptor = Acceptor(
            self.protocol, listener, self._counts, self._place, tls=tls, handshake_seconds=handshake_seconds
        )
        self.servers.append(acceptor)  # type: ignore[arg-type] # as far as uvicorn uses one

    def _note_count(self) -> None:
        self._counts[self._place] = len(self.connections)

    async def on_tick(self, counter: int) -> bool:
        """Look often until it is ready for the first time, as somebody waits for that."""
        if not self._ready and counter % 10:
            self._look()
        return await super().on_tick(counter)

    def each_second(self) -> None:
        """Say that it lives; or end, where only a new process helps."""
        super().each_second()
        self.state.metrics.sample()
        if why := next((model.dead for model in self.state.repository.models() if model.dead), None):
            logger.error("%s; leaving the place to a new process", why)
            self.stop()
            return
        self._look()
        self._tell_state()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Say so: no sign of life comes from now on, and no connection is taken."""
        self.connections.on_change = lambda: None
        self._tell(ENDING)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM drains, however often it comes; SIGINT is for the supervisor."""
        if sig == signal.SIGTERM and self._loop is not None:
            self._loop.call_soon_threadsafe(self.drain)

    def _obey(self) -> None:
        try:
            order = self._supervisor.recv_bytes()
        except (EOFError, OSError):
            asyncio.get_running_loop().remove_reader(self._supervisor.fileno())
            logger.error("the supervisor is gone")
            order = DRAIN
        if order in (DRAIN, STOP) and not self.started:  # it loads, and has accepted nothing
            logging.shutdown()
            os._exit(0)  # an engine that is being built cannot be told to give up
        if order == DRAIN:
            self.drain()
        elif order == STOP:
            self.stop()
        else:
            self.state.others_ready = order == OTHERS_READY

    def _look(self) -> None:
        """At whether it is ready, in the background: a canary may be part of it."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look_closely())

    async def _look_closely(self) -> None:
        ready = not await own_readiness(self.state)
        if ready != self._ready:
            self._ready = ready
            self._tell_state()

    def _tell_state(self) -> None:
        self._tell(READY if self._ready else NOT_READY)

    def _tell(self, message: bytes) -> None:
        with suppress(OSError):  # it is gone; the reader finds that out
            self._supervisor.send_bytes(message)


def work(
    settings: Settings,
    make_engine: EngineFactory,
    listener: socket.socket,
    supervisor: Connection,
    shared: Sharing,
    counts: Array[c_int],
    *,
    place: int,
    replaces: bool,
) -> None:
    """The whole life of a worker process.

    Args:
        counts: connections of each worker, in memory that they share.
        place: among the workers.
        replaces: another one that died; accept no connection before the models are loaded, if others do.
    """

    def load_first() -> bool:
        return replaces and min(counts) != NOBODY

    for number in (signal.SIGINT, signal.SIGTERM):  # blocked by the supervisor until there is a handler
        signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    logs.configure(settings)
    sharing.join(shared.folder, place)
    try:
        app = create_app(settings, make_engine=make_engine, metrics=Metrics(shared), load_first=load_first)
        worker = Worker(app, supervisor, counts, place)
    except (KonkyoError, ValueError, OSError) as error:
        supervisor.send_bytes(REASON + str(error).encode())
        sys.exit(1)
    worker.run(sockets=[listener])
    sys.exit(end_of(worker))
