"""Bounds on what is held at once, whatever the number of callers: who would pass one is refused at once.

``MemoryBudget`` counts bytes; ``admission`` counts work.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from konkyo.errors import Overloaded


class Budget(ABC):
    """Counts an amount held at once; refuses instead of waiting."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    @contextmanager
    def hold(self, amount: int) -> Iterator[None]:
        """Hold an amount for the length of the block.

        Raises:
            Overloaded: that would pass the limit.
        """
        self.take(amount)
        try:
            yield
        finally:
            self.release(amount)

    def take(self, amount: int) -> None:
        """Hold an amount until ``release``. Raises ``Overloaded`` if that would pass the limit."""
        if not self._fits(amount):
            raise self._refusal(amount)
        self.held += amount

    def release(self, amount: int) -> None:
        """Give back what was taken."""
        self.held -= amount

    def _fits(self, amount: int) -> bool:
        return self.held + amount <= self.limit

    @abstractmethod
    def _refusal(self, amount: int) -> Overloaded: ...


class MemoryBudget(Budget):
    """Bytes of bodies and decoded images."""

    def _refusal(self, amount: int) -> Overloaded:
        return Overloaded("too much image data is being worked on", limit_bytes=self.limit)
