"""Augmentation of a whole uint8 batch at once.

Per-image transforms would cost as much as the network itself where images are small, and
torchvision's batched ones draw one random crop for the whole batch.
"""

from __future__ import annotations

import torch
from torch import Tensor


def crop_and_flip(images: Tensor, *, padding: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Shift each image by up to ``padding`` pixels, the border filled by reflection, and mirror half of them.

    Args:
        images: (B, H, W, D), any dtype.
        padding: largest shift in pixels, smaller than H and W.
        flip: mirror left-right with probability one half.
        generator: a CPU generator; the same state gives the same batch on every device.

    Returns:
        (B, H, W, D), the dtype of ``images``.
    """
    batch, height, width, _ = images.shape
    dy, dx = torch.randint(0, 2 * padding + 1, (2, batch), generator=generator)
    mirrored = torch.rand(batch, generator=generator) < 0.5 if flip else torch.zeros(batch, dtype=torch.bool)
    across = torch.arange(width)
    rows = dy[:, None] + torch.arange(height)  # (B, H)
    columns = dx[:, None] + torch.where(mirrored[:, None], across.flip(0), across)  # (B, W)
    # Reflection through an index instead of F.pad, which does not know uint8.
    rows = _reflect(rows - padding, height).to(images.device)
    columns = _reflect(columns - padding, width).to(images.device)
    item = torch.arange(batch, device=images.device)
    return images[item[:, None, None], rows[:, :, None], columns[:, None, :]]


def _reflect(index: Tensor, size: int) -> Tensor:
    """Mirror indices at 0 and size - 1, without repeating the edge."""
    index = index.abs()
    return torch.where(index >= size, 2 * (size - 1) - index, index)
