"""Lines appended to a file that others may append to, move away or fill the disk of."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

STDOUT = Path("-")


class Appender:
    """A file of lines, each written whole by one call, so that several processes may share it.

    The file is looked up by its path before every line: where it was moved away, as a rotation of logs does,
    a new one is begun, and no signal is needed. ``-`` is standard output.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._torn = False
        self._open()

    def append(self, line: bytes) -> None:
        """Write a line, which ends in a line break.

        Raises:
            OSError: it could not be written, or not whole; the next line then begins with a line break.
        """
        if self._path != STDOUT and self._moved():
            os.close(self._file)
            self._open()
        rest = memoryview(b"\n" + line if self._torn and line else line)
        while rest:
            rest = rest[os.write(self._file, rest) :]
            self._torn = bool(rest)

    def _open(self) -> None:
        if self._path == STDOUT:
            self._file = sys.stdout.fileno()
            return
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._torn = self._ends_torn()

    def _moved(self) -> bool:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return True
        return not os.path.samestat(found, os.fstat(self._file))

    def _ends_torn(self) -> bool:
        """Whether the file ends in the middle of a line, as after a full disk."""
        found = os.fstat(self._file)
        if not stat.S_ISREG(found.st_mode) or found.st_size == 0:
            return False
        try:
            with self._path.open("rb") as file:
                file.seek(-1, os.SEEK_END)
                return file.read(1) != b"\n"
        except PermissionError:  # may be written, and not read
            return False
