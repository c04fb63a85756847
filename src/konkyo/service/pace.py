"""How long the batches of a queue take, measured by their size."""

from __future__ import annotations

import math


class Pace:
    """Remembers, and says how long it takes at least until so many items are answered.

    A batch is compared with batches of about its size (within a factor of two): what is shared by a batch,
    which is most of its time on a GPU and little of it on a CPU, is then in the measurement. Each is
    remembered as rather too short than too long, as somebody is refused by it: the shortest counts, and is
    forgotten by a sixteenth with every other. Nor does a batch count as slower than its images in smaller
    ones would be: one that hung is then outweighed by the next that do not, of whatever size. It would else
    keep out everybody who could show that such batches are quick.

    Args:
        max_batch: items in one batch.
    """

    def __init__(self, max_batch: int) -> None:
        self._max_batch = max_batch
        self._seconds: dict[int, float] = {}

    def add(self, size: int, seconds: float) -> None:
        """Learn from a batch."""
        known = self._seconds.get(size.bit_length(), math.inf)
        self._seconds[size.bit_length()] = min(known * 17 / 16, seconds)

    def wait(self, items: int) -> float:
        """Seconds at least until so many are answered; 0 where nothing like it was measured."""
        full, rest = divmod(items, self._max_batch)
        return full * self._batch(self._max_batch) + self._batch(rest)

    def _batch(self, size: int) -> float:
        """By batches of its size or the next smaller ones that were measured; no other way was quicker."""
        like = max((bits for bits in self._seconds if bits <= size.bit_length()), default=None)
        if like is None:
            return 0.0
        return min(
            seconds if bits >= like else seconds * math.ceil(size / 2 ** (bits - 1))
            for bits, seconds in self._seconds.items()
        )
