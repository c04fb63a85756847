"""What the methods share: images out, logits in, maps at any time.

Shape legend: H, W input size, N classes, K targets, b images of a batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from konkyo.imaging import UInt8
from konkyo.models.card import MapKind

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating]
Score = Literal["probability", "logit"]


class Parameters(BaseModel):
    """Base of the parameters of a method; a name or a value it does not know is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Perturbation(ABC):
    """One image being explained.

    Image 0 is the one itself, the others are perturbed. Images and maps depend neither on how many
    are taken at once nor on the other targets, bit for bit, as long as the logits do not.

    Args:
        image: (H, W, 3) uint8.
        targets: K class indices, −1 for the class predicted for ``image``.
        parameters: of the method, an instance of ``parameters``.
    """

    name: ClassVar[str]
    """As in the ``method`` parameter."""
    map_kind: ClassVar[MapKind]
    class_specific: ClassVar[bool] = True
    parameters: ClassVar[type[Parameters]]

    def __init__(self, image: UInt8, targets: Sequence[int], parameters: Parameters) -> None:
        self.image = image
        self.total = 1 + self.count((image.shape[0], image.shape[1]), parameters)
        """Images to take and to feed."""
        self.done = 0
        """Images fed."""
        self.logits: Floats | None = None
        """Of the image itself (N,), once they have been fed."""
        self._targets = np.asarray(targets, np.int64)  # (K,)

    @classmethod
    @abstractmethod
    def count(cls, size: tuple[int, int], parameters: Parameters) -> int:
        """Perturbed images of an image of H, W.

        Raises:
            InvalidParameter: the parameters do not fit the size.
        """

    @abstractmethod
    def perturbed(self, number: int) -> UInt8:
        """Perturbed image ``number``, from 0: (H, W, 3)."""

    @abstractmethod
    def add(self, number: int, scores: Float64) -> None:
        """Count the scores (K,) of perturbed image ``number``."""

    @property
    @abstractmethod
    def maps(self) -> Float32:
        """The maps (K, H, W) by what has been fed; 0 where nothing has."""

    def scores(self, logits: Floats) -> Float64:
        """What is attributed, the softmax of the logits unless a method says otherwise: (b, N) -> (b, N)."""
        return softmax(logits)

    def begin(self, scores: Float64) -> None:  # noqa: B027 - most methods need nothing here
        """Take note of the scores (K,) of the image itself."""

    def take(self, size: int) -> UInt8:
        """The next images that have not been fed, ``size`` of them or what is left: (b, H, W, 3)."""
        numbers = range(self.done, min(self.done + size, self.total))
        images = np.empty((len(numbers), *self.image.shape), np.uint8)
        for place, number in zip(images, numbers, strict=True):
            place[:] = self.perturbed(number - 1) if number else self.image
        return images

    def feed(self, logits: Floats) -> None:
        """Take the logits (b, N) of what was taken last, from its first image on.

        Raises:
            ValueError: more than there are images, or a target is no class.
        """
        if self.done + len(logits) > self.total:
            raise ValueError(f"{len(logits)} logits for {self.total - self.done} images")
        if not self.done and len(logits):
            self.logits = logits[0]
            self._targets = self._resolve(logits[0])
        scores = self.scores(logits)[:, self._targets]  # (b, K)
        for row in scores:
            if self.done:
                self.add(self.done - 1, row)
            else:
                self.begin(row)
            self.done += 1

    def _resolve(self, logits: Floats) -> npt.NDArray[np.int64]:
        if not ((self._targets >= -1) & (self._targets < len(logits))).all():
            raise ValueError(f"targets {self._targets.tolist()} of {len(logits)} classes")
        return np.where(self._targets < 0, logits.argmax(), self._targets)


def softmax(logits: Floats) -> Float64:
    """(b, N) -> (b, N)."""
    raised = logits.astype(np.float64)
    raised = np.exp(raised - raised.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))
