"""Which images each device sees at each step.

Order and augmentation are drawn for the whole batch before it is shared out, so the images of a
step do not depend on the number of devices, and an epoch depends on (seed, epoch) alone.

Shape legend: n images of the split, b images of this device in the batch, H, W input size.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from konkyo.training.augment import crop_and_flip, vary_light
from konkyo.training.config import TrainConfig
from konkyo.training.data import NO_MASK, Images
from konkyo.training.errors import TrainingError

NO_LABEL = -100
"""Target of an image that does not count; cross_entropy's own default."""

Batch = tuple[Tensor, Tensor, Tensor | None]
"""Pixels (b, H, W, 3) uint8, labels (b,) int64 and, for data with masks, masks (b, H, W) uint8."""


class TrainingBatches:
    """The augmented batches of this device.

    Args:
        fabric: knows the devices.
        config: size, augmentation and seed.
        images: the split (n).

    Raises:
        TrainingError: fewer images than devices, or a crop padding that does not suit the images.
    """

    def __init__(self, fabric: Fabric, config: TrainConfig, images: Images) -> None:
        self._fabric, self._config, self._images = fabric, config, images
        # The same number on each device, and no more than there are.
        self._size = min(config.batch_size, len(images)) // fabric.world_size * fabric.world_size
        if not self._size:
            raise TrainingError(f"{len(images)} training images are too few for {fabric.world_size} devices")
        side = min(images.pixels.shape[1:3])
        self._padding = side // 8 if config.crop_padding is None else config.crop_padding
        if self._padding >= side:
            raise TrainingError(f"crop_padding {self._padding} must be smaller than the image sides, {side}")

    def __len__(self) -> int:
        """Steps of an epoch."""
        return len(self._images) // self._size

    def epoch(self, seed: int) -> Iterator[Batch]:
        """The batch of every step, on the device.

        What does not fill a batch waits for the next epoch, whose order is another.
        """
        generator = torch.Generator().manual_seed(seed)
        mine = slice(self._fabric.global_rank, None, self._fabric.world_size)
        order = torch.randperm(len(self._images), generator=generator).numpy()
        for step in range(len(self)):
            batch = self._images.take(order[step * self._size : (step + 1) * self._size])
            pixels, masks = crop_and_flip(
                torch.from_numpy(batch.pixels),
                None if batch.masks is None else torch.from_numpy(batch.masks),
                padding=self._padding,
                flip=self._config.flip,
                flip_vertical=self._config.flip_vertical,
                generator=generator,
            )
            pixels = vary_light(pixels, amount=self._config.light, generator=generator)
            labels = torch.from_numpy(batch.labels)
            device = self._fabric.device
            yield (
                pixels[mine].to(device),
                labels[mine].to(device),
                None if masks is None else masks[mine].to(device),
            )


def evaluation_batches(fabric: Fabric, images: Images, batch_size: int) -> Iterator[Batch]:
    """This device's part of a whole split, in order and as it is.

    Every forward exchanges the batch norm's buffers, so the devices must make equally many: the
    split is filled up with images whose target is ``NO_LABEL`` and whose mask is ``NO_MASK``.

    Yields:
        Batches on the device.
    """
    filler = -len(images) % fabric.world_size
    index = np.arange(fabric.global_rank, len(images) + filler, fabric.world_size)
    for start in range(0, len(index), batch_size):
        part = index[start : start + batch_size]
        batch = images.take(part % len(images))
        batch.labels[part >= len(images)] = NO_LABEL  # a copy
        if batch.masks is not None:
            batch.masks[part >= len(images)] = NO_MASK
        yield (
            torch.from_numpy(batch.pixels).to(fabric.device),
            torch.from_numpy(batch.labels).to(fabric.device),
            None if batch.masks is None else torch.from_numpy(batch.masks).to(fabric.device),
        )
