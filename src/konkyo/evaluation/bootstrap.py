"""Intervals of figures: the images are drawn anew, as many and with repetition, and the figure taken again.

The percentile interval of the bootstrap (Efron & Tibshirani, *An Introduction to the Bootstrap*, 1993,
section 13.3). What is drawn are units and not records: an image with several things marked in it is one,
and so are all images of one group, such as the photographs of one tile, because they are not independent
(the cluster bootstrap: Davison & Hinkley, 1997, section 3.8). Of few units, or where all agree, these
intervals are too narrow.

Shape legend: n records, U units, T points of a curve.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from konkyo.evaluation.measures.base import Columns, Mean

Bool = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


class Resampling(NamedTuple):
    """How intervals are made.

    Attributes:
        resamples: how often the units are drawn anew.
        level: share of the resamples' figures that the interval holds, in (0, 1).
        seed: the same seed draws the same units, for every figure.
    """

    resamples: int = 1000
    level: float = 0.95
    seed: int = 0


class Interval(NamedTuple):
    """Its ends."""

    low: float
    high: float


class Units:
    """Which records are drawn together.

    Args:
        keys: (n) of each record; those of one unit have the same.
    """

    def __init__(self, keys: Sequence[Hashable]) -> None:
        index: dict[Hashable, int] = {}
        self.of = np.array([index.setdefault(key, len(index)) for key in keys], np.int64)
        """(n,) unit of each record, numbered as they first occur."""
        self.count = len(index)
        self._sizes = np.bincount(self.of, minlength=self.count)
        self._records = np.argsort(self.of, kind="stable")
        self._starts = np.cumsum(self._sizes) - self._sizes

    def __len__(self) -> int:
        return self.count

    def with_any(self, of_records: Bool) -> Bool:
        """(U,): whether something holds of any record of a unit, in any place; of (n, ...)."""
        return np.asarray(_sums(of_records, self).reshape(len(self), -1).any(axis=1))

    def draws(self, resampling: Resampling) -> Iterator[Int64]:
        """(U,) units a resample."""
        generator = np.random.default_rng(resampling.seed)
        for _ in range(resampling.resamples):
            yield generator.integers(0, self.count, self.count)

    def records(self, drawn: Int64) -> Int64:
        """Positions of the records of units, a unit that was drawn twice giving its own twice."""
        sizes = self._sizes[drawn]
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        positions: Int64 = self._records[np.repeat(self._starts[drawn], sizes) + within]
        return positions


def interval(
    of: Callable[[Columns], float], columns: Columns, units: Units, resampling: Resampling
) -> Interval | None:
    """The interval of a figure.

    Args:
        of: columns to the figure; see ``measures.base.Statistic``.
        columns: of all records, (n,) or (n, T) each.
        units: of these records.
        resampling: how.

    Returns:
        None of fewer than 2 units, and where there is no figure. Resamples without a figure do not count.
    """
    if isinstance(of, Mean):
        low, high = mean_band(columns[of.column], units, resampling)
        return None if math.isnan(low) else Interval(float(low), float(high))
    if len(units) < 2 or math.isnan(of(columns)):
        return None
    figures = [of(Drawn(columns, units.records(drawn))) for drawn in units.draws(resampling)]
    low, high = _percentiles(np.array(figures), resampling.level)
    return None if math.isnan(low) else Interval(float(low), float(high))


def difference_interval(
    of: Callable[[Columns], float],
    columns: Columns,
    of_other: Callable[[Columns], float],
    other: Columns,
    units: Units,
    resampling: Resampling,
) -> Interval | None:
    """The interval of how much larger a figure is than another, both taken of the same draws.

    What both have in common, such as images that are hard for any map, does not widen it: it may leave out 0
    where the intervals of the figures overlap.

    Args:
        of, of_other: columns to the figures.
        columns, other: of the same records in the same order.
        units: of these records.
        resampling: how.

    Returns:
        None of fewer than 2 units, and where one of the figures is none.
    """
    if len(units) < 2 or math.isnan(of(columns)) or math.isnan(of_other(other)):
        return None
    if isinstance(of, Mean) and isinstance(of_other, Mean):
        one, two = columns[of.column], other[of_other.column]
        known = units.with_any(~np.isnan(one) | ~np.isnan(two))
        differences = _drawn_means(one, units, known, resampling) - _drawn_means(
            two, units, known, resampling
        )
    else:
        differences = np.array(
            [
                of(Drawn(columns, records)) - of_other(Drawn(other, records))
                for records in map(units.records, units.draws(resampling))
            ]
        )
    low, high = _percentiles(differences, resampling.level)
    return None if math.isnan(low) else Interval(float(low), float(high))


def mean_band(values: Float64, units: Units, resampling: Resampling) -> tuple[Float64, Float64]:
    """Intervals of the mean of a column, point by point if it holds curves.

    A unit counts by its records. Only units with a number are drawn.

    Args:
        values: (n,) or (n, T); NaN does not count.
        units: of these records.
        resampling: how.

    Returns:
        Low and high ends, () or (T,); NaN where fewer than 2 units have a number.
    """
    known = ~np.isnan(values)
    drawable = units.with_any(known)
    if drawable.sum() < 2:
        nothing = np.full(values.shape[1:], math.nan)
        return nothing, nothing
    low, high = _percentiles(_drawn_means(values, units, drawable, resampling), resampling.level)
    enough = (_sums(known, units) > 0).sum(axis=0) >= 2
    return np.where(enough, low, math.nan), np.where(enough, high, math.nan)


def _drawn_means(values: Float64, units: Units, drawable: Bool, resampling: Resampling) -> Float64:
    """Means of a column (n, ...) over each draw of some of the units (U,): (resamples, ...)."""
    known = ~np.isnan(values)
    sums, counts = (
        _sums(column, units)[drawable].astype(np.float64) for column in (np.where(known, values, 0), known)
    )
    means = []
    for drawn in Units(range(len(sums))).draws(resampling):
        times = np.bincount(drawn, minlength=len(sums)).astype(np.float64)
        total, number = times @ sums, times @ counts
        means.append(np.where(number > 0, total / np.maximum(number, 1), math.nan))
    return np.stack(means)


class Drawn(Mapping[str, Float64]):
    """Columns of some records, which may be drawn more than once; one is copied only when it is looked at."""

    def __init__(self, columns: Columns, records: Int64) -> None:
        self._columns, self._records = columns, records

    def __getitem__(self, name: str) -> Float64:
        return self._columns[name][self._records]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


def _sums(values: npt.NDArray[np.floating] | npt.NDArray[np.bool_], units: Units) -> Float64:
    """Over the records of each unit: (n, ...) -> (U, ...)."""
    sums = np.zeros((len(units), *values.shape[1:]))
    np.add.at(sums, units.of, values)
    return sums


def _percentiles(figures: Float64, level: float) -> tuple[Float64, Float64]:
    """The middle share of the resamples' figures: (resamples, ...) -> two of (...); NaN does not count."""
    ends = 100 * (1 - level) / 2, 100 * (1 + level) / 2
    some = ~np.isnan(figures).all(axis=0)
    found = np.full((2, *figures.shape[1:]), math.nan)
    found[:, some] = np.nanpercentile(figures[:, some], ends, axis=0)
    return found[0], found[1]
