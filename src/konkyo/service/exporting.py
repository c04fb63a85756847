"""``/metrics`` on a port of its own, for a network of its own: plain HTTP, in a thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server

from konkyo.service.settings import Settings


@contextmanager
def exporting(settings: Settings, registry: CollectorRegistry) -> Iterator[None]:
    """Serve the registry while the block runs, if the settings name a port.

    Raises:
        OSError: naming the port that cannot be listened on.
    """
    if settings.metrics_port is None:
        yield
        return
    try:
        server, thread = start_http_server(settings.metrics_port, addr=settings.host, registry=registry)
    except OSError as error:
        raise OSError(
            error.errno, f"{error.strerror} (metrics_port {settings.metrics_port} of {settings.host})"
        ) from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
