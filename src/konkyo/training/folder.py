"""A folder of class folders as a data set.

Two layouts are read::

    ROOT/CLASS/*.jpg            split here, stratified by class and fixed by the seed
    ROOT/train/CLASS/*.jpg      with ROOT/val/CLASS and ROOT/test/CLASS; of these two, one that does
                                not exist is taken from train, stratified and fixed by the seed

The classes are the names of the folders, sorted. Files that are not images by their extension,
hidden files and folders inside a class folder are ignored.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from konkyo.errors import KonkyoError
from konkyo.imaging import FORMATS, ResizeMode, decode, open_image, prepare
from konkyo.training.data import SPLITS, ImageData, Images, Int64, UInt8, stratified_split
from konkyo.training.errors import DataError

TEST_SHARE = 0.1
"""Share of the images kept for the test where the folder has no test split of its own."""

MEMORY_LIMIT = 2**30
"""Bytes of pixels that are kept in memory; more go to a temporary file."""


@dataclass(frozen=True)
class _File:
    path: Path
    label: int


def load_folder(
    root: Path,
    *,
    image_size: int,
    resize_mode: ResizeMode = "center_crop",
    val_share: float = 0.1,
    seed: int = 0,
    skip_broken: bool = False,
    memory_limit: int = MEMORY_LIMIT,
) -> ImageData:
    """Read a folder of class folders, every image decoded and resized as a request's would be.

    Args:
        root: the folder.
        image_size: height and width of the network's input.
        resize_mode: how an image that is not square is brought to it.
        val_share: share kept for validation where there is no val folder.
        seed: of the split.
        skip_broken: leave out images that cannot be read instead of refusing the folder.
        memory_limit: pixels of more bytes than this are kept in a temporary file.

    Returns:
        The three splits, their files, and the files that were skipped.

    Raises:
        DataError: the folder is missing, empty, of one class, or not of either layout; a class has
            too few images; the splits differ in their classes; an image cannot be read.
    """
    if not root.exists():
        raise DataError(f"{root}: there is no such folder")
    if not root.is_dir():
        raise DataError(f"{root}: not a folder")
    labels, splits = _list(root, val_share, seed)
    wanted = [(split, file) for split in SPLITS for file in splits[split]]
    pixels = _allocate(len(wanted), image_size, memory_limit)
    kept: dict[str, list[_File]] = {split: [] for split in SPLITS}
    skipped: list[str] = []
    with ThreadPoolExecutor(_threads()) as pool:
        decoded = pool.map(lambda item: _read(item[1].path, image_size, resize_mode), wanted)
        for (split, file), image in zip(wanted, decoded, strict=True):
            if not isinstance(image, DataError):
                pixels[sum(map(len, kept.values()))] = image
                kept[split].append(file)
            elif skip_broken:
                skipped.append(_relative(file, root))
            else:
                pool.shutdown(cancel_futures=True)
                raise image
    _require_every_class(root, labels, kept)
    ends = np.cumsum([len(kept[split]) for split in SPLITS])[:-1]
    train, val, test = (
        Images(part, _labels(kept[split]))
        for split, part in zip(SPLITS, np.split(pixels[: len(wanted) - len(skipped)], ends), strict=True)
    )
    files = {split: tuple(_relative(file, root) for file in kept[split]) for split in SPLITS}
    return ImageData(root.resolve().name, labels, train, val, test, skipped=tuple(skipped), files=files)


def _list(root: Path, val_share: float, seed: int) -> tuple[tuple[str, ...], dict[str, list[_File]]]:
    """The classes, and the files of each split; nothing is opened."""
    # A class may be called "train": then its folder holds images, not class folders.
    if not (root / "train").is_dir() or not _folders(root / "train"):
        labels, files = _class_folders(root)
        return labels, _carve(root, labels, files, {"val": val_share, "test": TEST_SHARE}, seed)
    unknown = [folder.name for folder in _folders(root) if folder.name not in SPLITS]
    if unknown:
        raise DataError(
            f"{root / unknown[0]}: not expected beside {root / 'train'}; there may be val and test"
        )
    labels, files = _class_folders(root / "train")
    given: dict[str, list[_File]] = {}
    for split in ("val", "test"):
        if (root / split).is_dir():
            theirs, given[split] = _class_folders(root / split)
            if theirs != labels:
                differing = ", ".join(sorted(set(theirs) ^ set(labels)))
                raise DataError(f"{root / split}: its classes are not those of train; differing: {differing}")
    shares = {"val": val_share, "test": TEST_SHARE}
    missing = {split: share for split, share in shares.items() if split not in given}
    return labels, _carve(root / "train", labels, files, missing, seed) | given


def _class_folders(root: Path) -> tuple[tuple[str, ...], list[_File]]:
    folders = _folders(root)
    if not folders:
        raise DataError(f"{root}: no class folders here; expected {root / 'CLASS' / 'IMAGE'}")
    if len(folders) == 1:
        raise DataError(f"{root}: a classifier needs at least 2 classes, found only {folders[0].name}")
    files: list[_File] = []
    for label, folder in enumerate(folders):
        images = sorted(path for path in folder.iterdir() if _is_image(path))
        if not images:
            raise DataError(f"{folder}: no images in this class folder ({' '.join(sorted(_extensions()))})")
        files += [_File(path, label) for path in images]
    return tuple(folder.name for folder in folders), files


def _carve(
    root: Path, labels: tuple[str, ...], files: list[_File], shares: dict[str, float], seed: int
) -> dict[str, list[_File]]:
    counts = np.bincount(_labels(files), minlength=len(labels))
    for label, count in zip(labels, counts, strict=True):
        if count <= len(shares):
            raise DataError(
                f"{root / label}: {count} images are too few to split; at least {len(shares) + 1} are needed"
            )
    positions = stratified_split(_labels(files), list(shares.values()), seed)
    return {
        split: [files[position] for position in part]
        for split, part in zip(["train", *shares], positions, strict=True)
    }


def _require_every_class(root: Path, labels: tuple[str, ...], kept: dict[str, list[_File]]) -> None:
    for split, files in kept.items():
        lost = set(range(len(labels))) - {file.label for file in files}
        if lost:
            raise DataError(f"{root}: {split} has no readable image of class {labels[min(lost)]}")


def _read(path: Path, size: int, mode: ResizeMode) -> UInt8 | DataError:
    """Pixels (size, size, 3) uint8, or what is wrong with the file."""
    try:
        pixels, _ = prepare(decode(open_image(path.read_bytes())), (size, size), mode=mode)
    except (KonkyoError, OSError) as error:
        return DataError(f"{path}: {error}")
    return pixels


def _allocate(count: int, size: int, memory_limit: int) -> UInt8:
    shape = (count, size, size, 3)
    needed = count * size * size * 3
    if needed <= memory_limit:
        return np.empty(shape, dtype=np.uint8)
    # A mapped file that outgrows its disk kills the process without a word, so ask before.
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < needed:
        raise DataError(
            f"{tempfile.gettempdir()}: {needed / 2**30:.1f} GiB of pixels do not fit into the "
            f"{free / 2**30:.1f} GiB free; set TMPDIR to a larger disk or use smaller images"
        )
    with tempfile.TemporaryFile(prefix="konkyo-") as file:  # the mapping keeps it alive
        return np.memmap(file, dtype=np.uint8, mode="w+", shape=shape)


def _threads() -> int:
    """Pillow frees the interpreter lock while it decodes and resizes."""
    return min(32, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _extensions() and not path.name.startswith(".") and path.is_file()


@cache
def _extensions() -> frozenset[str]:
    return frozenset(
        extension for extension, name in Image.registered_extensions().items() if name in FORMATS
    )


def _labels(files: list[_File]) -> Int64:
    return np.array([file.label for file in files], dtype=np.int64)


def _relative(file: _File, root: Path) -> str:
    return file.path.relative_to(root).as_posix()
