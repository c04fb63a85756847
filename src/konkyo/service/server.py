"""The server: one process, or several under a supervisor."""

from __future__ import annotations

import socket

from konkyo.service import logs
from konkyo.service.app import create_app
from konkyo.service.engines import EngineFactory, make_engine
from konkyo.service.exporting import exporting
from konkyo.service.process import BACKLOG, Server, end_of
from konkyo.service.settings import Settings
from konkyo.service.supervisor import Supervisor
from konkyo.service.tls import Certificates


def serve(settings: Settings, make_engine: EngineFactory = make_engine) -> int:
    """Serve until a signal; returns the exit code.

    Prints one line with the address once connections are accepted, with the real port if it was 0.

    Args:
        make_engine: as of ``create_app``; for several processes it must be a function that can be imported.

    Raises:
        OSError, ValueError: it cannot start; the message says why.
    """
    logs.configure(settings)
    if settings.tls_certificate is not None:
        Certificates(settings)  # what is wrong with them is found before anything is started
    listener = socket.create_server(
        (settings.host, settings.port), family=_family(settings.host), backlog=BACKLOG
    )
    _allow_files(settings.max_connections)
    address = _address(settings, listener)
    if settings.processes > 1:
        return Supervisor(settings, make_engine, listener, address).run()
    app = create_app(settings, make_engine=make_engine)
    server = Server(app, lambda: print(f"Konkyo on {address}", flush=True))
    with exporting(settings, server.state.metrics.exposition):
        server.run(sockets=[listener])
    return end_of(server)


def _address(settings: Settings, listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    scheme = "https" if settings.tls_certificate else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _allow_files(connections: int) -> None:
    """Open files beside the connections: models, libraries, other processes' metrics."""
    try:
        import resource
    except ImportError:  # no Unix
        return
    wanted = connections + 1024
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
