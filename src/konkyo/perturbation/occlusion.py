"""Occlusion (Zeiler and Fergus, ECCV 2014, section 4.2).

A square of one colour slides over the image; where covering it lowers the score of the class, the
score rests on what was covered. With s_c the score and P_u the squares that cover pixel u,

    M_c(u) = mean over P in P_u of  s_c(I) - s_c(I covered by P)

so a map is signed: positive where the class loses by being covered, negative where it gains. The
faithfulness of Grad-CAM was measured against this map (Selvaraju et al., ICCV 2017, section 5.3).

The paper shows the score at each place of a grey square, of a size it does not give. Here each pixel
takes the mean of the squares that cover it, as captum's ``Occlusion`` does, so that the map lies on the
image without shifts. The last squares of a row or column end at the edge instead of reaching over
it, so that all are of one size and their drops compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field

from konkyo.errors import InvalidParameter
from konkyo.imaging import UInt8
from konkyo.models.card import MapKind
from konkyo.perturbation import register
from konkyo.perturbation.base import Float32, Float64, Floats, Parameters, Perturbation, Score, softmax
from konkyo.perturbation.fill import Fill, filling


class OcclusionParameters(Parameters):
    """Parameters of ``Occlusion``; lengths in pixels of the network's input."""

    patch: int | None = Field(
        default=None, ge=1, description="side of the square; default: a seventh of the shorter side"
    )
    stride: int | None = Field(
        default=None, ge=1, description="from a square to the next; default: half of the side"
    )
    fill: Fill = Field(default="grey", description="what covers: grey, mean (of the image), black or blur")
    score: Score = Field(default="probability", description="what drops: the probability or the logit")


@register
class Occlusion(Perturbation):
    """Mean drop of the score over the squares that cover a pixel, signed.

    Raises:
        InvalidParameter: the square is larger than the image, or squares leave pixels between them.

    Example:
        >>> occlusion = Occlusion(np.zeros((28, 28, 3), np.uint8), [-1], OcclusionParameters())
        >>> occlusion.total, occlusion.take(16).shape  # the image, and 13 x 13 squares of 4, stride 2
        (170, (16, 28, 28, 3))
    """

    name: ClassVar[str] = "occlusion"
    map_kind: ClassVar[MapKind] = "score_drop"
    parameters: ClassVar[type[Parameters]] = OcclusionParameters

    def __init__(self, image: UInt8, targets: Sequence[int], parameters: OcclusionParameters) -> None:
        super().__init__(image, targets, parameters)
        height, width = image.shape[:2]
        patch, rows, columns = _grid((height, width), parameters)
        self._squares = [
            (slice(row, row + patch), slice(column, column + patch)) for row in rows for column in columns
        ]
        self._fill = filling(image, parameters.fill)
        self._logit = parameters.score == "logit"
        self._whole = np.zeros(len(targets))  # scores of the image itself
        self._drops = np.zeros((len(targets), height, width))
        self._covered = np.zeros((height, width))

    @classmethod
    def count(cls, size: tuple[int, int], parameters: Parameters) -> int:
        """See ``Perturbation.count``."""
        assert isinstance(parameters, OcclusionParameters)
        _, rows, columns = _grid(size, parameters)
        return len(rows) * len(columns)

    def perturbed(self, number: int) -> UInt8:
        """See ``Perturbation.perturbed``."""
        square = self._squares[number]
        covered = self.image.copy()
        covered[square] = self._fill[square]
        return covered

    def scores(self, logits: Floats) -> Float64:
        """See ``Perturbation.scores``."""
        return logits.astype(np.float64) if self._logit else softmax(logits)

    def begin(self, scores: Float64) -> None:
        """See ``Perturbation.begin``."""
        self._whole = scores

    def add(self, number: int, scores: Float64) -> None:
        """See ``Perturbation.add``."""
        square = self._squares[number]
        self._drops[:, *square] += (self._whole - scores)[:, None, None]
        self._covered[square] += 1

    @property
    def maps(self) -> Float32:
        """See ``Perturbation.maps``."""
        return np.asarray(self._drops / np.maximum(self._covered, 1), np.float32)


def square(size: tuple[int, int], parameters: OcclusionParameters) -> tuple[int, int]:
    """Side of the squares and the step from one to the next, for an input of H, W.

    Raises:
        InvalidParameter: as ``Occlusion``.
    """
    shorter = min(size)
    patch = parameters.patch or max(1, round(shorter / 7))
    stride = parameters.stride or max(1, patch // 2)
    if patch > shorter:
        raise InvalidParameter(
            f"patch: {patch} pixels, and the network's input has {shorter}", parameter="patch"
        )
    if stride > patch:
        raise InvalidParameter(
            f"stride: {stride} pixels leave gaps between patches of {patch}", parameter="stride"
        )
    return patch, stride


def _grid(size: tuple[int, int], parameters: OcclusionParameters) -> tuple[int, list[int], list[int]]:
    """Side of the squares, and where they begin, down and across.

    Raises:
        InvalidParameter: as ``Occlusion``.
    """
    patch, stride = square(size, parameters)
    rows, columns = ([*range(0, side - patch, stride), side - patch] for side in size)
    return patch, rows, columns
