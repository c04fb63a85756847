"""The results of one shard: a file of JSON lines that survives whatever kills its writer.

While it is written its name ends in ``.partial``; it has its own name once every image has its line. A line
that a crash has torn is cut off when the file is opened again, with all that follows it.
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

SYNC_LINES = 64
"""Lines that a loss of power may cost; the death of the process costs none."""


class Part:
    """The part of a shard, open for the length of a ``with`` block.

    Attributes:
        path: of the finished file.
        done: names of the images that have their line already.

    Raises:
        OSError: it cannot be written, or another process writes it.
    """

    def __init__(self, folder: Path, shard: int, shards: int) -> None:
        self.path = folder / f"part-{shard:05}-of-{shards:05}.jsonl"
        self._partial = self.path.with_name(f"{self.path.name}.partial")
        self.done: set[str] = set()
        self._unsynced = 0

    def __enter__(self) -> Part:
        if self.path.exists():  # it may lack images that have come since
            self.path.replace(self._partial)
        with ExitStack() as opened:
            self._file = opened.enter_context(self._partial.open("a+b"))
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BlockingIOError(f"another process writes {self._partial}") from None
            self._file.truncate(self._read())
            opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            self._sync()

    def append(self, line: dict[str, Any]) -> None:
        """Add the line of an image; it is whole in the file, or not at all, once the file is opened again."""
        self._file.write(json.dumps(line, allow_nan=False).encode() + b"\n")  # ASCII: names may be no Unicode
        self._file.flush()
        self._unsynced += 1
        if self._unsynced >= SYNC_LINES:
            self._sync()

    def complete(self) -> None:
        """Every image has its line: the file gets its own name."""
        self._sync()
        self._partial.replace(self.path)
        sync_folder(self.path.parent)

    def _read(self) -> int:
        """Note what is done; returns the length of the lines that are whole."""
        self._file.seek(0)
        length = 0
        for line in self._file:
            name = _name_in(line)
            if name is None:
                break
            self.done.add(name)
            length += len(line)
        return length

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._unsynced = 0


def write_file(path: Path, data: bytes, *, writer: str = "") -> None:
    """Write a file as a whole or not at all, and its folders.

    Args:
        writer: tells those apart who may write the path at the same time.

    Raises:
        OSError
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}{writer}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def sync_folder(path: Path) -> None:
    """Make new names in a folder last."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _name_in(line: bytes) -> str | None:
    try:
        name = json.loads(line)["image"] if line.endswith(b"\n") else None
    except (ValueError, KeyError, TypeError):
        return None
    return name if isinstance(name, str) else None
