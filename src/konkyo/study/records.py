"""What the operator's side of a study works with: entries, images, summaries and answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Entry:
    """One of the things compared: the maps of a method of a bundle."""

    model: str
    version: str
    digest: str
    method: str

    @property
    def name(self) -> str:
        """As in the report: ``gcm-cifar10/1 gcm``."""
        return f"{self.model}/{self.version} {self.method}"


@dataclass(frozen=True, slots=True)
class Item:
    """An image of a study, and the maps of every entry for it.

    Attributes:
        name: of its file.
        label: of the class that the maps are for, empty where it is not known.
        image: PNG.
        maps: PNG of the map of each entry, all of the image's size.
        size: width and height of each.
    """

    name: str
    label: str
    image: bytes
    maps: Sequence[bytes]
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Summary:
    """A study in a line.

    Attributes:
        ready: all its pictures are there.
        closed: since when, None while it takes answers.
        done: rankings that are done, of all subjects.
    """

    id: str
    title: str
    created: str
    ready: bool
    closed: str | None
    entries: int
    items: int
    subjects: int
    finished: int
    done: int


@dataclass(frozen=True, slots=True)
class Shown:
    """An image as it was shown: its row, and the ids of its pictures."""

    id: str
    name: str
    label: str
    picture: str
    maps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answers:
    """Everything that scoring takes.

    Attributes:
        study: its row.
        rankings: by subject's number and item, ids of pictures; those that are done alone.
        subjects: numbers, and whether they have finished.
    """

    study: Mapping[str, Any]
    entries: tuple[Entry, ...]
    items: tuple[Shown, ...]
    subjects: tuple[tuple[int, bool], ...]
    rankings: Mapping[tuple[int, str], tuple[str, ...]]
