"""Connections shared out among processes that accept from one socket: to the one that has fewest.

Left to the system, whoever wakes up first takes all that wait, and over connections that stay open one
process may have all the work. So each tells the others how many it has; one that has more than another
leaves a connection to it for a moment, and takes it if it is still there then.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable
from ctypes import Array, c_int

logger = logging.getLogger(__name__)

YIELD_SECONDS = 0.001
"""How long a connection is left to another process."""

EXHAUSTED_SECONDS = 1.0
"""How long to accept nothing when the system has no file or memory for a connection."""

NOBODY = 2**31 - 1
"""The number of connections of a process that accepts none."""

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Acceptor:
    """Accepts for one process; stands in for an ``asyncio.Server``.

    Args:
        factory: makes the protocol of a connection.
        counts: connections of each process; the one at ``place`` is ours.
    """

    def __init__(
        self,
        factory: Callable[[], asyncio.Protocol],
        listener: socket.socket,
        counts: Array[c_int],
        place: int,
        *,
        tls: ssl.SSLContext | None,
        handshake_seconds: float | None,
    ) -> None:
        self._factory = factory
        self._listener = listener
        self._counts = counts
        self._place = place
        self._tls = tls
        self._handshake_seconds = handshake_seconds
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._welcomes: set[asyncio.Task[None]] = set()
        listener.setblocking(False)
        self._loop.add_reader(listener.fileno(), self._look)

    def close(self) -> None:
        """Accept no more."""
        self._counts[self._place] = NOBODY
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._listener.fileno())

    async def wait_closed(self) -> None:
        """Nothing is left to wait for: the connections are the server's."""

    def _look(self) -> None:
        if min(self._counts) < self._counts[self._place]:
            self._pause(YIELD_SECONDS, self._take)
        else:
            self._accept()

    def _take(self) -> None:
        self._resume()
        self._accept()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            logger.error("no connection can be accepted now: %s", error)
            self._pause(EXHAUSTED_SECONDS, self._resume)
            return
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = self._loop.create_task(self._welcome(connection))
        self._welcomes.add(task)
        task.add_done_callback(self._welcomes.discard)

    async def _welcome(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._factory, connection, ssl=self._tls, ssl_handshake_timeout=self._handshake_seconds
            )
        except OSError as error:  # the handshake failed, or the caller has gone
            logger.debug("a connection was not made: %s", error)
            connection.close()

    def _pause(self, seconds: float, then: Callable[[], None]) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._timer = self._loop.call_later(seconds, then)

    def _resume(self) -> None:
        self._timer = None
        self._loop.add_reader(self._listener.fileno(), self._look)
