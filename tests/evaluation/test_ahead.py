from __future__ import annotations

import threading
from itertools import islice

import pytest

from konkyo.evaluation.ahead import AHEAD, read_ahead


def test_batches_come_in_order() -> None:
    batches = [range(0, 3), range(3, 4), range(4, 9)]
    found = list(read_ahead(batches, lambda position: position**2, threads=3))
    assert found == [(batch, [position**2 for position in batch]) for batch in batches]
    assert list(read_ahead([], str)) == []


def test_reads_ahead_no_more_than_it_may() -> None:
    """Whatever the number of batches, so many are begun when the first is worked on."""
    begun: list[int] = []
    lock = threading.Lock()

    def read(position: int) -> int:
        with lock:
            begun.append(position)
        return position

    batches = [range(start, start + 2) for start in range(0, 100, 2)]
    reading = read_ahead(batches, read, threads=4)
    for _ in islice(reading, 3):
        pass
    reading.close()
    assert set(range(6)) <= set(begun) <= set(range(2 * (3 + AHEAD)))


def test_reads_in_several_threads() -> None:
    """Two that wait for each other could not meet in one."""
    meeting = threading.Barrier(2, timeout=30)
    assert [found for _, found in read_ahead([range(2)], lambda _: meeting.wait() >= 0, threads=2)] == [
        [True, True]
    ]


def test_what_reading_raises_comes_with_its_batch() -> None:
    def read(position: int) -> int:
        if position == 3:
            raise OSError("gone")
        return position

    reading = read_ahead([range(2), range(2, 4)], read)
    assert next(reading)[1] == [0, 1]
    with pytest.raises(OSError, match="gone"):
        next(reading)
