"""The images of a folder, and the shard each belongs to."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from konkyo.imaging import extensions


class Folder:
    """The images under a folder, by their names: paths relative to it, with ``/``.

    What is scored is what lies in the folder: symbolic links are not followed, so that nothing outside is
    read, nothing twice, and no circle never left. Hidden files and folders are none of the data.

    Attributes:
        links: symbolic links that were met.
        others: files that were met and are no images by their suffix.

    Raises:
        OSError: it is not there, or no folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve(strict=True)
        if not self.root.is_dir():
            raise NotADirectoryError(f"{root} is not a folder")
        self.links = 0
        self.others = 0

    def names(self) -> Iterator[str]:
        """Every image, sorted within each folder; a folder that cannot be listed as itself, with a ``/``.

        Only one folder's entries on each level are held at a time.
        """
        yield from self._below("")

    def shard(self, shard: int, shards: int) -> Iterator[str]:
        """Those of one shard, of ``0`` to ``shards - 1``."""
        return (name for name in self.names() if shard_of(name, shards) == shard)

    def _below(self, prefix: str) -> Iterator[str]:
        try:
            with os.scandir(self.root / prefix) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            if not prefix:
                raise
            yield prefix
            return
        for entry in found:
            name = f"{prefix}{entry.name}"
            if entry.name.startswith("."):
                continue
            if entry.is_symlink():
                self.links += 1
            elif entry.is_dir():
                yield from self._below(f"{name}/")
            elif entry.is_file() and os.path.splitext(name)[1].lower() in extensions():  # noqa: PTH122
                yield name
            else:
                self.others += 1


def shard_of(name: str, shards: int) -> int:
    """The shard of an image, by a hash of its name.

    By its name alone, and not by its place in the list: each process lists the folder for itself, and an
    image that comes or goes in between would move all others, so that some were scored twice and some
    never.
    """
    digest = hashlib.sha256(os.fsencode(name)).digest()
    return int.from_bytes(digest[:8], "big") % shards
