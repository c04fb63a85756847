"""Which classes of a model the names in a data set mean.

A name is a class of the model if it equals its label, or one of several names in it that commas
separate; it may be the index of a class too, or for ImageNet WordNet's number. Upper and lower case and
underscores do not matter, unless they tell two classes apart. A JSON file may say otherwise, name by name::

    {"cat": ["tabby", "Egyptian cat"], "dog": [207, 208], "person": []}

``coco-to-imagenet`` is one that ships: the 80 things of COCO.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any

from konkyo.converters.photos import known_classes
from konkyo.training.errors import DataError


class ClassNames:
    """The classes of a model by the names of a data set.

    Args:
        labels: of the model.
        path: a JSON file, or the name of one that ships; None: names alone.

    Raises:
        DataError: the file cannot be read, or says what is no class of the model.
    """

    def __init__(self, labels: Sequence[str], path: Path | None = None) -> None:
        self._labels = tuple(labels)
        self._exact = known_classes(labels)
        # ImageNet's Cardigan is a dog, its cardigan is not: so a name may be two classes but for its case.
        whole: dict[str, list[int]] = defaultdict(list)
        parts: dict[str, list[int]] = defaultdict(list)
        for name, index in self._exact.items():
            whole[_plain(name)].append(index)
        for index, label in enumerate(labels):
            for part in {_plain(part) for part in label.split(",")}:
                parts[part].append(index)
        self._known = {name: tuple(found) for name, found in {**parts, **whole}.items()}
        self._given: dict[str, tuple[int, ...]] = {}
        if path is not None:
            for name, entries in _read(path).items():
                self._given[_plain(name)] = self._resolve(path, name, entries)

    def find(self, name: str) -> tuple[int, ...]:
        """The classes that are right for a name; () if there are none."""
        return self._given[_plain(name)] if _plain(name) in self._given else self._equal(name)

    def require(self, name: str) -> int:
        """The one class of a name.

        Raises:
            DataError: there is none, or more than one.
        """
        found = self.find(name)
        if len(found) == 1:
            return found[0]
        if found:
            several = ", ".join(repr(self._labels[index]) for index in found)
            raise DataError(f"{name!r} means several classes of the model: {several}; a true class is one")
        raise DataError(
            f"{name!r} is no class of the model{self._nearest(name)}; name it in a file of classes"
        )

    def _equal(self, name: str) -> tuple[int, ...]:
        return (self._exact[name],) if name in self._exact else self._known.get(_plain(name), ())

    def _resolve(self, path: Path, name: str, entries: Any) -> tuple[int, ...]:
        found: list[int] = []
        for entry in entries if isinstance(entries, list) else [entries]:
            if isinstance(entry, str) and self._equal(entry):
                found += self._equal(entry)
            elif type(entry) is int and 0 <= entry < len(self._labels):
                found.append(entry)
            else:
                near = self._nearest(entry) if isinstance(entry, str) else ""
                raise DataError(f"{path}: {name}: {entry!r} is no class of the model{near}")
        return tuple(dict.fromkeys(found))

    def _nearest(self, name: str) -> str:
        near = get_close_matches(_plain(name), self._known, 3)
        labels = dict.fromkeys(self._labels[index] for key in near for index in self._known[key])
        return f" (near: {', '.join(labels)})" if labels else ""


def _plain(name: str) -> str:
    return name.casefold().replace("_", " ").strip()


def _read(path: Path) -> Mapping[str, Any]:
    shipped = resources.files("konkyo.training") / "classes" / f"{path}.json"
    try:
        text = (path if path.exists() or not shipped.is_file() else shipped).read_text(encoding="utf-8")
        content = json.loads(text)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected an object of lists of classes by name")
    return content
