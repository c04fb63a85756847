"""Reading images in threads ahead of the device, a bounded number of batches."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")

AHEAD = 2
"""Batches that are read while one is worked on: what bounds the memory."""


def read_ahead(
    batches: Iterable[Sequence[int]], read: Callable[[int], T], *, threads: int | None = None
) -> Generator[tuple[Sequence[int], list[T]]]:
    """Batches in order, with what was read.

    Args:
        batches: positions.
        read: of one position; called from several threads. What it raises is raised when its batch is due.
        threads: default: 8, or as many as there are cores.
    """
    rest = iter(batches)
    with ThreadPoolExecutor(threads or min(8, os.cpu_count() or 1)) as pool:

        def begin(batch: Sequence[int]) -> tuple[Sequence[int], list[Future[T]]]:
            return batch, [pool.submit(read, position) for position in batch]

        waiting = deque(begin(batch) for batch in islice(rest, AHEAD))
        try:
            while waiting:
                waiting.extend(begin(batch) for batch in islice(rest, 1))
                batch, futures = waiting.popleft()
                yield batch, [future.result() for future in futures]
        finally:
            pool.shutdown(cancel_futures=True)
