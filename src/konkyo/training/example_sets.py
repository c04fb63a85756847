"""Images from files or arrays as evaluation reads them, one at a time and from several threads.

Shape legend: H, W the network's input, h, w a mask's file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from konkyo.errors import KonkyoError
from konkyo.evaluation.concepts import MaskFile, open_segments
from konkyo.evaluation.examples import Example, Marked
from konkyo.evaluation.marking import Instances, connected, mark, require_aspect
from konkyo.imaging import Decoded, Geometry, UInt8, decode, open_image, prepare
from konkyo.models.card import InputSpec
from konkyo.training.data import NO_MASK, Images
from konkyo.training.errors import DataError
from konkyo.training.masks import open_mask


class Concept(NamedTuple):
    """What masks show, and the class indices that are right for it."""

    name: str
    classes: tuple[int, ...]


class Item(NamedTuple):
    """An image file, and what is known of it.

    Attributes:
        name: that tells it from all others.
        path: of the file.
        truth: class index.
        masks: () where nothing is there to be marked, None where nobody marked anything.
        group: images of one object share it.
    """

    name: str
    path: Path
    truth: int | None = None
    masks: tuple[MaskFile, ...] | None = None
    group: str | None = None


@dataclass(frozen=True)
class FileExamples:
    """Image files with masks, see ``Examples``; nothing is decoded before it is asked for.

    Attributes:
        name, description, licence: see ``Examples``.
        spec: how images are brought to the input.
        items: the files.
        concepts: what masks show, by position.
        ordered: whether the classes are grades.
    """

    name: str
    description: str
    licence: str
    spec: InputSpec
    items: tuple[Item, ...]
    concepts: tuple[Concept, ...] = ()
    ordered: bool = False

    def __len__(self) -> int:
        return len(self.items)

    def names(self) -> Sequence[str]:
        """See ``Examples.names``."""
        return [item.name for item in self.items]

    def truths(self) -> Sequence[int | None]:
        """See ``Examples.truths``."""
        return [item.truth for item in self.items]

    def digest(self) -> str:
        """See ``Examples.digest``; a file that cannot be read is found out by ``read``."""
        paths = {mask.path for item in self.items for mask in item.masks or ()}
        paths |= {item.path for item in self.items}
        with ThreadPoolExecutor() as pool:
            contents = dict(zip(paths, pool.map(_content, paths), strict=True))
        known = [
            [item.name, contents[item.path], item.truth, item.group, _shown(item.masks, contents)]
            for item in self.items
        ]
        return hashlib.sha256(json.dumps([self.concepts, known]).encode()).hexdigest()

    def read(self, index: int) -> Example:
        """See ``Examples.read``.

        Raises:
            DataError: a file is missing or damaged, or a mask has another aspect ratio than its image.
        """
        item = self.items[index]
        path = item.path
        try:
            pixels, geometry = _prepared(decode(open_image(path.read_bytes())), self.spec)
            marked: list[Marked] = []
            for mask in item.masks or ():
                path = mask.path
                marked.extend(self._marked(mask, geometry))
        except (KonkyoError, ValueError, OSError) as error:
            raise DataError(f"{path}: {error}") from error
        unknown = item.masks is None or (not marked and self._left_out(item.masks))
        things = None if unknown else tuple(marked)
        return Example(item.name, pixels, geometry, item.truth, things, item.group)

    def _left_out(self, masks: Sequence[MaskFile]) -> bool:
        """Whether masks show something without a class, so that it is not so that nothing is there."""
        shown = ({mask.shows} if isinstance(mask.shows, int) else set(mask.shows.values()) for mask in masks)
        return any(not self.concepts[concept].classes for concept in set().union(*shown))

    def _marked(self, mask: MaskFile, geometry: Geometry) -> Iterator[Marked]:
        """What a mask shows; a concept without a class of the model is left out."""
        for concept, instances in _instances(mask, geometry):
            name, classes = self.concepts[concept]
            if classes and instances.any():
                yield mark(name, classes, instances, geometry)


@dataclass(frozen=True)
class ArrayExamples:
    """Images in memory with masks, see ``Examples``.

    Attributes:
        name, description, licence: see ``Examples``.
        spec: how images are brought to the input.
        images: with classes as in ``concepts``.
        split: that images are named after.
        concepts: the classes of the data; each means one of the model.
        ordered: whether the classes are grades.
    """

    name: str
    description: str
    licence: str
    spec: InputSpec
    images: Images
    split: str
    concepts: tuple[Concept, ...]
    ordered: bool = False

    def __len__(self) -> int:
        return len(self.images)

    def names(self) -> Sequence[str]:
        """See ``Examples.names``."""
        return [self._name(index) for index in range(len(self))]

    def truths(self) -> Sequence[int | None]:
        """See ``Examples.truths``."""
        return [self.concepts[label].classes[0] for label in self.images.labels]

    def digest(self) -> str:
        """See ``Examples.digest``."""
        found = hashlib.sha256(json.dumps(self.concepts).encode())
        for part in (self.images.pixels, self.images.labels, self.images.masks):
            found.update(b"" if part is None else np.ascontiguousarray(part).tobytes())
        return found.hexdigest()

    def read(self, index: int) -> Example:
        """See ``Examples.read``."""
        decoded = Decoded(Image.fromarray(self.images.pixels[index]), 1, "PNG")
        pixels, geometry = _prepared(decoded, self.spec)
        name, classes = self.concepts[self.images.labels[index]]
        marked: tuple[Marked, ...] | None = None
        if self.images.masks is not None and (self.images.masks[index] != NO_MASK).all():
            instances = connected(self.images.masks[index] == 1)
            marked = (mark(name, classes, instances, geometry),) if instances.any() else ()
        return Example(self._name(index), pixels, geometry, classes[0], marked)

    def _name(self, index: int) -> str:
        return f"{self.split}/{index:05}"


def _content(path: Path) -> str | None:
    """Digest of a file; None where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _shown(masks: Sequence[MaskFile] | None, contents: Mapping[Path, str | None]) -> list[Any] | None:
    """What masks hold, and what it means, as JSON."""
    if masks is None:
        return None
    meant = (mask.shows if isinstance(mask.shows, int) else sorted(mask.shows.items()) for mask in masks)
    return [
        [contents[mask.path], shows, sorted(mask.crowds)] for mask, shows in zip(masks, meant, strict=True)
    ]


def _prepared(decoded: Decoded, spec: InputSpec) -> tuple[UInt8, Geometry]:
    """As a request's image would be: (H, W, 3)."""
    return prepare(
        decoded,
        (spec.width, spec.height),
        mode=spec.resize_mode,
        crop_fraction=spec.crop_fraction,
        interpolation=spec.interpolation,
    )


def _instances(mask: MaskFile, geometry: Geometry) -> Iterator[tuple[int, Instances]]:
    """Where the instances of each concept are that a mask shows (h, w)."""
    if isinstance(mask.shows, int):
        yield mask.shows, connected(open_mask(mask.path, geometry))
        return
    segments = open_segments(mask.path)
    require_aspect((segments.shape[1], segments.shape[0]), geometry.original)
    for concept in sorted(set(mask.shows.values())):
        instances = np.zeros(segments.shape, np.int32)
        theirs = (key for key, shown in mask.shows.items() if shown == concept)
        for number, key in enumerate(theirs, start=1):
            instances[segments == key] = -1 if key in mask.crowds else number
        yield concept, instances
