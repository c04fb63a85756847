"""RISE, randomized input sampling for explanation (Petsiuk et al., BMVC 2018, equation 6).

The image is seen through N random masks, and the masks through which the class is recognised add up:

    S_c = 1 / (E[M] N)  sum_i  f_c(I * M_i) M_i              E[M] = p

with f_c the softmax probability. A mask (section 3.2) is a grid of s x s cells, each 1 with
probability p, else 0, enlarged bilinearly to (s + 1) cells a side and cropped to the image at a
random shift of up to a cell. At pixel u the map estimates the mean score given that u is seen: it is
never negative, has no natural zero, and is to be read by its differences.

What differs from the paper: a cell's side is H / s rounded up, as in the authors' own code, since
rounded down the crop may not fit; the masked image is rounded to 8 bits; pixels fade to black, as the
paper has it, where the authors' code fades the normalised image to zero, which is the mean colour of
the training data (``fill`` gives other choices). The paper takes 4,000 masks for VGG-16 and 8,000 for
ResNet-50; the default here is fewer, for a coarser map in a shorter time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import cv2
import numpy as np
from pydantic import Field

from konkyo.imaging import UInt8
from konkyo.models.card import MapKind
from konkyo.perturbation import register
from konkyo.perturbation.base import Float32, Float64, Parameters, Perturbation
from konkyo.perturbation.fill import Fill, filling


class RiseParameters(Parameters):
    """Parameters of ``Rise``."""

    masks: int = Field(default=2000, ge=1, le=100_000, description="number of masks")
    cells: int = Field(default=7, ge=1, le=64, description="cells of a mask, a side")
    probability: float = Field(default=0.5, gt=0, lt=1, description="that a cell is seen")
    fill: Fill = Field(default="black", description="what is under the mask: grey, mean, black or blur")
    seed: int = Field(default=0, ge=0, lt=2**63, description="of the masks; the same seed, the same map")


@register
class Rise(Perturbation):
    """Mean score over the masks that show a pixel.

    Masks are made when they are needed and forgotten, each from the seed and its number alone, so
    memory does not grow with N.

    Example:
        >>> rise = Rise(np.zeros((28, 28, 3), np.uint8), [-1, 3], RiseParameters(masks=100))
        >>> rise.total, rise.maps.shape
        (101, (2, 28, 28))
    """

    name: ClassVar[str] = "rise"
    map_kind: ClassVar[MapKind] = "saliency_map"
    parameters: ClassVar[type[Parameters]] = RiseParameters

    def __init__(self, image: UInt8, targets: Sequence[int], parameters: RiseParameters) -> None:
        super().__init__(image, targets, parameters)
        self._parameters = parameters
        self._under = filling(image, parameters.fill).astype(np.float32)
        self._over = image.astype(np.float32) - self._under
        self._sums = np.zeros((len(targets), *image.shape[:2]))

    @classmethod
    def count(cls, size: tuple[int, int], parameters: Parameters) -> int:
        """See ``Perturbation.count``."""
        assert isinstance(parameters, RiseParameters)
        return parameters.masks

    def mask(self, number: int) -> Float32:
        """Mask ``number``, in [0, 1]: (H, W)."""
        cells, probability = self._parameters.cells, self._parameters.probability
        random = np.random.default_rng((self._parameters.seed, number))
        grid = (random.random((cells, cells)) < probability).astype(np.float32)
        height, width = self.image.shape[:2]
        down, across = -(-height // cells), -(-width // cells)  # sides of a cell
        top, left = random.integers((down, across), endpoint=True)
        size = (cells + 1) * across, (cells + 1) * down
        enlarged = cv2.resize(grid, size, interpolation=cv2.INTER_LINEAR)
        return np.asarray(enlarged[top : top + height, left : left + width], np.float32)

    def perturbed(self, number: int) -> UInt8:
        """See ``Perturbation.perturbed``."""
        seen = self._over * self.mask(number)[..., None] + self._under
        return np.asarray(np.rint(seen), np.uint8)

    def add(self, number: int, scores: Float64) -> None:
        """See ``Perturbation.add``."""
        self._sums += scores[:, None, None] * self.mask(number)

    @property
    def maps(self) -> Float32:
        """See ``Perturbation.maps``."""
        seen = max(self.done - 1, 1)
        return np.asarray(self._sums / (seen * self._parameters.probability), np.float32)
