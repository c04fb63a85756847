"""A folder of class folders as a data set.

Three layouts are read::

    ROOT/CLASS/*.jpg            split here, stratified by class and fixed by the seed
    ROOT/images/CLASS/*.jpg     the same, with ROOT/masks/CLASS/STEM.png for images whose defect is
                                marked: what is not black is inside
    ROOT/train/CLASS/*.jpg      with ROOT/val/CLASS and ROOT/test/CLASS; of these two, one that does
                                not exist is taken from train, stratified and fixed by the seed

The classes are the names of the folders, sorted. Files that are not images by their extension,
hidden files and folders inside a class folder are ignored.

Where there are masks, a class without a folder of its own in them has no defects: its masks are 0.
Of any other class, an image without a mask file has a mask that is not known.

In the first two layouts ``ROOT/groups.csv`` may say which images show the same object. Then no
object is in two splits, and the test split is a fold, which does not depend on the seed.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np

from konkyo.imaging import ResizeMode, extensions
from konkyo.training.data import NO_MASK, SPLITS, ImageData, stratified_split
from konkyo.training.errors import DataError
from konkyo.training.folds import fold_split
from konkyo.training.groups import GROUPS, read_groups
from konkyo.training.reading import MEMORY_LIMIT, File, Reader, labels_of

TEST_SHARE = 0.1
"""Share of the images kept for the test where the folder has no test split of its own."""


def load_folder(
    root: Path,
    *,
    image_size: int,
    resize_mode: ResizeMode = "center_crop",
    val_share: float = 0.1,
    seed: int = 0,
    fold: int | None = None,
    folds: int = 5,
    masks: Path | None = None,
    skip_broken: bool = False,
    memory_limit: int = MEMORY_LIMIT,
) -> ImageData:
    """Read a folder of class folders, every image decoded and resized as a request's would be.

    Args:
        root: the folder.
        image_size: height and width of the network's input.
        resize_mode: how an image that is not square is brought to it.
        val_share: share kept for validation where there is no val folder.
        seed: of the split; with folds, of what validates.
        fold: which of the folds is the test split. None: the first where there are groups, and
            otherwise a random part of ``TEST_SHARE``.
        folds: how many there are.
        masks: the folder of the masks, ``CLASS/STEM.png``; default: that of the second layout.
        skip_broken: leave out images that cannot be read instead of refusing the folder.
        memory_limit: pixels of more bytes than this are kept in a temporary file.

    Returns:
        The three splits, their files, and the files that were skipped.

    Raises:
        DataError: the folder is missing, empty, of one class, or of none of the layouts; a class has
            too few images or groups; the splits differ in their classes; masks or groups do not
            belong to the images; an image cannot be read.
    """
    if not root.exists():
        raise DataError(f"{root}: there is no such folder")
    if not root.is_dir():
        raise DataError(f"{root}: not a folder")
    # A class may be called "train" or "images": then its folder holds images, not class folders.
    if _holds_classes(root / "train"):
        if fold is not None or (root / GROUPS).exists():
            raise DataError(f"{root / 'train'}: folds and {GROUPS} are for folders without given splits")
        labels, splits = _list_given(root, val_share, seed)
    else:
        labels, files = _list_flat(root)
        groups = read_groups(root, [file.path for file in files])
        if fold is None and groups is None:
            splits = _carve(labels, files, {"val": val_share, "test": TEST_SHARE}, seed)
        else:
            parts = fold_split(
                labels_of(files),
                groups,
                labels,
                fold=fold or 0,
                folds=folds,
                val_share=val_share,
                seed=seed,
            )
            splits = {
                split: [files[position] for position in part]
                for split, part in zip(SPLITS, parts, strict=True)
            }
    reader = Reader(image_size, resize_mode, skip_broken, memory_limit)
    if masks is None and _holds_classes(root / "images") and (root / "masks").is_dir():
        masks = root / "masks"
    if masks is not None:
        splits = _masked(masks, labels, splits)
    return reader.read(root.resolve().name, root, labels, splits)


def _list_flat(root: Path) -> tuple[tuple[str, ...], list[File]]:
    """The classes and files of a folder without splits; nothing is opened."""
    if not _holds_classes(root / "images"):
        return _class_folders(root)
    _refuse_others(root / "images", ("masks",))
    return _class_folders(root / "images")


def _masked(root: Path, labels: tuple[str, ...], splits: dict[str, list[File]]) -> dict[str, list[File]]:
    """The same files with their masks; a class counts as having some if any split has one."""
    folders = {folder.name for folder in _folders(root)} if root.is_dir() else set()
    if not folders or not folders <= set(labels):
        raise DataError(f"{root}: expected folders named as the classes: {', '.join(labels)}")
    together = sorted(chain(*splits.values()), key=lambda file: file.path)
    by_path = {file.path: file for file in _with_masks(root, labels, together)}
    return {split: [by_path[file.path] for file in files] for split, files in splits.items()}


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


def _list_given(root: Path, val_share: float, seed: int) -> tuple[tuple[str, ...], dict[str, list[File]]]:
    """The classes, and the files of each split of a folder with splits; nothing is opened."""
    _refuse_others(root / "train", ("val", "test"))
    labels, files = _class_folders(root / "train")
    given: dict[str, list[File]] = {}
    for split in ("val", "test"):
        if (root / split).is_dir():
            theirs, given[split] = _class_folders(root / split)
            if theirs != labels:
                differing = ", ".join(sorted(set(theirs) ^ set(labels)))
                raise DataError(f"{root / split}: its classes are not those of train; differing: {differing}")
    shares = {"val": val_share, "test": TEST_SHARE}
    missing = {split: share for split, share in shares.items() if split not in given}
    return labels, _carve(labels, files, missing, seed) | given


def _refuse_others(folder: Path, siblings: tuple[str, ...]) -> None:
    for other in _folders(folder.parent):
        if other.name not in (folder.name, *siblings):
            raise DataError(f"{other}: not expected beside {folder}; there may be {' and '.join(siblings)}")


def _class_folders(root: Path) -> tuple[tuple[str, ...], list[File]]:
    folders = _folders(root)
    if not folders:
        raise DataError(f"{root}: no class folders here; expected {root / 'CLASS' / 'IMAGE'}")
    if len(folders) == 1:
        raise DataError(f"{root}: a classifier needs at least 2 classes, found only {folders[0].name}")
    files: list[File] = []
    for label, folder in enumerate(folders):
        images = sorted(path for path in folder.iterdir() if _is_image(path))
        if not images:
            raise DataError(f"{folder}: no images in this class folder ({' '.join(sorted(extensions()))})")
        files += [File(path, label) for path in images]
    return tuple(folder.name for folder in folders), files


def _carve(
    labels: tuple[str, ...], files: list[File], shares: dict[str, float], seed: int
) -> dict[str, list[File]]:
    counts = np.bincount(labels_of(files), minlength=len(labels))
    for label, count in enumerate(counts):
        if count <= len(shares):
            folder = next(file.path.parent for file in files if file.label == label)
            raise DataError(
                f"{folder}: {count} images are too few to split; at least {len(shares) + 1} are needed"
            )
    positions = stratified_split(labels_of(files), list(shares.values()), seed)
    return {
        split: [files[position] for position in part]
        for split, part in zip(["train", *shares], positions, strict=True)
    }


def _holds_classes(folder: Path) -> bool:
    return folder.is_dir() and bool(_folders(folder))


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in extensions() and not path.name.startswith(".") and path.is_file()
