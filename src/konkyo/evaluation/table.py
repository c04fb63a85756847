"""The records of a measure as columns.

Shape legend: n records, T points of a curve.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from konkyo.evaluation.lines import EXAMPLE, read_lines
from konkyo.evaluation.measures.base import Columns, Float64

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Table:
    """Records of one measure, those of one image next to each other.

    Attributes:
        examples: (n) names of their images.
        abouts: (n) which thing in it.
        targets: (n) class of the map, None of no map.
        keys: (n) the unit of each: its group, or its image.
        columns: (n,) or (n, T) each; none where there are no records.
        seconds: that measuring took.
    """

    examples: Sequence[str]
    abouts: Sequence[str]
    targets: Sequence[int | None]
    keys: Sequence[tuple[str, str]]
    columns: Columns
    seconds: float

    def __len__(self) -> int:
        return len(self.examples)

    def names(self) -> Iterator[tuple[str, str, int]]:
        """What tells a record from all others: its image, its thing, and which of that name there."""
        seen: Counter[tuple[str, str]] = Counter()
        for thing in zip(self.examples, self.abouts, strict=True):
            yield *thing, seen[thing]
            seen[thing] += 1


def side_by_side(one: Table, other: Table) -> tuple[Int64, Int64]:
    """Positions of the records of the same things in the same images: (m,) in each of two tables."""
    places = {name: place for place, name in enumerate(other.names())}
    found = [(place, places[name]) for place, name in enumerate(one.names()) if name in places]
    here, there = np.array(found, np.int64).reshape(-1, 2).T
    return here, there


def read_table(path: Path, order: Sequence[str]) -> Table:
    """The records of images.

    Args:
        path: the measure's file.
        order: names of the images that count, in the order they are wanted.
    """
    places = {name: place for place, name in enumerate(order)}
    lines = sorted(
        (line for line in read_lines(path) if line[EXAMPLE] in places), key=lambda line: places[line[EXAMPLE]]
    )
    records = [(line, record) for line in lines for record in line["records"]]
    names = records[0][1]["values"] if records else ()
    return Table(
        examples=[line[EXAMPLE] for line, _ in records],
        abouts=[record["about"] for _, record in records],
        targets=[record["target"] for _, record in records],
        keys=[
            ("image", line[EXAMPLE]) if line["group"] is None else ("group", line["group"])
            for line, _ in records
        ],
        columns={name: _column([record["values"][name] for _, record in records]) for name in names},
        seconds=sum(line["seconds"] for line in lines),
    )


def _column(values: Sequence[Any]) -> Float64:
    return np.array(values, np.float64)  # of None it makes NaN
