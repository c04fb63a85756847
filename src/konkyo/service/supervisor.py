"""Several worker processes that serve at one address, and the process that looks after them.

The supervisor opens the listening socket once, and every worker accepts from it. So a connection belongs to
nobody until a worker takes it: one that dies, hangs or is still loading its models leaves those that wait to
the others. (With a socket for each, by ``SO_REUSEPORT``, those that wait at a worker's end would be lost, a
worker that hangs would get its share, and a second server on the port would not be noticed.)

    supervisor ── drain, stop, others (not) ready ──►  worker 0 .. n-1
               ◄── ready, not ready every second; ending; why it cannot start ──

A worker that ends is replaced: at once, and after a while if that happens again and again. The new one
accepts connections when its models are loaded, while others do. One that cannot start ends the server.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_int
from multiprocessing.connection import wait
from pathlib import Path

from konkyo.service.accepting import NOBODY
from konkyo.service.access import warn_if_open
from konkyo.service.engines import EngineFactory
from konkyo.service.exporting import exporting
from konkyo.service.metrics import Metrics
from konkyo.service.place import SIGNALS, Place
from konkyo.service.routes.ops import build
from konkyo.service.settings import Settings
from konkyo.service.sharing import Sharing
from konkyo.service.worker import DRAIN, OTHERS_NOT_READY, OTHERS_READY, STOP

logger = logging.getLogger(__name__)

MAX_FAILURES = 5
"""Workers in a row, at one place, that died before they were ready."""


class Supervisor:
    """The processes of one server.

    Args:
        make_engine: a function that can be imported.
        listener: where connections come from.
        address: of it, for people.
    """

    def __init__(
        self, settings: Settings, make_engine: EngineFactory, listener: socket.socket, address: str
    ) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = settings.threads or max(1, cores // settings.processes)
        self._settings = settings.model_copy(update={"threads": threads})
        self._make_engine = make_engine
        self._listener = listener
        self._address = address
        self._places: list[Place] = []
        self._announced = False
        self._stopping = False
        self._reason: str | None = None
        self._code = 0
        self._signals: list[int] = []

    def run(self) -> int:
        """Until a signal; returns the exit code: 0 if every worker finished what it had accepted.

        Raises:
            ChildProcessError: the workers cannot start; the message says why.
            OSError: ``metrics_port`` cannot be listened on.
        """
        warn_if_open(self._settings)
        with tempfile.TemporaryDirectory(prefix="konkyo-metrics-") as folder:
            shared = Sharing(Path(folder), os.getpid())
            number = self._settings.processes
            counts = multiprocessing.get_context("spawn").RawArray(c_int, [NOBODY] * number)
            self._places = [Place(self._settings, shared, counts, place) for place in range(number)]
            metrics = Metrics(shared)
            metrics.build.info(build())
            with exporting(self._settings, metrics.exposition), self._noting_signals() as noted:
                try:
                    self._look_after(noted)
                finally:
                    for place in self._places:
                        place.kill()
        if self._reason is not None:
            raise ChildProcessError(self._reason)
        return self._code

    def _look_after(self, noted: socket.socket) -> None:
        while True:
            for place in self._places:
                self._attend(place)
            working = [place for place in self._places if place.process is not None]
            if not working and all(place.start_at is None for place in self._places):
                return
            hearing = {place.connection: place for place in working if place.connection is not None}
            ends = [place.process.sentinel for place in working if place.process is not None]
            due = min((date for place in self._places for date in place.dates()), default=None)
            patience = None if due is None else max(0.0, due - time.monotonic())
            for source in wait([noted, *hearing, *ends], patience):
                if source is noted:
                    noted.recv(100)
                elif (place_heard := hearing.get(source)) is not None:  # type: ignore[call-overload]
                    place_heard.hear()
                    self._tell_who_is_ready()
            while self._signals:
                self._obey(self._signals.pop(0))

    def _attend(self, place: Place) -> None:
        due = any(date <= time.monotonic() for date in place.dates())
        if place.process is None:
            if due:
                place.start(self._make_engine, self._listener, replaces=self._announced)
        elif place.process.exitcode is not None:
            self._ended(place)
        elif due:
            logger.error(
                "worker %d (process %d) %s; killing it", place.number, place.process.pid, place.complaint
            )
            place.kill()
            self._ended(place)

    def _ended(self, place: Place) -> None:
        """Let another worker come; unless that is to end, or makes no sense."""
        assert place.process is not None
        pid, had_accepted = place.process.pid, place.accepting
        code = place.clear()
        if self._stopping:
            self._code = self._code or int(code != 0)
            return
        said = place.reason or (f"code {code}" if code >= 0 else signal.Signals(-code).name)
        if place.failures >= MAX_FAILURES or not (had_accepted or self._announced):
            self._reason = place.reason or f"worker processes cannot start; the last ended with {said}"
            self._end_all(STOP, self._settings.shutdown_seconds)
            return
        pause = place.replace()
        logger.error(
            "worker %d (process %d) ended with %s; starting another in %d s", place.number, pid, said, pause
        )
        self._tell_who_is_ready()

    def _tell_who_is_ready(self) -> None:
        """Whether all who accept connections are; and the first time that all accept, tell everybody.

        Until then nobody is told that the others are ready: one that begins to accept before its models are
        loaded would turn away what another's readiness has called.
        """
        accepting = [place for place in self._places if place.accepting]
        if not self._announced and len(accepting) == len(self._places):
            self._announced = True
            print(f"Konkyo on {self._address}", flush=True)
        for place in self._places:
            ready = self._announced and all(other.ready for other in accepting if other is not place)
            order = OTHERS_READY if ready else OTHERS_NOT_READY
            if order != place.told:
                place.tell(order)

    def _obey(self, number: int) -> None:
        """As a single process does: drain at the first SIGTERM, stop at any other signal."""
        settings = self._settings
        if number == signal.SIGTERM and not self._stopping:
            self._end_all(DRAIN, settings.drain_seconds + settings.shutdown_seconds)
        else:
            self._end_all(STOP, settings.shutdown_seconds)

    def _end_all(self, order: bytes, seconds: float) -> None:
        """Who ends from now on is not replaced."""
        self._stopping = True
        self._listener.close()  # the workers have it; here it would stay open when they have closed it
        for place in self._places:
            place.start_at = None
            place.must_end(seconds)
            place.tell(order)

    @contextmanager
    def _noting_signals(self) -> Iterator[socket.socket]:
        """Note signals while the block runs; the socket can be read when one has come."""
        reader, writer = socket.socketpair()
        for end in (reader, writer):
            end.setblocking(False)
        wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        handlers = {
            number: signal.signal(number, lambda got, _: self._signals.append(got)) for number in SIGNALS
        }
        try:
            yield reader
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(wakeup)
            reader.close()
            writer.close()
