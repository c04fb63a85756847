"""Augmentation of a whole uint8 batch at once.

Per-image transforms would cost as much as the network itself where images are small, and
torchvision's batched ones draw one random crop for the whole batch.
"""

from __future__ import annotations

import torch
from torch import Tensor


def crop_and_flip(
    images: Tensor,
    masks: Tensor | None,
    *,
    padding: int,
    flip: bool,
    flip_vertical: bool = False,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor | None]:
    """Shift each image by up to ``padding`` pixels, the border filled by reflection, and mirror half of them.

    Args:
        images: (B, H, W, D), any dtype.
        masks: (B, H, W), any dtype; each moves exactly as its image.
        padding: largest shift in pixels, smaller than H and W.
        flip: mirror left-right with probability one half.
        flip_vertical: mirror top-bottom with probability one half, for images that have no up.
        generator: a CPU generator; the same state gives the same batch on every device.

    Returns:
        Both, in their own shapes and dtypes.
    """
    batch, height, width, _ = images.shape
    dy, dx = torch.randint(0, 2 * padding + 1, (2, batch), generator=generator)
    columns = dx[:, None] + _axis(batch, width, mirror=flip, generator=generator)  # (B, W)
    rows = dy[:, None] + _axis(batch, height, mirror=flip_vertical, generator=generator)  # (B, H)
    # Reflection through an index instead of F.pad, which does not know uint8.
    rows = _reflect(rows - padding, height).to(images.device)
    columns = _reflect(columns - padding, width).to(images.device)
    item = torch.arange(batch, device=images.device)
    where = item[:, None, None], rows[:, :, None], columns[:, None, :]
    return images[where], None if masks is None else masks[where]


def vary_light(images: Tensor, *, amount: float, generator: torch.Generator) -> Tensor:
    """Change contrast and brightness of each image, as another lamp or exposure would.

        c (x - 128) + 128 + 128 b,    c in [1 - amount, 1 + amount], b in [-amount, amount]

    Args:
        images: (B, H, W, D) uint8.
        amount: in [0, 1); 0 draws nothing.
        generator: a CPU generator.

    Returns:
        (B, H, W, D) uint8, rounded and clipped.
    """
    if not amount:
        return images
    draws: Tensor = amount * (2 * torch.rand(2, len(images), 1, 1, 1, generator=generator) - 1)
    contrast, brightness = draws.to(images.device)
    varied = (1 + contrast) * (images.float() - 128) + 128 * (1 + brightness)
    light: Tensor = varied.round().clamp(0, 255).to(torch.uint8)
    return light


def _axis(batch: int, size: int, *, mirror: bool, generator: torch.Generator) -> Tensor:
    """Positions (B, size) along one axis, with ``mirror`` from the far end for half of the images.

    Without it nothing is drawn.
    """
    along = torch.arange(size).expand(batch, -1)
    if not mirror:
        return along
    mirrored = torch.rand(batch, generator=generator) < 0.5
    return torch.where(mirrored[:, None], along.flip(1), along)


def _reflect(index: Tensor, size: int) -> Tensor:
    """Mirror indices at 0 and size - 1, without repeating the edge."""
    index = index.abs()
    return torch.where(index >= size, 2 * (size - 1) - index, index)
