"""What a model is evaluated on: images as its network would see them, and what is known of each.

Shape legend: B batch, H, W input size, N classes, K targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from konkyo.imaging import Geometry, UInt8

Bool = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Marked:
    """A thing that somebody marked in an image.

    Attributes:
        name: what it is called: a class, or a concept of the data.
        classes: the class indices that are right for it; of several, the one that scores highest is
            explained.
        mask: (H, W) of the network's input, True inside. All False where the thing lies outside of what
            the network sees: such a mask is never a hit.
        boxes: (n, 4) left, top, right, bottom in pixels of the input, of each instance.
    """

    name: str
    classes: tuple[int, ...]
    mask: Bool
    boxes: Float64


@dataclass(frozen=True)
class Example:
    """One image, and what is known of it.

    Attributes:
        name: that tells it from all others of the data, such as its path.
        pixels: (H, W, 3) uint8 at the network's input.
        geometry: how the input lies in the original.
        truth: class index, None where it is not known.
        marked: what is marked in it, () where nothing is there to be marked, as in an image without a
            defect; None where nobody marked anything.
        group: images of one object share it, so that intervals do not count them as independent; None:
            it stands alone.
    """

    name: str
    pixels: UInt8
    geometry: Geometry
    truth: int | None = None
    marked: tuple[Marked, ...] | None = None
    group: str | None = None


class Examples(Protocol):
    """A data set; nothing is decoded before it is asked for."""

    @property
    def name(self) -> str:
        """As in the report."""
        ...

    @property
    def description(self) -> str:
        """Which part of which data, in words, for the report."""
        ...

    @property
    def licence(self) -> str:
        """Whether and how its pictures may be shown."""
        ...

    @property
    def ordered(self) -> bool:
        """Whether the classes are grades."""
        ...

    def __len__(self) -> int:
        """Their number."""
        ...

    def names(self) -> Sequence[str]:
        """Of every example, without opening any."""
        ...

    def truths(self) -> Sequence[int | None]:
        """Class index of every example where it is known, without opening any."""
        ...

    def digest(self) -> str:
        """Of what the examples hold, so that images and masks that changed under their names are noticed."""
        ...

    def read(self, index: int) -> Example:
        """One of them; called from several threads.

        Raises:
            ValueError: a file is missing or damaged.
        """
        ...


@dataclass(frozen=True)
class Batch:
    """Examples with what the model says of them, on the device.

    Attributes:
        examples: B of them.
        pixels: (B, H, W, 3) uint8.
        logits: (B, N) float32.
    """

    examples: Sequence[Example]
    pixels: Tensor
    logits: Tensor

    def __len__(self) -> int:
        return len(self.examples)

    def labelled(self) -> tuple[list[int], Tensor]:
        """Positions of the n images whose class is known, and their classes (n,) int64, on the device."""
        truths = {place: item.truth for place, item in enumerate(self.examples) if item.truth is not None}
        return list(truths), torch.tensor(list(truths.values()), dtype=torch.int64, device=self.logits.device)
