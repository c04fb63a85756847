"""Image files read into splits: decoded by several threads, each as a request's would be."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from konkyo.errors import KonkyoError
from konkyo.imaging import ResizeMode, decode, open_image, prepare
from konkyo.training.data import NO_MASK, SPLITS, ImageData, Images, Int64, UInt8
from konkyo.training.errors import DataError
from konkyo.training.masks import read_mask

MEMORY_LIMIT = 2**30
"""Bytes of pixels that are kept in memory; more go to a temporary file."""


@dataclass(frozen=True)
class File:
    """An image file.

    Attributes:
        path: of the image.
        label: its class index.
        mask: path of its mask, or the value of the whole mask: 0 without a defect, ``NO_MASK`` where
            it is not known.
    """

    path: Path
    label: int
    mask: Path | int = NO_MASK


@dataclass(frozen=True)
class Reader:
    """How files become pixels.

    Attributes:
        image_size: height and width of the network's input.
        resize_mode: how an image that is not square is brought to it.
        skip_broken: leave out images that cannot be read instead of refusing them all.
        memory_limit: pixels of more bytes than this are kept in a temporary file.
    """

    image_size: int
    resize_mode: ResizeMode = "center_crop"
    skip_broken: bool = False
    memory_limit: int = MEMORY_LIMIT

    def read(
        self,
        name: str,
        root: Path,
        labels: tuple[str, ...],
        splits: Mapping[str, Sequence[File]],
        licence: str = "not stated",
    ) -> ImageData:
        """Read every file of every split.

        Args:
            name: what the card calls the data.
            root: the folder to which file names are relative.
            labels: names of the classes.
            splits: the files of train, val and test. There are masks if one of them has one.
            licence: of the images.

        Raises:
            DataError: an image or mask cannot be read, or a split has lost a class to broken files.
        """
        wanted = [(split, file) for split in SPLITS for file in splits[split]]
        side = self.image_size
        pixels = _allocate((len(wanted), side, side, 3), self.memory_limit)
        masked = any(file.mask != NO_MASK for _, file in wanted)
        masks = _allocate((len(wanted), side, side), self.memory_limit) if masked else None
        kept: dict[str, list[File]] = {split: [] for split in SPLITS}
        skipped: list[str] = []
        with ThreadPoolExecutor(_threads()) as pool:
            decoded = pool.map(lambda item: self._read(item[1], masked=masked), wanted)
            for (split, file), result in zip(wanted, decoded, strict=True):
                if not isinstance(result, DataError):
                    position = sum(map(len, kept.values()))
                    pixels[position] = result[0]
                    if masks is not None:
                        masks[position] = result[1]
                    kept[split].append(file)
                elif self.skip_broken:
                    skipped.append(_relative(file, root))
                else:
                    pool.shutdown(cancel_futures=True)
                    raise result
        for split in SPLITS:
            lost = {file.label for file in splits[split]} - {file.label for file in kept[split]}
            if lost:
                raise DataError(f"{root}: {split} has no readable image of class {labels[min(lost)]}")
        bounds = np.cumsum([0, *(len(kept[split]) for split in SPLITS)])
        train, val, test = (
            Images(pixels[start:end], labels_of(kept[split]), None if masks is None else masks[start:end])
            for split, start, end in zip(SPLITS, bounds[:-1], bounds[1:], strict=True)
        )
        files = {split: tuple(_relative(file, root) for file in kept[split]) for split in SPLITS}
        return ImageData(name, labels, train, val, test, licence, tuple(skipped), files)

    def _read(self, file: File, *, masked: bool) -> tuple[UInt8, UInt8 | int] | DataError:
        """Pixels (H, W, 3) and mask, (H, W) or one value for all, or what is wrong with a file."""
        size = (self.image_size, self.image_size)
        path = file.path
        try:
            pixels, geometry = prepare(decode(open_image(path.read_bytes())), size, mode=self.resize_mode)
            if not masked or isinstance(file.mask, int):
                return pixels, file.mask if isinstance(file.mask, int) else NO_MASK
            path = file.mask
            return pixels, read_mask(path, geometry)
        except (KonkyoError, DataError, OSError) as error:
            return DataError(f"{path}: {error}")


def labels_of(files: Sequence[File]) -> Int64:
    """Class indices (n,) of the files."""
    return np.array([file.label for file in files], dtype=np.int64)


def _allocate(shape: tuple[int, ...], memory_limit: int) -> UInt8:
    needed = int(np.prod(shape, dtype=np.int64))
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


def _relative(file: File, root: Path) -> str:
    return file.path.relative_to(root).as_posix()
