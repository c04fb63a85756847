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

from pathlib import Path

from konkyo.imaging import ResizeMode
from konkyo.training.data import ImageData
from konkyo.training.errors import DataError
from konkyo.training.listing import list_folder
from konkyo.training.reading import MEMORY_LIMIT, Reader


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
    listing = list_folder(root, masks)
    if len(listing.labels) < 2:
        raise DataError(f"{root}: a classifier needs at least 2 classes, found only {listing.labels[0]}")
    splits = listing.split(val_share=val_share, seed=seed, fold=fold, folds=folds)
    reader = Reader(image_size, resize_mode, skip_broken, memory_limit)
    return reader.read(root.resolve().name, root, listing.labels, splits)
