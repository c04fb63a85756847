"""Data sets by name as evaluation reads them: one image at a time, with what is known of it.

- ``cifar10`` and ``elpv``, the test split unless another is asked for; ``surfaces``, drawn images with
  masks;
- a folder of class folders, in the layouts of ``folder.py``;
- photographs with masks of what is in them, in the layouts of ``evaluation/concepts.py``;
- a flat folder of images of which nothing is known, or ``ROOT/images`` with images alone.

In all of them ``ROOT/groups.csv`` may say which images show the same object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np

from konkyo.evaluation.concepts import PANOPTIC, MaskFile, open_concepts
from konkyo.evaluation.examples import Examples
from konkyo.models.card import InputSpec
from konkyo.training import elpv
from konkyo.training.cifar import LABELS as CIFAR10
from konkyo.training.cifar import load_cifar10, load_cifar10_test
from konkyo.training.class_names import ClassNames
from konkyo.training.data import NO_MASK, SPLITS, ImageData, Images
from konkyo.training.errors import DataError
from konkyo.training.example_sets import ArrayExamples, Concept, FileExamples, Item
from konkyo.training.groups import read_groups
from konkyo.training.listing import folders_in, holds_folders, image_files, list_folder
from konkyo.training.reading import File
from konkyo.training.sources import SURFACES, refuse_layout
from konkyo.training.surfaces import generate_surfaces

Split = Literal["train", "val", "test", "all"]


@dataclass(frozen=True)
class _Asked:
    """The arguments of ``open_examples`` that more than one kind of data takes."""

    spec: InputSpec
    names: ClassNames
    split: Split | None
    fold: int | None
    folds: int
    seed: int
    val_share: float
    masks: Path | None


def open_examples(
    data: str,
    spec: InputSpec,
    labels: Sequence[str],
    *,
    data_root: str | Path | None = None,
    split: Split | None = None,
    fold: int | None = None,
    folds: int = 5,
    seed: int = 0,
    val_share: float = 0.1,
    masks: Path | None = None,
    classes: Path | None = None,
) -> Examples:
    """The examples of a data set for a model.

    Args:
        data: ``cifar10``, ``elpv``, ``surfaces``, or the path of a folder.
        spec: how images are brought to the model's input.
        labels: of the model.
        data_root: to which a folder is relative, and where ``cifar10`` is looked for; default: here, and
            ``data``.
        split: which part. None: the test split where the data has one of its own or a fold is asked for,
            and otherwise all of it.
        fold, folds: of a folder of class folders, which fold of how many is the test split.
        seed, val_share: as the model was trained with, where they decide what is in a split.
        masks: the folder of the masks, where they do not lie beside the images.
        classes: a JSON file that says which classes of the model the names in the data mean.

    Raises:
        DataError: there is no such data or split, a name is no class of the model, or masks do not belong
            to the images.
    """
    names = ClassNames(labels, classes)
    asked = _Asked(spec, names, split, fold, folds, seed, val_share, masks)
    if data in ("cifar10", "surfaces", "elpv"):
        refuse_layout(data, fold, masks)
    if data == "cifar10":
        return _from_cifar10(Path(data_root or "data"), asked)
    if data == "surfaces":
        drawn = generate_surfaces(SURFACES, spec.height, val_share=val_share, split_seed=seed)
        return _from_splits(drawn, asked)
    if data == "elpv":
        return _from_elpv(asked)
    root = Path(data_root or ".") / data
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder")
    return _from_photographs(root, asked) if _without_classes(root) else _from_class_folders(root, asked)


def _from_cifar10(root: Path, asked: _Asked) -> ArrayExamples:
    if asked.split in (None, "test"):  # the training images take long to read
        return _from_arrays("cifar10", CIFAR10, "not stated", load_cifar10_test(root), "test", asked)
    return _from_splits(load_cifar10(root, val_share=asked.val_share, seed=asked.seed), asked)


def _from_splits(data: ImageData, asked: _Asked) -> ArrayExamples:
    split = asked.split or "test"
    parts = [getattr(data, part) for part in _parts(split)]
    masks = [part.masks for part in parts]
    together = Images(
        np.concatenate([part.pixels for part in parts]),
        np.concatenate([part.labels for part in parts]),
        None if any(part is None for part in masks) else np.concatenate(masks),
    )
    return _from_arrays(data.name, data.labels, data.licence, together, split, asked)


def _from_arrays(
    name: str, labels: Sequence[str], licence: str, images: Images, split: Split, asked: _Asked
) -> ArrayExamples:
    where = f"{_name(split)}, {len(images):,} images"
    concepts = _required(asked.names, labels)
    return ArrayExamples(name, where, licence, asked.spec, images, split, concepts)


def _from_elpv(asked: _Asked) -> FileExamples:
    root, splits = elpv.list_elpv(val_share=asked.val_share, seed=asked.seed)
    split = asked.split or "test"
    files = list(chain(*(splits[part] for part in _parts(split))))
    concepts = _required(asked.names, elpv.LABELS)
    items = _items(root, files, concepts)
    where = f"{_name(split)}, {len(items):,} images"
    return FileExamples("elpv", where, elpv.LICENCE, asked.spec, items, concepts, ordered=True)


def _from_class_folders(root: Path, asked: _Asked) -> FileExamples:
    listing = list_folder(root, asked.masks)
    split = asked.split
    if split is None:
        split = "test" if listing.has_test or asked.fold is not None else "all"
    where = _name(split)
    if split == "all":
        files = listing.everything()
    else:
        files = listing.split(val_share=asked.val_share, seed=asked.seed, fold=asked.fold, folds=asked.folds)[
            split
        ]
        if listing.groups is not None or asked.fold is not None:
            where += f" of fold {asked.fold or 0} of {asked.folds}"
        elif listing.given is None:
            where += f" by seed {asked.seed}"
    concepts = _required(asked.names, listing.labels)
    groups = dict(zip((file.path for file in listing.files), listing.groups or (), strict=False))
    items = _items(root, files, concepts, groups)
    where += f", {len(items):,} images"
    if known := sum(item.masks is not None for item in items):
        where += f", of {known:,} of which it is known what is marked"
    return FileExamples(root.resolve().name, where, "not stated", asked.spec, items, concepts)


def _from_photographs(root: Path, asked: _Asked) -> FileExamples:
    if asked.split not in (None, "all") or asked.fold is not None:
        raise DataError(
            f"{root}: there are no class folders here, so no splits; leave out --split and --fold"
        )
    if not (asked.masks or (root / "masks").is_dir() or (root / PANOPTIC).is_file()):
        paths = image_files(root) or image_files(root / "images")
        items = _photographs(root, paths, [None] * len(paths))
        where = f"{len(items):,} images without classes"
        return FileExamples(root.resolve().name, where, "not stated", asked.spec, items)
    try:
        found = open_concepts(root, asked.masks)
    except ValueError as error:
        raise DataError(str(error)) from None
    concepts = tuple(Concept(name, asked.names.find(name)) for name in found.concepts)
    meant = sum(bool(concept.classes) for concept in concepts)
    if not meant:
        raise DataError(
            f"{root}: none of the {len(concepts)} concepts marked here is a class of the model, "
            f"such as {concepts[0].name}; name them in a file of classes"
        )
    where = (
        f"{len(found):,} photographs; {meant} of the {len(concepts)} concepts marked in them are classes "
        "of the model, the others are left out"
    )
    items = _photographs(root, found.images, found.masks)
    return FileExamples(root.resolve().name, where, found.licence, asked.spec, items, concepts)


def _photographs(
    root: Path, paths: Sequence[Path], masks: Sequence[tuple[MaskFile, ...] | None]
) -> tuple[Item, ...]:
    groups = read_groups(root, paths) or [None] * len(paths)
    return tuple(
        Item(path.relative_to(root).as_posix(), path, None, theirs, group)
        for path, theirs, group in zip(paths, masks, groups, strict=True)
    )


def _items(
    root: Path, files: Sequence[File], concepts: Sequence[Concept], groups: Mapping[Path, str] | None = None
) -> tuple[Item, ...]:
    return tuple(
        Item(
            file.path.relative_to(root).as_posix(),
            file.path,
            concepts[file.label].classes[0],
            _masks(file),
            (groups or {}).get(file.path),
        )
        for file in sorted(files, key=lambda file: file.path)
    )


def _masks(file: File) -> tuple[MaskFile, ...] | None:
    if isinstance(file.mask, int):
        return None if file.mask == NO_MASK else ()
    return (MaskFile(file.mask, file.label),)


def _without_classes(root: Path) -> bool:
    """Whether the images of a folder lie together, not in folders by class."""
    if (root / PANOPTIC).is_file():
        return True
    if image_files(root / "images"):  # a class may be called so; then there are others beside it
        beside = {path.name for path in folders_in(root)}
        return beside <= {"images", "masks"}
    return bool(image_files(root)) and not holds_folders(root)


def _required(names: ClassNames, labels: Sequence[str]) -> tuple[Concept, ...]:
    """The classes of labelled data, of which each is one of the model."""
    return tuple(Concept(label, (names.require(label),)) for label in labels)


def _parts(split: Split) -> tuple[str, ...]:
    return SPLITS if split == "all" else (split,)


def _name(split: Split) -> str:
    return "all splits" if split == "all" else f"{split} split"
