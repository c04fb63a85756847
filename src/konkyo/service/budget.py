"""A bound on the bytes held at once, whatever the number of callers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from konkyo.errors import Overloaded


class MemoryBudget:
    """Counts bytes of bodies and decoded images; refuses instead of waiting."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    @contextmanager
    def hold(self, amount: int) -> Iterator[None]:
        """Hold ``amount`` bytes for the length of the block.

        Raises:
            Overloaded: that would pass the limit.
        """
        self.take(amount)
        try:
            yield
        finally:
            self.release(amount)

    def take(self, amount: int) -> None:
        """Hold ``amount`` bytes until ``release``. Raises ``Overloaded`` if that would pass the limit."""
        if self.held + amount > self.limit:
            raise Overloaded("too much image data is being worked on", limit_bytes=self.limit)
        self.held += amount

    def release(self, amount: int) -> None:
        """Give back what was taken."""
        self.held -= amount
