"""Stability of a map when the picture is shifted by a few pixels: the map should shift with it.

The image is shifted right, left, down and up; the row or column at the edge is repeated in the place
that becomes free. The map is enlarged bilinearly to the input and shifted back, and compared where both
pictures show the same.

Shape legend: B images, H, W input size.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor

from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.measures import register
from konkyo.evaluation.measures.base import Parameters, Unsuited
from konkyo.evaluation.sources import Source, enlarged
from konkyo.evaluation.stability import Again, Stability


class ShiftParameters(Parameters):
    """Parameters of ``StabilityShift``."""

    pixels: int = Field(default=2, ge=1, description="by how many pixels of the network's input")


def shifted(pixels: Tensor, down: int, right: int) -> Tensor:
    """What comes in repeats the edge: (B, H, W, 3) -> the same."""
    height, width = pixels.shape[1:3]
    rows = (torch.arange(height, device=pixels.device) - down).clamp(0, height - 1)
    columns = (torch.arange(width, device=pixels.device) - right).clamp(0, width - 1)
    return pixels[:, rows][:, :, columns]


@register
class StabilityShift(Stability):
    """How far maps change, but for the shift, when the image is shifted.

    Raises:
        Unsuited: no maps, or the input is too small for the shift.
    """

    name = "stability_shift"
    title = "Stability under small shifts"
    reference = "none: what happens to pictures"
    parameters = ShiftParameters

    def __init__(self, candidate: Candidate, source: Source | None, parameters: Parameters) -> None:
        super().__init__(candidate, source, parameters)
        assert isinstance(parameters, ShiftParameters)
        self._pixels = parameters.pixels
        if min(candidate.size) <= 2 * self._pixels:
            raise Unsuited(f"shifts by {self._pixels} pixels leave nothing of an input of {candidate.size}")

    def again(self, pixels: Tensor, targets: Tensor, maps: Tensor) -> Iterator[Again]:
        """See ``Stability.again``."""
        first = enlarged(maps, self.candidate.size)[:, 0]
        by = self._pixels
        for down, right in ((0, by), (0, -by), (by, 0), (-by, 0)):
            after = shifted(pixels, down, right)
            second = enlarged(self._source.maps(self.candidate, after, targets), self.candidate.size)[:, 0]
            seen, shown = _overlap(down, right)
            yield Again(first[:, *seen], second[:, *shown], self.candidate.logits(after))


def _overlap(down: int, right: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """What both pictures show: rows and columns before and after the shift."""

    def kept(by: int) -> tuple[slice, slice]:
        return (slice(None, -by or None), slice(by, None)) if by >= 0 else (slice(-by, None), slice(None, by))

    (rows, moved_rows), (columns, moved_columns) = kept(down), kept(right)
    return (rows, columns), (moved_rows, moved_columns)
