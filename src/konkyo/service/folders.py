"""What lies in the folders of the repository: ``MODEL/VERSION/`` with a card, and whether it has changed.

A change is found by comparing what is there with what was there, and by nothing else: network file systems
tell of no changes, and a volume of Kubernetes changes by a link that points elsewhere. Names that begin
with a dot are no models, no versions and no files of a bundle: ``..data`` is how such a volume is built.
Nor are folders models or versions whose names no answer, log or metric could carry.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from konkyo.models.bundle import CARD

Stamp = tuple[tuple[str, tuple[int, ...]], ...]
"""Files by name with inode, size and times, where links lead; if it differs, something may have changed."""


@dataclass(frozen=True, slots=True)
class Found:
    """The folder of a version.

    Attributes:
        complete: there is a card, and so a bundle to be read; else it may be on its way.
    """

    path: Path
    stamp: Stamp
    complete: bool


@dataclass(frozen=True, slots=True)
class Contents:
    """What lies in all folders.

    Attributes:
        models: versions by model, oldest first, complete or not; names in alphabetical order.
        conflicts: of a model that is in several folders: which one is served, in a sentence.
    """

    models: Mapping[str, Mapping[str, Found]] = field(default_factory=dict)
    conflicts: Mapping[str, str] = field(default_factory=dict)


def look(folders: Sequence[Path]) -> Contents:
    """What is there now; of a model that is in several folders, what the first has.

    Raises:
        OSError: a folder cannot be read.
    """
    places: dict[str, list[tuple[Path, dict[str, Found]]]] = {}
    for folder in folders:
        for path in _subfolders(folder):
            versions = {version.name: _found(version) for version in _versions(path)}
            if versions:
                places.setdefault(path.name, []).append((folder, versions))
    models, conflicts = {}, {}
    for name, candidates in sorted(places.items()):
        whole = [place for place in candidates if _has_bundle(place[1])]
        folder, models[name] = (whole or candidates)[0]
        if len(whole) > 1:
            others = " and ".join(str(other) for other, _ in whole[1:])
            conflicts[name] = f"{name} is served from {folder}, and is in {others} as well"
    return Contents(models, conflicts)


def stamp(path: Path) -> Stamp:
    """Of the folder of a version; empty if it is none any more."""
    try:
        with os.scandir(path) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    except OSError:
        return ()
    return tuple((name, _identity(path / name)) for name in names)


def in_order(versions: Sequence[str]) -> list[str]:
    """Oldest first. Versions are numbers: by length, then by digits."""
    return sorted(versions, key=lambda version: (len(version), version))


def _has_bundle(versions: Mapping[str, Found]) -> bool:
    return any(found.complete for found in versions.values())


def _found(path: Path) -> Found:
    found = stamp(path)
    return Found(path, found, any(name == CARD and identity for name, identity in found))


def _identity(path: Path) -> tuple[int, ...]:
    """Of a file, where links lead; empty if they lead nowhere."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _versions(model: Path) -> list[Path]:
    try:
        found = {path.name: path for path in _subfolders(model)}
    except (FileNotFoundError, PermissionError):  # removed since it was listed; or no model, as lost+found
        return []
    return [found[name] for name in in_order(list(found))]


def _subfolders(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if _can_be_said(entry.name) and entry.is_dir())
    return (folder / name for name in names)


def _can_be_said(name: str) -> bool:
    """Whether it is not hidden, and has no control characters and no bytes that are no UTF-8."""
    return not name.startswith(".") and name.isprintable()
