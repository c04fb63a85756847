"""Which figures are told apart: differences between maps, over the same draws of the same images.

Two maps are measured on the same images, so what makes an image hard is common to both, and the interval of
their difference may leave out 0 where the intervals of the two figures overlap. Every map is held against
the best of the baselines of its model, and against the best map of all that were measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from konkyo.evaluation.bootstrap import Drawn, Resampling, Units, difference_interval
from konkyo.evaluation.measures.base import Columns, Statistic
from konkyo.evaluation.results import DifferenceResult, FigureResult, MeasureResult, finite
from konkyo.evaluation.sources import BASELINES
from konkyo.evaluation.table import Table, side_by_side


@dataclass(frozen=True)
class Measured:
    """A measure's part of the results, and what its figures were made from.

    Attributes:
        statistics: by the name of their figure.
        table: of the records; None where it has no figures.
    """

    result: MeasureResult
    statistics: Mapping[str, Statistic]
    table: Table | None


class Entry(NamedTuple):
    """A figure of a map of a model, or of a model."""

    result: MeasureResult
    figure: FigureResult


def is_baseline(result: MeasureResult) -> bool:
    """Whether its maps never ask the model."""
    return result.source in BASELINES


def entries_of(results: Iterable[MeasureResult], figure: str) -> list[Entry]:
    """Those that have a figure of this name; ``results`` are of one measure."""
    return [Entry(result, item) for result in results for item in result.figures if item.name == figure]


def best(entries: Iterable[Entry]) -> Entry | None:
    """The one with the best value; None where there is none, or where neither way is better."""
    known = [
        entry for entry in entries if entry.figure.value is not None and entry.figure.better != "neither"
    ]
    if not known:
        return None
    choose = max if known[0].figure.better == "higher" else min
    return choose(known, key=lambda entry: entry.figure.value or 0)


def best_baseline(entries: Iterable[Entry], candidate: str) -> Entry | None:
    """The best of the baselines that were measured on a model."""
    return best(
        entry for entry in entries if entry.result.candidate == candidate and is_baseline(entry.result)
    )


def best_map(entries: Iterable[Entry]) -> Entry | None:
    """The best of all entries that are no baselines."""
    return best(entry for entry in entries if not is_baseline(entry.result))


def compare(measured: Sequence[Measured], resampling: Resampling) -> Iterator[MeasureResult]:
    """The results in their order, with the differences that tell their figures apart.

    Args:
        measured: of one run.
        resampling: as of the intervals.
    """
    together: dict[str, list[Measured]] = {}
    for item in measured:
        together.setdefault(item.result.measure, []).append(item)
    for item in measured:
        against = _Against(item, together[item.result.measure], resampling)
        figures = [
            figure.model_copy(update={"differences": tuple(against.differences(figure))})
            for figure in item.result.figures
        ]
        yield item.result.model_copy(update={"figures": tuple(figures)})


class _Pair(NamedTuple):
    """Records of two maps, side by side: those of the same things in the same images."""

    columns: Columns
    other: Columns
    units: Units


class _Against:
    """One measure of one map against others of the measure."""

    def __init__(self, item: Measured, same: Sequence[Measured], resampling: Resampling) -> None:
        self._item = item
        self._others = {(other.result.candidate, other.result.source): other for other in same}
        self._resampling = resampling
        self._pairs: dict[tuple[str, str | None], _Pair] = {}

    def differences(self, figure: FigureResult) -> Iterator[DifferenceResult]:
        """From the best baseline of the model and the best map, in one figure."""
        own = self._item.result
        if is_baseline(own) or figure.value is None:
            return
        entries = entries_of((other.result for other in self._others.values()), figure.name)
        for entry in (best_baseline(entries, own.candidate), best_map(entries)):
            if entry is not None and entry.result is not own:
                yield self._difference(entry.result.candidate, entry.result.source, figure.name)

    def _difference(self, candidate: str, source: str | None, figure: str) -> DifferenceResult:
        pair = self._pair(candidate, source)
        own = self._item.statistics[figure]
        other = self._others[candidate, source].statistics[figure]
        value, ends = math.nan, None
        if len(pair.units):
            value = own.of(pair.columns) - other.of(pair.other)
        if len(pair.units) and own.resampled:
            ends = difference_interval(
                own.of, pair.columns, other.of, pair.other, pair.units, self._resampling
            )
        return DifferenceResult(
            candidate=candidate,
            source=source,
            value=finite(value),
            low=None if ends is None else ends.low,
            high=None if ends is None else ends.high,
        )

    def _pair(self, candidate: str, source: str | None) -> _Pair:
        if (candidate, source) not in self._pairs:
            one, two = self._item.table, self._others[candidate, source].table
            assert one is not None
            assert two is not None
            here, there = side_by_side(one, two)
            units = Units([one.keys[place] for place in here])
            self._pairs[candidate, source] = _Pair(Drawn(one.columns, here), Drawn(two.columns, there), units)
        return self._pairs[candidate, source]
