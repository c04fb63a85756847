"""Data sets by name: ``cifar10``, ``elpv``, ``surfaces``, or the path of a folder of class folders."""

from __future__ import annotations

from pathlib import Path

from konkyo.training.cifar import load_cifar10
from konkyo.training.config import TrainConfig
from konkyo.training.data import DataError, ImageData
from konkyo.training.elpv import load_elpv
from konkyo.training.folder import load_folder
from konkyo.training.surfaces import generate_surfaces

SURFACES = 2000
"""Images of ``surfaces``; the same ones for every seed."""


def open_data(config: TrainConfig) -> ImageData:
    """The data of a run.

    ``cifar10`` is looked for in ``config.data_root`` (``./data`` if not given) and in its folder
    ``cifar10``; ``elpv`` is an installed package; ``surfaces`` are drawn, of 64 pixels if no
    size is given. Any other name is the path of a folder, relative to ``config.data_root`` if given;
    write ``./cifar10`` for a folder with one of these names.

    Raises:
        DataError: there is no such data, or it cannot be trained on.
    """
    if config.data == "cifar10":
        refuse_layout(config.data, config.fold, config.masks)
        if config.image_size not in (None, 32):
            raise DataError("cifar10 has images of 32x32 pixels; leave out --image-size")
        root = Path(config.data_root or "data")
        return load_cifar10(root, val_share=config.val_share, seed=config.seed)
    if config.data == "surfaces":
        refuse_layout(config.data, config.fold, config.masks)
        return generate_surfaces(
            SURFACES, config.image_size or 64, val_share=config.val_share, split_seed=config.seed
        )
    if config.image_size is None:
        raise DataError(f"{config.data} needs --image-size, the sides of the network's input")
    if config.data == "elpv":
        refuse_layout(config.data, config.fold, config.masks)
        return load_elpv(
            image_size=config.image_size,
            val_share=config.val_share,
            seed=config.seed,
            skip_broken=config.skip_broken,
        )
    return load_folder(
        Path(config.data_root or ".") / config.data,
        image_size=config.image_size,
        resize_mode=config.resize_mode,
        val_share=config.val_share,
        seed=config.seed,
        fold=config.fold,
        folds=config.folds,
        skip_broken=config.skip_broken,
        masks=None if config.masks is None else Path(config.masks),
    )


def refuse_layout(name: str, fold: int | None, masks: str | Path | None) -> None:
    """Refuse what only makes sense for a folder.

    Raises:
        DataError: a fold or masks are given.
    """
    if fold is not None:
        raise DataError(f"{name} has a test split of its own; leave out --fold")
    if masks is not None:
        raise DataError(f"masks belong to a folder of images, not to {name}")
