"""Labelled images in memory, and their stratified split.

Every data set becomes one array of uint8 pixels at the size of the network's input, decoded and
resized once by the very functions that serve requests. So training and serving see the same
pixels, a broken file is found before the first epoch, and an epoch costs no decoding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from konkyo.imaging import UInt8
from konkyo.training.errors import DataError

__all__ = ["NO_MASK", "SPLITS", "DataError", "ImageData", "Images", "Int64", "UInt8", "stratified_split"]

Int64 = npt.NDArray[np.int64]

SPLITS = ("train", "val", "test")

NO_MASK = 255
"""Value of every pixel of a mask that is not known."""


@dataclass(frozen=True)
class Images:
    """Pixels, class indices, and for data with masks where the defect is.

    Attributes:
        pixels: (n, H, W, 3) uint8 RGB.
        labels: (n,) int64.
        masks: (n, H, W) uint8, 1 inside the defect and 0 outside; all ``NO_MASK`` where the mask of
            an image is not known. None for data without masks.

    Raises:
        DataError: they differ in length, or masks and pixels in type or size.
    """

    pixels: UInt8
    labels: Int64
    masks: UInt8 | None = None

    def __post_init__(self) -> None:
        if len(self.pixels) != len(self.labels):
            raise DataError(f"{len(self.pixels)} images but {len(self.labels)} labels")
        if self.masks is None:
            return
        if self.masks.dtype != np.uint8:
            raise DataError(f"masks are uint8, not {self.masks.dtype}")
        if self.masks.shape != self.pixels.shape[:3]:
            raise DataError(f"masks of shape {self.masks.shape} for images of shape {self.pixels.shape}")

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: npt.NDArray[np.integer]) -> Images:
        """A copy of the images at these positions."""
        masks = None if self.masks is None else self.masks[index]
        return Images(self.pixels[index], self.labels[index], masks)


@dataclass(frozen=True)
class ImageData:
    """A data set ready to train on.

    Attributes:
        name: what the card calls it.
        labels: names of the classes; a class index is a position in it.
        train: images the weights are fitted to.
        val: images the best epoch is chosen on.
        test: images that training never looks at.
        licence: of the images.
        citation: how they want to be cited.
        ordered: whether the classes are grades, in the order of ``labels``.
        skipped: the broken files that were left out because the caller allowed it.
        files: of a folder, the paths of each split's images relative to the folder, in order.

    Raises:
        DataError: fewer than 2 classes, an empty split, or masks in only one of train and val.
    """

    name: str
    labels: tuple[str, ...]
    train: Images
    val: Images
    test: Images
    licence: str = "not stated"
    skipped: tuple[str, ...] = ()
    files: Mapping[str, tuple[str, ...]] | None = None
    citation: str | None = None
    ordered: bool = False

    def __post_init__(self) -> None:
        if len(self.labels) < 2:
            raise DataError(f"{self.name}: a classifier needs at least 2 classes, found {len(self.labels)}")
        for split in SPLITS:
            if not len(getattr(self, split)):
                raise DataError(f"{self.name}: the {split} split is empty; add images to every class")
        if (self.train.masks is None) != (self.val.masks is None):
            raise DataError(f"{self.name}: one of train and val has masks and the other has none")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.train.pixels.shape[1:3]
        return int(height), int(width)


def stratified_split(labels: Int64, shares: Sequence[float], seed: int) -> Iterator[Int64]:
    """Split positions so that every class keeps its share in each part.

    Args:
        labels: class indices (n,).
        shares: fractions of the parts after the first, which takes the rest.
        seed: the same seed gives the same split.

    Yields:
        One sorted array of positions a part, the rest first. Every class has at least one image in
        every part.

    Raises:
        DataError: a class has too few images for that.
    """
    generator = np.random.default_rng(seed)
    parts: list[list[Int64]] = [[] for _ in range(len(shares) + 1)]
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        counts = [max(1, round(share * len(members))) for share in shares]
        if sum(counts) >= len(members):
            raise DataError(f"class {label} has {len(members)} images, too few for {len(parts)} splits")
        bounds = np.cumsum(counts)
        *held_out, rest = np.split(members, bounds)
        for part, positions in zip(parts, [rest, *held_out], strict=True):
            part.append(positions)
    for part in parts:
        yield np.sort(np.concatenate(part))
