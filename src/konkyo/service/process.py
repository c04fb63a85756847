"""A process that serves: uvicorn, with bounds on connections, TLS and an orderly end.

On SIGTERM readiness says 503 at once while everything else goes on for ``drain_seconds``, so that
a load balancer can look away before a connection is refused; answers say that their connection closes.
Then the port closes, what was accepted is finished, and the process exits with 0. A second signal, or
SIGINT, skips the wait. What is not finished after ``shutdown_seconds`` is cut off.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE

from konkyo.service.connections import Connections
from konkyo.service.protocol import Protocol
from konkyo.service.state import State
from konkyo.service.tls import Certificates

logger = logging.getLogger(__name__)

BACKLOG = 2048
"""Connections that the system keeps until they are accepted."""

LAST_WORDS_SECONDS = 1
"""How long a stream that is cut off may take to say so."""


class Server(uvicorn.Server):
    """uvicorn with bounds, a drain period and exit code 0.

    Args:
        app: of ``create_app``.
        on_start: called once a signal finds its handler and connections are accepted.
    """

    def __init__(self, app: FastAPI, on_start: Callable[[], None]) -> None:
        self.state: State = app.state.konkyo
        self.settings = self.state.settings
        self._on_start = on_start
        self.connections = Connections(self.state)
        self._certificates = Certificates(self.settings) if self.settings.tls_certificate else None
        self._loop: asyncio.AbstractEventLoop | None = None
        super().__init__(
            uvicorn.Config(
                app,
                http=Protocol,
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                timeout_keep_alive=self.settings.keep_alive_seconds,
                timeout_graceful_shutdown=int(self.settings.shutdown_seconds + 2 * LAST_WORDS_SECONDS) + 1,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, with our connections; then say that it has started."""
        self._loop = asyncio.get_running_loop()
        gc.collect()
        gc.freeze()  # what imports left stays for good, and need not be looked through again and again
        self.servers = []
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(STARTUP_FAILURE)
        tls = None if self._certificates is None else self._certificates.context
        handshake_seconds = None if tls is None else self.settings.header_timeout_seconds
        for listener in sockets or ():
            await self.accept(listener, tls, handshake_seconds)
        self.started = True
        self._on_start()

    async def accept(
        self, listener: socket.socket, tls: ssl.SSLContext | None, handshake_seconds: float | None
    ) -> None:
        """Accept connections from a socket."""
        server = await asyncio.get_running_loop().create_server(
            self.protocol, sock=listener, ssl=tls, ssl_handshake_timeout=handshake_seconds, backlog=BACKLOG
        )
        self.servers.append(server)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second; what is due every second is done here."""
        if counter % 10 == 0:
            self.each_second()
        return await super().on_tick(counter)

    def each_second(self) -> None:
        """Look at the certificates."""
        if self._certificates is not None:
            self._certificates.refresh()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain. uvicorn's own handler would raise the signal again in the end: no exit 0."""
        if self._loop is None:
            self.should_exit = True
        elif sig == signal.SIGTERM and not self.state.draining:
            self._loop.call_soon_threadsafe(self.drain)
        else:
            self._loop.call_soon_threadsafe(self.stop)

    def drain(self) -> None:
        """Go on for a while, and let everybody know."""
        if not self.state.draining:
            logger.info("draining for %g s", self.settings.drain_seconds)
            self.state.draining = True
            self.connections.drain()
            asyncio.get_running_loop().call_later(self.settings.drain_seconds, self._end)

    def stop(self) -> None:
        """Accept no more; asked again, wait for nothing."""
        self.state.draining = True
        self.connections.drain()
        self.force_exit = self.should_exit
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's; but what is cut off gets to know."""
        cutting = asyncio.get_running_loop().create_task(self._cut_off())
        try:
            await super().shutdown(sockets)
        finally:
            cutting.cancel()

    async def _cut_off(self) -> None:
        await asyncio.sleep(self.settings.shutdown_seconds)
        if self.server_state.tasks:
            logger.error("%d requests are not finished; they are cut off", len(self.server_state.tasks))
            await self.state.jobs.close()  # their streams end with an error event
            await asyncio.wait(self.server_state.tasks, timeout=LAST_WORDS_SECONDS)
        self.connections.cut()

    def _end(self) -> None:
        self.should_exit = True

    def protocol(self) -> Protocol:
        """Of a new connection."""
        return Protocol(
            self.connections,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            _loop=self._loop,
        )


def end_of(server: Server) -> int:
    """The exit code of a process whose server has ended; where a thread of it hangs, the end of it."""
    for thread in threading.enumerate():
        if thread.name.startswith(("engine-", "gradients-", "audit")):
            what = "the audit log" if thread.name.startswith("audit") else "an engine"
            logger.error("%s hangs; leaving without it", what)
            logging.shutdown()
            os._exit(1)  # Python would wait for its thread for ever
    return 0 if server.started else 1
