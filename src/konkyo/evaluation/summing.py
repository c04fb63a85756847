"""From the records of a measure to its results: figures, intervals, curves, worst cases.

Shape legend: n records, T points of a curve.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from konkyo.evaluation.bootstrap import Resampling, Units, interval, mean_band
from konkyo.evaluation.measures.base import Columns, Curve, Float64, Matrix, Mean, Measure, Missing, Statistic
from konkyo.evaluation.planning import Task
from konkyo.evaluation.results import (
    FEW,
    CurveResult,
    FigureResult,
    MatrixResult,
    MeasureResult,
    WorstCase,
    finite,
)
from konkyo.evaluation.table import Table


def summarise(
    candidate: str,
    task: Task,
    table: Table | None,
    resampling: Resampling,
    worst: int,
    nothing: str,
) -> MeasureResult:
    """A measure's part of the results.

    Args:
        candidate: name of the model.
        task: the measure.
        table: its records; None where it is unsuited.
        resampling: for the intervals.
        worst: how many images are shown.
        nothing: what to say where it has no figure.
    """
    kind, measure = task.choice.kind, task.measure
    bare = MeasureResult(
        candidate=candidate,
        source=task.name,
        measure=kind.name,
        title=kind.title,
        reference=kind.reference,
        settings=task.settings,
        unsuited=task.unsuited,
        seconds=0 if table is None else table.seconds,
    )
    if measure is None or table is None:
        return bare
    figures = [_figure(item, table, resampling) for item in measure.statistics()] if len(table) else []
    if all(figure.value is None for figure in figures):
        return bare.model_copy(update={"unsuited": nothing})
    shown = _statistic_of_worst(measure)
    found = {
        "figures": tuple(figures),
        "curves": tuple(_curve(item, table, resampling) for item in measure.curves()),
        "matrices": tuple(_matrix(item, table.columns) for item in measure.matrices()),
        "notes": tuple(measure.notes(table.columns)),
        "worst_by": "" if shown is None else shown.title,
        "worst": () if shown is None else tuple(_worst(shown, table, worst)),
    }
    return bare.model_copy(update=found)


class _Watched(Mapping[str, Float64]):
    """Columns that note which of them were looked at."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self.seen: set[str] = set()

    def __getitem__(self, name: str) -> Float64:
        self.seen.add(name)
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


def _figure(statistic: Statistic, table: Table, resampling: Resampling) -> FigureResult:
    watched = _Watched(table.columns)
    value = statistic.of(watched)
    rests = _known(table.columns, () if isinstance(statistic.of, Missing) else watched.seen, len(table))
    units = len({key for key, known in zip(table.keys, rests, strict=True) if known})
    ends = None
    if statistic.resampled:
        ends = interval(statistic.of, table.columns, Units(table.keys), resampling)
    return FigureResult(
        name=statistic.name,
        title=statistic.title,
        better=statistic.better,
        value=finite(value),
        low=None if ends is None else ends.low,
        high=None if ends is None else ends.high,
        images=int(rests.sum()),
        units=units,
        few=units < FEW,
    )


def _known(columns: Columns, names: Collection[str], count: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """The records that have a number in every one of these columns, (n,); of curves, in some point."""
    known = np.ones(count, bool)
    for name in names:
        known &= ~np.isnan(columns[name]).reshape(count, -1).all(axis=1)
    return known


def _curve(curve: Curve, table: Table, resampling: Resampling) -> CurveResult:
    values = table.columns[curve.column]
    known = ~np.isnan(values)
    number = known.sum(axis=0)
    means = np.where(known, values, 0).sum(axis=0) / np.maximum(number, 1)
    low, high = mean_band(values, Units(table.keys), resampling)
    return CurveResult(
        name=curve.name,
        x_title=curve.x_title,
        y_title=curve.y_title,
        x=curve.x,
        y=tuple(map(finite, np.where(number > 0, means, math.nan))),
        low=tuple(map(finite, low)),
        high=tuple(map(finite, high)),
    )


def _matrix(matrix: Matrix, columns: Columns) -> MatrixResult:
    fields = matrix._asdict()
    counts = fields.pop("of")(columns)
    return MatrixResult(**fields, values=tuple(map(tuple, counts.tolist())))


def _statistic_of_worst(measure: Measure) -> Statistic | None:
    return next((item for item in measure.statistics() if item.name == measure.worst), None)


def _worst(statistic: Statistic, table: Table, most: int) -> Iterator[WorstCase]:
    """Records with the worst values, one an image; of equal ones those that were drawn first."""
    assert isinstance(statistic.of, Mean), f"{statistic.name} is no mean: single records have no value of it"
    values = table.columns[statistic.of.column]
    order = np.argsort(-values if statistic.better == "lower" else values, kind="stable")
    shown: set[str] = set()
    for place in order[~np.isnan(values[order])].tolist():
        if len(shown) == most:
            return
        if table.examples[place] not in shown:
            shown.add(table.examples[place])
            yield WorstCase(
                example=table.examples[place],
                about=table.abouts[place],
                target=table.targets[place],
                value=float(values[place]),
            )
