"""Data sets by name: ``cifar10``, or the path of a folder of class folders."""

from __future__ import annotations

from pathlib import Path

from konkyo.training.cifar import load_cifar10
from konkyo.training.config import TrainConfig
from konkyo.training.data import DataError, ImageData
from konkyo.training.folder import load_folder


def open_data(config: TrainConfig) -> ImageData:
    """The data of a run.

    ``cifar10`` is looked for in ``config.data_root`` (``./data`` if not given) and in its folder
    ``cifar10``. Any other name is the path of a folder, relative to ``config.data_root`` if given;
    write ``./cifar10`` for a folder of that name.

    Raises:
        DataError: there is no such data, or it cannot be trained on.
    """
    if config.data == "cifar10":
        if config.image_size not in (None, 32):
            raise DataError("cifar10 has images of 32x32 pixels; leave out --image-size")
        root = Path(config.data_root or "data")
        return load_cifar10(root, val_share=config.val_share, seed=config.seed)
    folder = Path(config.data_root or ".") / config.data
    if config.image_size is None:
        raise DataError(f"{folder}: a folder of images needs --image-size, the sides of the network's input")
    return load_folder(
        folder,
        image_size=config.image_size,
        resize_mode=config.resize_mode,
        val_share=config.val_share,
        seed=config.seed,
        skip_broken=config.skip_broken,
    )
