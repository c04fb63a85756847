"""Names of classes: of ImageNet, and from a file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from timm.data.imagenet_info import ImageNetInfo

from konkyo.converters.errors import ConversionError

_OWN = {
    "n02012849": "crane (bird)",
    "n03126707": "crane (machine)",
    "n03710637": "maillot (tights)",
    "n03710721": "maillot (tank suit)",
}
"""Where the first of the names is that of another class too, by WordNet's number."""


def imagenet_labels() -> tuple[str, ...]:
    """The 1,000 classes of ILSVRC 2012 in order, each by the first of its names in WordNet."""
    first = (lemmas.partition(",")[0] for lemmas in ImageNetInfo().label_descriptions())
    return tuple(_OWN.get(number, name) for number, name in zip(wordnet_numbers(), first, strict=True))


def wordnet_numbers() -> tuple[str, ...]:
    """What WordNet calls the classes of ILSVRC 2012, in order, such as n01440764."""
    return tuple(ImageNetInfo().label_names())  # type: ignore[no-untyped-call]


def read_labels(path: Path) -> tuple[str, ...]:
    """One name a line, in the order of the classes.

    Raises:
        ConversionError: the file cannot be read, is empty, or a name is empty or there twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConversionError(f"{path}: cannot be read: {error}") from None
    labels = tuple(line.strip() for line in lines)
    if not labels or "" in labels:
        line = labels.index("") + 1 if labels else 1
        raise ConversionError(f"{path}: expected the name of one class a line, but line {line} is empty")
    if twice := [label for label, number in Counter(labels).items() if number > 1]:
        raise ConversionError(f"{path}: {twice[0]!r} is there twice")
    return labels


def labels_for(num_classes: int, path: Path | None) -> tuple[str, ...]:
    """The names in a file, or those of ImageNet if there is no file and the number is theirs.

    Raises:
        ConversionError: there is no file and another number of classes, or the numbers differ.
    """
    if path is None:
        if num_classes != 1000:
            raise ConversionError(f"name the {num_classes} classes in a file, one a line: --labels")
        return imagenet_labels()
    labels = read_labels(path)
    if len(labels) != num_classes:
        raise ConversionError(f"{path}: {len(labels)} names, but the network has {num_classes} classes")
    return labels
