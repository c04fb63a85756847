"""The curves of a measure, side by side on the same axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from konkyo.evaluation.comparing import is_baseline
from konkyo.evaluation.report.charts import Chart, Line, axis, chart
from konkyo.evaluation.report.tables import Styles
from konkyo.evaluation.results import MeasureResult


class Curves(NamedTuple):
    """Charts side by side, with one legend; the title may be empty."""

    title: str
    legend: list[Line]
    charts: list[Chart]


def curves_of(results: Sequence[MeasureResult], styles: Styles, *, diagonal: bool) -> list[Curves]:
    """Of one model, a chart for each kind of curve; of several, for each kind, a chart for each map."""
    names = dict.fromkeys(curve.name for result in results for curve in result.curves)
    kinds = [_charts(results, name, styles, diagonal=diagonal) for name in names]
    if styles.several or not kinds:
        return kinds
    return [Curves("", kinds[0].legend, [drawn for kind in kinds for drawn in kind.charts])]


def _charts(results: Sequence[MeasureResult], name: str, styles: Styles, *, diagonal: bool) -> Curves:
    drawn = [(result, curve) for result in results for curve in result.curves if curve.name == name]
    axes = (
        axis(x for _, curve in drawn for x in curve.x),
        axis(y for _, curve in drawn for values in (curve.y, curve.low, curve.high) for y in values),
    )
    title = name.replace("_", " ").capitalize()
    frames: dict[str, list[Line]] = {}
    greys: dict[str | None, int] = {}
    for result, curve in drawn:
        grey = is_baseline(result) and not styles.several
        style = greys.setdefault(result.source, len(greys)) if grey else styles.number(result)
        label = result.candidate if styles.several or result.source is None else result.source
        line = Line(label, style, grey, curve.x, curve.y, curve.low, curve.high)
        frames.setdefault(result.source if styles.several and result.source else title, []).append(line)
    titles = drawn[0][1].x_title, drawn[0][1].y_title
    charts = [
        chart(sorted(lines, key=lambda line: not line.baseline), axes, (of, *titles), diagonal=diagonal)
        for of, lines in frames.items()
    ]
    legend = {line.name: line for lines in frames.values() for line in lines}
    last = sorted(legend.values(), key=lambda line: line.baseline)
    return Curves(title if len(charts) > 1 else "", last, charts)
