from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor
from toys import SIDE, Linear, make_candidate

from konkyo.evaluation.bootstrap import Resampling
from konkyo.evaluation.examples import Batch
from konkyo.evaluation.measures.base import (
    Columns,
    Curve,
    Matrix,
    Mean,
    Measure,
    Missing,
    Parameters,
    Record,
    Statistic,
)
from konkyo.evaluation.planning import Choice, Task
from konkyo.evaluation.results import MeasureResult
from konkyo.evaluation.summing import Table, summarise

FAST = Resampling(100)


class Told(Measure):
    """Its figures are told by the test."""

    name, title, reference, wants = "told", "Told", "a toy of these tests", "nothing"
    told: ClassVar[Sequence[Statistic]] = ()

    def records(self, batch: Batch, targets: Tensor, maps: Tensor) -> Sequence[Record]:
        return ()

    def statistics(self) -> Sequence[Statistic]:
        return self.told

    def curves(self) -> Sequence[Curve]:
        return (Curve("curve", "curve", (0.0, 0.5, 1.0), "x", "y"),)

    def matrices(self) -> Sequence[Matrix]:
        def count(columns: Columns) -> Any:
            return np.array([[len(columns["x"]), 0]], np.float64)

        return (Matrix("matrix", "Matrix", count, ("row",), ("one", "two"), "rows", "columns"),)

    def notes(self, columns: Columns) -> Sequence[str]:
        return (f"{len(columns['x'])} records",)


def table(x: Sequence[float], examples: Sequence[str] | None = None, **more: Any) -> Table:
    names = examples or [f"{place}.png" for place in range(len(x))]
    return Table(
        examples=names,
        abouts=[f"thing {place}" for place in range(len(x))],
        targets=[None, *range(1, len(x))],
        keys=[("image", name) for name in names],
        columns={
            "x": np.array(x),
            "y": np.where(np.arange(len(x)) < 2, math.nan, 1.0),
            "curve": np.array([[value, math.nan, 1.0] for value in x]),
            **more,
        },
        seconds=1.5,
    )


def summed(*statistics: Statistic, of: Table, worst: str | None = None, most: int = 3) -> MeasureResult:
    kind = type("Told", (Told,), {"told": statistics, "worst": worst})
    measure = kind(make_candidate(Linear(torch.zeros(2, SIDE, SIDE))), None, Parameters())
    task = Task(Choice(kind, Parameters()), None, None, measure)
    return summarise("toy/1", task, of, FAST, most, "nothing to see")


def test_a_figure_rests_on_the_records_it_looked_at() -> None:
    found = summed(
        Statistic("x", Mean("x"), "higher", "mean of x"),
        Statistic("y", Mean("y"), "higher", "mean of y"),
        Statistic("both", lambda columns: float(np.nansum(columns["x"] * columns["y"])), "lower", "both"),
        Statistic("missing", Missing("y"), "lower", "missing"),
        Statistic("none", lambda columns: math.nan, "neither", "none"),
        of=table([1.0, math.nan, 3.0, 8.0]),
    )
    assert [(item.name, item.value, item.images) for item in found.figures] == [
        ("x", 4.0, 3),
        ("y", 1.0, 2),
        ("both", 11.0, 2),
        ("missing", 0.5, 4),
        ("none", None, 4),
    ]
    assert [item.low is None for item in found.figures] == [False, False, False, False, True]
    assert (found.seconds, found.notes) == (1.5, ("4 records",))
    [curve] = found.curves
    assert curve.y == (4.0, None, 1.0)
    assert (curve.low[1], curve.low[2], curve.high[2]) == (None, 1.0, 1.0)
    assert found.matrices[0].values == ((4.0, 0.0),)


def test_an_extreme_has_no_interval() -> None:
    """No resample holds a value beyond it."""
    largest = Statistic("x", lambda columns: float(columns["x"].max()), "lower", "largest x")
    of = table([1.0, 2.0, 3.0, 8.0])
    assert summed(largest, of=of).figures[0].high == 8
    [found] = summed(largest._replace(resampled=False), of=of).figures
    assert (found.value, found.low, found.high, found.images) == (8, None, None, 4)


def test_few_counts_images_and_groups() -> None:
    """Thirty records of ten images are few, of thirty images they are not."""
    x = [float(place) for place in range(30)]
    mean = Statistic("x", Mean("x"), "higher", "x")
    assert not summed(mean, of=table(x)).figures[0].few
    shared = summed(mean, of=table(x, [f"{place // 3}.png" for place in range(30)]))
    assert (shared.figures[0].images, shared.figures[0].units, shared.figures[0].few) == (30, 10, True)
    assert summed(mean, of=table([math.nan, *x[1:]])).figures[0].few


@pytest.mark.parametrize(("better", "expected"), [("higher", [1, 3, 2]), ("lower", [4, 2, 1])])
def test_worst_cases_by_direction_one_an_image(better: Any, expected: list[int]) -> None:
    """NaN is not bad, of equal ones the first counts, and an image is shown once."""
    x = [math.nan, 1.0, 5.0, 1.0, 7.0, 6.0]
    examples = ["a", "b", "c", "d", "e", "e"]
    found = summed(Statistic("x", Mean("x"), better, "mean of x"), of=table(x, examples), worst="x")
    assert [case.example for case in found.worst] == [examples[place] for place in expected]
    assert [(case.about, case.target, case.value) for case in found.worst] == [
        (f"thing {place}", place, x[place]) for place in expected
    ]
    assert found.worst_by == "mean of x"


def test_no_figure_is_a_reason_and_not_an_error() -> None:
    mean = Statistic("x", Mean("x"), "higher", "x")
    for of in (table([]), table([math.nan, math.nan])):
        found = summed(mean, of=of)
        assert found.unsuited == "nothing to see"
        assert found.figures == ()
