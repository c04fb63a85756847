"""The server process: uvicorn, with an orderly end.

On SIGTERM readiness says 503 at once while everything else goes on for ``drain_seconds``, so that
a load balancer can look away before a connection is refused. Then the port closes, what was
accepted is finished, and the process exits with 0. A second signal, or SIGINT, skips the wait.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
from types import FrameType

import uvicorn

from konkyo.service.app import create_app
from konkyo.service.settings import Settings

logger = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """uvicorn with a drain period and exit code 0."""

    def __init__(self, settings: Settings, address: str) -> None:
        self._address = address
        self._app = create_app(settings)
        self._drain_seconds = settings.drain_seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        super().__init__(
            uvicorn.Config(
                self._app,
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                timeout_graceful_shutdown=int(max(1, settings.shutdown_seconds)),
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Remember the loop for the signal handler; say where, now that a signal finds the handler."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets=sockets)
        print(f"Konkyo on {self._address}", flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain. uvicorn's own handler would raise the signal again in the end: no exit 0."""
        state = self._app.state.konkyo
        if self.should_exit:
            self.force_exit = True
        elif sig != signal.SIGTERM or state.draining or self._loop is None:
            self.should_exit = True
        else:
            logger.info("SIGTERM: draining for %g s", self._drain_seconds)
            self._loop.call_soon_threadsafe(self._loop.call_later, self._drain_seconds, self._stop)
        state.draining = True

    def _stop(self) -> None:
        self.should_exit = True


def serve(settings: Settings) -> int:
    """Serve until a signal; returns the exit code.

    Prints one line with the address once the port is open, with the real port if it was 0.
    """
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    listener = socket.create_server(
        (settings.host, settings.port), family=_family(settings.host), backlog=2048
    )
    host, port = listener.getsockname()[:2]
    server = Server(settings, f"http://{f'[{host}]' if ':' in host else host}:{port}")
    server.run(sockets=[listener])
    if any(thread.name.startswith(("engine-", "gradients-")) for thread in threading.enumerate()):
        logger.error("an engine hangs in a batch; leaving without it")
        logging.shutdown()
        os._exit(1)  # Python would wait for its thread for ever
    return 0 if server.started else 1


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
