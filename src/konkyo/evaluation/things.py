"""The things marked in a batch, each with the map of its own class, and statistics over their classes.

Two rules hold for every measure of marked things. A mask without a pixel, of a thing that lies outside of
what the network sees, can neither be hit nor missed: its values are NaN, and the report counts it. A map
that is not finite says nothing: it counts as a map of zeros.

Shape legend: B batch, K targets, n things, T points of a curve, h, w grid of the maps, H, W input size.
"""

from __future__ import annotations

import math
import zlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.examples import Batch, Bool, Example, Marked
from konkyo.evaluation.measures.base import Columns, Measure, Parameters, Record
from konkyo.evaluation.sources import Source

CLASS, SEEN, FINITE = "class", "seen", "finite"
"""Columns that every record of a thing has: a number for its name, whether its mask has a pixel, and
whether its map was finite."""


@dataclass(frozen=True)
class Things:
    """The things of a batch.

    Attributes:
        positions: (n,) of their images in the batch.
        marked: n of them.
        maps: (n, h, w) how much each place matters for the class of each, not negative; zeros where the
            raw map was not finite.
        finite: (n,) bool, whether it was.
        masks: (n, H, W) bool, on the device of the maps.
    """

    positions: tuple[int, ...]
    marked: tuple[Marked, ...]
    maps: Tensor
    finite: Tensor
    masks: Tensor

    def __len__(self) -> int:
        return len(self.positions)


Values = Mapping[str, Sequence[float] | Sequence[Sequence[float]]]
"""Columns of things: (n,), or (n, T) of curves."""


class MeasureOfThings(Measure):
    """Base of the measures that hold the map of a thing against its region: a record for each thing."""

    wants = "marked"

    def __init__(self, candidate: Candidate, source: Source | None, parameters: Parameters) -> None:
        super().__init__(candidate, source, parameters)
        assert source is not None, "it wants maps"
        self._source = source

    @abstractmethod
    def values(self, things: Things, examples: Sequence[Example]) -> Values:
        """Measure things (n), at least one.

        Args:
            things: with their maps and masks.
            examples: n, the image of each.
        """

    def records(self, batch: Batch, targets: Tensor, maps: Tensor) -> Sequence[Record]:
        """See ``Measure.records``."""
        things = marked_things(batch, targets, maps, self._source)
        if things is None:
            return ()
        columns: Values = {
            CLASS: [class_code(thing.name) for thing in things.marked],
            SEEN: things.masks.flatten(1).any(dim=1).double().tolist(),
            FINITE: things.finite.double().tolist(),
            **self.values(things, [batch.examples[position] for position in things.positions]),
        }
        return [
            Record(position, {name: column[index] for name, column in columns.items()}, thing.name)
            for index, (position, thing) in enumerate(zip(things.positions, things.marked, strict=True))
        ]

    def notes(self, columns: Columns) -> Sequence[str]:
        """What could not be measured, and which maps say nothing."""
        things = len(columns[SEEN])
        unseen, broken = int((columns[SEEN] == 0).sum()), int((columns[FINITE] == 0).sum())
        notes = []
        if unseen:
            notes.append(
                f"{unseen} of {things} marked things lie outside of what the network sees: left out."
            )
        if broken:
            notes.append(f"{broken} of {things} maps are not finite: they count as maps of zeros.")
        return notes


def marked_things(batch: Batch, targets: Tensor, maps: Tensor, source: Source) -> Things | None:
    """Bring together what a measure that wants ``marked`` is given; None where nothing is marked.

    Args:
        batch: examples; those of which ``marked`` is None or empty have no part in it.
        targets: (B, K) a class for each thing of an image in their order, −1 where there is none.
        maps: (B, K, h, w) raw and signed.
        source: of the maps.
    """
    found = [
        (position, order, thing)
        for position, (example, classes) in enumerate(zip(batch.examples, targets.tolist(), strict=True))
        for order, (thing, target) in enumerate(zip(example.marked or (), classes, strict=False))
        if target >= 0
    ]
    if not found:
        return None
    positions, orders, things = zip(*found, strict=True)
    important, finite = readable(maps[list(positions), list(orders)], source)
    masks = torch.from_numpy(np.stack([thing.mask for thing in things])).to(maps.device)
    return Things(positions, things, important, finite, masks)


def readable(maps: Tensor, source: Source) -> tuple[Tensor, Tensor]:
    """What matters in raw maps (n, h, w), zeros where one is not finite, and which of them (n,) are."""
    finite = maps.isfinite().flatten(1).all(dim=1)
    return source.important(maps.where(finite[:, None, None], 0)), finite


def marked_mask(example: Example, index: int | None = None) -> Bool:
    """Everything that is marked in an image, or everything of a class: (H, W)."""
    mask: Bool = np.zeros(example.pixels.shape[:2], np.bool_)
    for thing in example.marked or ():
        if index is None or index in thing.classes:
            mask |= thing.mask
    return mask


def pixel_sides(examples: Sequence[Example]) -> Tensor:
    """Height and width of a pixel of the input, in pixels of the original image: (n, 2) float64."""
    sides = [
        ((y1 - y0) / example.geometry.input[1], (x1 - x0) / example.geometry.input[0])
        for example in examples
        for x0, y0, x1, y1 in [example.geometry.crop]
    ]
    return torch.tensor(sides, dtype=torch.float64).reshape(-1, 2)


def class_code(name: str) -> float:
    """A number that stands for the name of a class, the same in every run."""
    return float(zlib.crc32(name.encode()))


@dataclass(frozen=True)
class MeanOfClasses:
    """The mean over the classes of the mean of a column over the things of each; NaN if there are none."""

    column: str

    def __call__(self, columns: Columns) -> float:
        """See ``Statistic.of``."""
        known = ~np.isnan(columns[self.column])
        _, classes = np.unique(columns[CLASS][known], return_inverse=True)
        if not len(classes):
            return math.nan
        sums = np.bincount(classes, columns[self.column][known])
        return float((sums / np.bincount(classes)).mean())
