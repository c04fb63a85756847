"""The files of a folder of class folders, and their splits; nothing is decoded.

``folder.py`` says which layouts are read. Training reads all files of the splits that are made here,
evaluation one at a time, so both mean the same images by ``test``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np

from konkyo.imaging import extensions
from konkyo.training.data import NO_MASK, SPLITS, stratified_split
from konkyo.training.errors import DataError
from konkyo.training.folds import fold_split
from konkyo.training.groups import GROUPS, read_groups
from konkyo.training.reading import File, labels_of

TEST_SHARE = 0.1
"""Share of the images kept for the test where the folder has no test split of its own."""


@dataclass(frozen=True)
class Listing:
    """A folder of class folders.

    Attributes:
        root: the folder.
        labels: the classes.
        files: of the train folder where splits are given, and otherwise all.
        given: files of the val and test folders that there are; None without a train folder.
        groups: of each of ``files``, where the folder names them.
    """

    root: Path
    labels: tuple[str, ...]
    files: tuple[File, ...]
    given: Mapping[str, tuple[File, ...]] | None = None
    groups: tuple[str, ...] | None = None

    @property
    def has_test(self) -> bool:
        """Whether the folder itself says which images are for the test."""
        return self.groups is not None or "test" in (self.given or ())

    def everything(self) -> list[File]:
        """The files of all splits."""
        return [*self.files, *chain(*(self.given or {}).values())]

    def split(
        self, *, val_share: float = 0.1, seed: int = 0, fold: int | None = None, folds: int = 5
    ) -> dict[str, list[File]]:
        """The files of train, val and test.

        Args:
            val_share: share kept for validation where there is no val folder.
            seed: of the split; with folds, of what validates.
            fold: which of the folds is the test split. None: the first where there are groups, and
                otherwise a random part of ``TEST_SHARE``.
            folds: how many there are.

        Raises:
            DataError: a class has too few images or groups, or there are folds beside given splits.
        """
        shares = {"val": val_share, "test": TEST_SHARE}
        if self.given is not None:
            if fold is not None:
                raise _no_folds(self.root)
            given = {split: list(files) for split, files in self.given.items()}
            return self._carve({split: shares[split] for split in shares if split not in given}, seed) | given
        if fold is None and self.groups is None:
            return self._carve(shares, seed)
        groups = None
        if self.groups is not None:
            groups = np.unique(self.groups, return_inverse=True)[1].astype(np.int64)
        parts = fold_split(
            labels_of(self.files),
            groups,
            self.labels,
            fold=fold or 0,
            folds=folds,
            val_share=val_share,
            seed=seed,
        )
        return {
            split: [self.files[position] for position in part]
            for split, part in zip(SPLITS, parts, strict=True)
        }

    def _carve(self, shares: Mapping[str, float], seed: int) -> dict[str, list[File]]:
        labels = labels_of(self.files)
        for label, count in enumerate(np.bincount(labels, minlength=len(self.labels))):
            if count <= len(shares):
                folder = next(file.path.parent for file in self.files if file.label == label)
                raise DataError(
                    f"{folder}: {count} images are too few to split; at least {len(shares) + 1} are needed"
                )
        positions = stratified_split(labels, list(shares.values()), seed)
        return {
            split: [self.files[position] for position in part]
            for split, part in zip(["train", *shares], positions, strict=True)
        }


def list_folder(root: Path, masks: Path | None = None) -> Listing:
    """The files of a folder, with their masks.

    Args:
        root: the folder.
        masks: the folder of the masks, ``CLASS/STEM.png``; default: that of the second layout.

    Raises:
        DataError: the folder is missing, empty, or of none of the layouts; the splits
            differ in their classes; masks or groups do not belong to the images.
    """
    if not root.exists():
        raise DataError(f"{root}: there is no such folder")
    if not root.is_dir():
        raise DataError(f"{root}: not a folder")
    # A class may be called "train" or "images": then its folder holds images, not class folders.
    if holds_folders(root / "train"):
        if (root / GROUPS).exists():
            raise _no_folds(root)
        listing = _list_given(root)
    else:
        labels, files = _list_flat(root)
        groups = read_groups(root, [file.path for file in files])
        listing = Listing(root, labels, tuple(files), groups=groups)
    if masks is None and holds_folders(root / "images") and (root / "masks").is_dir():
        masks = root / "masks"
    return listing if masks is None else _masked(masks, listing)


def _no_folds(root: Path) -> DataError:
    return DataError(f"{root / 'train'}: folds and {GROUPS} are for folders without given splits")


def _list_flat(root: Path) -> tuple[tuple[str, ...], list[File]]:
    if not holds_folders(root / "images"):
        return _class_folders(root)
    _refuse_others(root / "images", ("masks",))
    return _class_folders(root / "images")


def _list_given(root: Path) -> Listing:
    _refuse_others(root / "train", ("val", "test"))
    labels, files = _class_folders(root / "train")
    given: dict[str, tuple[File, ...]] = {}
    for split in ("val", "test"):
        if (root / split).is_dir():
            theirs, found = _class_folders(root / split)
            if theirs != labels:
                differing = ", ".join(sorted(set(theirs) ^ set(labels)))
                raise DataError(f"{root / split}: its classes are not those of train; differing: {differing}")
            given[split] = tuple(found)
    return Listing(root, labels, tuple(files), given)


def _masked(root: Path, listing: Listing) -> Listing:
    """The same with masks; a class counts as having some if any split has one."""
    folders = {folder.name for folder in folders_in(root)} if root.is_dir() else set()
    if not folders or not folders <= set(listing.labels):
        raise DataError(f"{root}: expected folders named as the classes: {', '.join(listing.labels)}")
    together = sorted(listing.everything(), key=lambda file: file.path)
    by_path = {file.path: file for file in _with_masks(root, listing.labels, together)}

    def masked(files: Iterable[File]) -> tuple[File, ...]:
        return tuple(by_path[file.path] for file in files)

    given = listing.given and {split: masked(files) for split, files in listing.given.items()}
    return replace(listing, files=masked(listing.files), given=given)


def _with_masks(root: Path, labels: tuple[str, ...], files: list[File]) -> list[File]:
    masked: list[File] = []
    for label, name in enumerate(labels):
        theirs = [file for file in files if file.label == label]
        if not (root / name).is_dir():
            masked += [replace(file, mask=0) for file in theirs]
            continue
        found = [root / name / f"{file.path.stem}.png" for file in theirs]
        if len(set(found)) < len(found):
            shared = max(found, key=found.count)
            raise DataError(f"{shared}: would be the mask of several images; give them different names")
        if not any(path.is_file() for path in found):
            raise DataError(f"{root / name}: no mask of any image; one of them would be {found[0].name}")
        masked += [
            replace(file, mask=path if path.is_file() else NO_MASK)
            for file, path in zip(theirs, found, strict=True)
        ]
    return masked


def _refuse_others(folder: Path, siblings: tuple[str, ...]) -> None:
    for other in folders_in(folder.parent):
        if other.name not in (folder.name, *siblings):
            raise DataError(f"{other}: not expected beside {folder}; there may be {' and '.join(siblings)}")


def _class_folders(root: Path) -> tuple[tuple[str, ...], list[File]]:
    folders = folders_in(root)
    if not folders:
        raise DataError(f"{root}: no class folders here; expected {root / 'CLASS' / 'IMAGE'}")
    files: list[File] = []
    for label, folder in enumerate(folders):
        images = image_files(folder)
        if not images:
            raise DataError(f"{folder}: no images in this class folder ({' '.join(sorted(extensions()))})")
        files += [File(path, label) for path in images]
    return tuple(folder.name for folder in folders), files


def image_files(folder: Path) -> list[Path]:
    """The images in a folder by their extension, sorted; none of a folder that does not exist."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in found if _is_image(path))


def holds_folders(folder: Path) -> bool:
    """Whether it exists and has folders in it, hidden ones not counted."""
    return folder.is_dir() and bool(folders_in(folder))


def folders_in(root: Path) -> list[Path]:
    """The folders in a folder, sorted, hidden ones not counted."""
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in extensions() and not path.name.startswith(".") and path.is_file()
