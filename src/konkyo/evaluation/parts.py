"""Many things, some at a time."""

from __future__ import annotations

from collections.abc import Iterator


def parts(count: int, size: int) -> Iterator[slice]:
    """``count`` things in parts of at most ``size``."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
