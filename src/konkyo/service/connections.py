"""The open connections of one server process: how many there may be, and who gives way."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from konkyo.service.state import State

if TYPE_CHECKING:
    from konkyo.service.protocol import Protocol

RESERVE = 64
"""Connections over the limit, so that health can be asked when all others are at work."""

HEALTH = frozenset({b"/livez", b"/readyz", b"/v2/health/live", b"/v2/health/ready", b"/metrics"})
"""What is answered there."""


class Connections:
    """Of one server process.

    A connection *waits* while no request of it is at work: between two requests, and until a header is
    complete. At the limit the one that has waited longest is closed for the new one, so that neither idle
    callers nor slow ones keep others out. Where all are at work, who is new can ask for health only.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        settings = state.settings
        self.limit = settings.max_connections
        self._most_requests = settings.max_requests or 2 * (settings.queue_capacity + settings.max_batch)
        self._begun: set[Protocol] = set()
        self._open: set[Protocol] = set()
        self._waiting: dict[Protocol, None] = {}  # longest first
        self._over: set[Protocol] = set()
        self.on_change: Callable[[], None] = lambda: None
        """Called when there is one more or one less."""
        state.metrics.watch(state.metrics.connections, lambda: len(self._open))

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: Protocol) -> None:
        """A new one, which waits; one of those there were may be closed, or this one."""
        self._open.add(connection)
        self.on_change()
        self._waiting[connection] = None
        if len(self._open) <= self.limit:
            return
        others = (other for other in self._waiting if other is not connection and other not in self._over)
        longest = next(others, None)
        if longest is None:
            self._over.add(connection)
            if len(self._over) <= RESERVE:
                return
            longest = next(iter(self._waiting))
        self.count("gave_way")
        self.remove(longest)
        longest.transport.abort()

    @property
    def full(self) -> bool:
        """Whether as many requests as may be have come whole and wait for their answers."""
        return len(self._begun) >= self._most_requests

    def begins(self, connection: Protocol) -> None:
        """A request of it has come whole, and its answer is due. Until then it takes nobody's place."""
        self._begun.add(connection)

    def ends(self, connection: Protocol) -> None:
        """The answer is sent."""
        self._begun.discard(connection)

    def works(self, connection: Protocol) -> None:
        """A request of it is complete but for the body."""
        self._waiting.pop(connection, None)

    def waits(self, connection: Protocol) -> None:
        """Its last request is answered."""
        if connection in self._open:
            self._waiting[connection] = None

    def remove(self, connection: Protocol) -> None:
        """It is closed."""
        self._open.discard(connection)
        self._waiting.pop(connection, None)
        self._over.discard(connection)
        self._begun.discard(connection)
        self.on_change()

    def is_over(self, connection: Protocol) -> bool:
        """Whether it is over the limit, still."""
        return connection in self._over and len(self._open) > self.limit

    def drain(self) -> None:
        """Let the answers of requests at work say that their connection ends with them."""
        for connection in self._open:
            connection.drain()

    def cut(self) -> None:
        """End them all, whatever is at work."""
        for connection in list(self._open):
            connection.transport.abort()

    def count(self, reason: str) -> None:
        """Count what the server ended."""
        self.state.metrics.refused.labels(reason=reason).inc()
