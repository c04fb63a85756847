"""Where one worker process after another works, as its supervisor sees it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from ctypes import Array, c_int
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from konkyo.service import sharing
from konkyo.service.accepting import NOBODY
from konkyo.service.engines import EngineFactory
from konkyo.service.settings import Settings
from konkyo.service.sharing import Sharing
from konkyo.service.worker import ENDING, READY, REASON, work

GRACE_SECONDS = 5
"""After ``shutdown_seconds``: for a worker to release its engines. Then it is killed."""

STABLE_SECONDS = 60
"""A worker that lived so long did not die of its start."""

LONGEST_PAUSE = 30
"""Seconds before a worker that keeps dying is replaced: none the first time, then 1, 2, 4, and so on."""

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Place:
    """One of the places of a supervisor; at most one worker is there at a time.

    Args:
        counts: connections of the worker at each place, in memory that they share.
        number: from 0; the worker's metrics belong to it.

    Attributes:
        process: the worker; None: there is none now.
        connection: to it, while there is one and it has not closed it.
        told: what it was told last.
        accepting: whether it accepts connections.
        ready: whether it does, and can answer.
        reason: why it cannot start, as it says.
        start_at: when to start the next one; None: there is one, or there will be none.
        failures: workers in a row that died before they were ready.
    """

    def __init__(self, settings: Settings, shared: Sharing, counts: Array[c_int], number: int) -> None:
        self.number = number
        self.process: SpawnProcess | None = None
        self.connection: Connection | None = None
        self.told: bytes | None = None
        self.accepting = self.ready = False
        self.reason: str | None = None
        self.start_at: float | None = 0.0
        self.failures = 0
        self._settings = settings
        self._shared = shared
        self._counts = counts
        self._has_been_ready = False
        self._started = 0.0
        self._seen = 0.0
        self._ends_by: float | None = None
        self._deaths = 0

    def start(self, make_engine: EngineFactory, listener: socket.socket, replaces: bool) -> None:
        """Put a worker there."""
        self.connection, theirs = multiprocessing.Pipe()
        for end in (self.connection, theirs):
            os.set_blocking(end.fileno(), False)  # nobody waits for one that hangs to take its messages
        self.told = None
        self.process = multiprocessing.get_context("spawn").Process(
            target=work,
            args=(self._settings, make_engine, listener, theirs, self._shared, self._counts),
            kwargs={"place": self.number, "replaces": replaces},
            daemon=True,
        )
        resource_tracker.ensure_running()  # if it were started below, it would unblock the signals
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self.accepting = self.ready = self._has_been_ready = False
        self.reason = None
        self._started = self._seen = time.monotonic()
        self._ends_by = self.start_at = None

    def dates(self) -> Iterator[float]:
        """When something is due, if nothing happens: a start, or a worker that is silent or still there."""
        if self.process is None:
            if self.start_at is not None:
                yield self.start_at
        elif self._ends_by is not None:
            yield self._ends_by
        elif self.accepting:
            yield self._seen + self._settings.worker_timeout_seconds

    @property
    def complaint(self) -> str:
        """What is wrong with a worker of which something is due."""
        return "gives no sign of life" if self._ends_by is None else "did not end in time"

    def hear(self) -> None:
        """Take a message of the worker, or that there will be no more."""
        assert self.connection is not None
        try:
            message = self.connection.recv_bytes()
        except (EOFError, OSError):
            self.connection.close()
            self.connection = None
            return
        self._seen = time.monotonic()
        if message.startswith(REASON):
            self.reason = message.removeprefix(REASON).decode()
        elif message == ENDING:
            self.accepting = self.ready = False
            if self._ends_by is None:
                self.must_end(self._settings.shutdown_seconds)
        else:
            self.accepting, self.ready = True, message == READY
            self._has_been_ready |= self.ready

    def tell(self, order: bytes) -> None:
        """Send the worker a message; one that takes none, as it hangs, misses it."""
        if self.connection is not None:
            with suppress(OSError):  # BlockingIOError; or it has ended, and its sentinel tells
                self.connection.send_bytes(order)
                self.told = order

    def must_end(self, seconds: float) -> None:
        """The worker has been told to end, and may take so long and ``GRACE_SECONDS`` for it."""
        self._ends_by = time.monotonic() + seconds + GRACE_SECONDS

    def kill(self) -> None:
        """End the worker, whatever it does."""
        if self.process is not None:
            self.process.kill()
            self.process.join()

    def clear(self) -> int:
        """Its worker has ended: leave the place empty; returns the exit code."""
        assert self.process is not None
        while self.connection is not None and self.connection.poll():
            self.hear()  # its last words
        if self.connection is not None:
            self.connection.close()
        code = self.process.exitcode
        assert code is not None
        self.process.close()
        self.process = self.connection = None
        self.accepting = self.ready = False
        self.failures = 0 if self._has_been_ready else self.failures + 1
        self._counts[self.number] = NOBODY
        sharing.left(self._shared.folder, self.number)
        return code

    def replace(self) -> int:
        """Let another worker come; returns the seconds until then."""
        now = time.monotonic()
        self._deaths = 1 if now - self._started >= STABLE_SECONDS else self._deaths + 1
        pause = 0 if self._deaths == 1 else min(LONGEST_PAUSE, 1 << (self._deaths - 2))
        self.start_at = now + pause
        return pause
