"""A file of JSON lines, one for each image, that survives whatever kills its writer.

The first line says what all others were made by: lines made otherwise are refused, not mixed in. A line
that was torn is cut off when the file is opened again. NaN is null.
"""

from __future__ import annotations

import fcntl
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

FORMAT = "konkyo-records/1"
EXAMPLE = "example"
"""Key of the image's name, by which a line is known."""


class Lines:
    """The file, open for the length of a ``with`` block.

    Args:
        path: of the file; its folders are made.
        identity: what lines must have in common, as JSON.
        restart: begin anew, whatever is there.

    Attributes:
        done: names of the images that have their line.

    Raises:
        ValueError: lines of another identity are there, or no such lines at all.
        OSError: it cannot be written, or another process writes it.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], *, restart: bool = False) -> None:
        self.path = path
        self._identity = json.loads(_encode({"format": FORMAT, **identity}))
        self._restart = restart
        self.done: set[str] = set()

    def __enter__(self) -> Lines:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            length = 0 if self._restart else self._read()
            self._file.truncate(length)
            if not length:
                self._append([self._identity])
        except BlockingIOError:
            self._file.close()
            raise BlockingIOError(f"another process writes {self.path}") from None
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Add the lines of images that have none yet; of others nothing is added."""
        new = [line for line in lines if line[EXAMPLE] not in self.done]
        self._append(new)
        self.done.update(line[EXAMPLE] for line in new)

    def _append(self, lines: Iterable[Mapping[str, Any]]) -> None:
        self._file.write(b"".join(_encode(line) for line in lines))
        self._file.flush()

    def _read(self) -> int:
        """Note what is done; returns the length of the lines that are whole."""
        self._file.seek(0)
        length = 0
        for number, line in enumerate(_whole(self._file)):
            try:
                content = json.loads(line)
                _ = content[EXAMPLE] if number else content["format"]
            except (ValueError, KeyError, TypeError):
                raise ValueError(
                    f"{self.path}: line {number + 1} is no record; begin anew by --restart"
                ) from None
            if number:
                self.done.add(content[EXAMPLE])
            else:
                self._agree(content)
            length += len(line)
        return length

    def _agree(self, noted: Mapping[str, Any]) -> None:
        for place, here, there in _differences(self._identity, noted):
            raise ValueError(
                f"{self.path} was made otherwise: {place} was {there} and is now {here}; choose another "
                "folder, or begin anew with --restart"
            )


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file but the first."""
    with path.open("rb") as file:
        for number, line in enumerate(_whole(file)):
            if number:
                yield json.loads(line)


def _whole(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Up to the first that is torn."""
    for line in lines:
        if not line.endswith(b"\n"):
            return
        yield line


def _encode(line: Mapping[str, Any]) -> bytes:
    return json.dumps(_plain(line), allow_nan=False).encode() + b"\n"  # ASCII: names may be no Unicode


def _plain(value: Any) -> Any:
    """What JSON can say of it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _differences(here: Any, there: Any, place: str = "") -> Iterator[tuple[str, str, str]]:
    """The settings in which two objects differ, by name, each in JSON."""
    if isinstance(here, dict) and isinstance(there, dict):
        for key in here | there:
            yield from _differences(here.get(key), there.get(key), f"{place}.{key}".lstrip("."))
    elif here != there:
        yield place, json.dumps(here), json.dumps(there)
