"""Charts: where everything of them lies; ``charts.html.j2`` draws them as SVG inside the page.

Colours come from the page's style, so that they follow light and dark; text stays text; nothing is random,
so the same figures give the same bytes. Lengths are in units of the drawing, T is the points of a curve.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from matplotlib.ticker import MaxNLocator

from konkyo.evaluation.report.numbers import number
from konkyo.evaluation.results import FigureResult

Values = Sequence[float | None]
Point = tuple[float, float]

WIDTH, HEIGHT = 400, 264
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 42
"""Room beside the axes of a chart."""

DOTS_WIDTH, DOTS_EDGE = 132, 5

COLOURS = 8
DASHES = ("", "7 3", "2 3", "9 3 2 3")
"""Of lines, so that they are told apart without colour as well."""


class Axis(NamedTuple):
    """A range of values, its ticks at round numbers from end to end."""

    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """Where a value lies, as a share of the axis; beyond the ends, at them."""
        low, high = self.ticks[0], self.ticks[-1]
        return min(max((value - low) / (high - low), 0.0), 1.0)

    def texts(self) -> list[str]:
        """The ticks in as few decimals as they need."""
        places = next(p for p in range(12) if all(round(tick, p) == tick for tick in self.ticks))
        return [number(tick, places) for tick in self.ticks]


def axis(values: Iterable[float | None], steps: int = 5) -> Axis:
    """From 0, or from below if something is, to a round number above all."""
    known = [0.0, *(value for value in values if value is not None)]
    low, high = min(known), max(known)
    if 0.7 < high <= 1 or high <= low:  # most figures are shares: one axis for them all
        high = 1.0
    if -1 <= low < -0.7:
        low = -1.0
    ticks = MaxNLocator(steps, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return Axis(tuple(round(float(tick), 10) + 0.0 for tick in ticks))


class Dots(NamedTuple):
    """A figure as a dot on a line: places from the left, None where there is nothing to draw.

    Attributes:
        bar: ends of its interval.
        beat: what must be beaten.
        beat_bar: left end and width of that one's interval.
    """

    value: float
    bar: Point | None
    beat: float | None
    beat_bar: Point | None


def dots(figure: FigureResult, along: Axis, beat: FigureResult | None) -> Dots | None:
    """Where the parts of a figure lie; None of a figure without a value."""
    if figure.value is None:
        return None

    def place(value: float) -> float:
        return round(DOTS_EDGE + along.at(value) * (DOTS_WIDTH - 2 * DOTS_EDGE), 1)

    def ends(of: FigureResult | None) -> Point | None:
        if of is None or of.low is None or of.high is None:
            return None
        return place(of.low), place(of.high)

    beaten = None if beat is None or beat.value is None else place(beat.value)
    around = ends(beat)
    around = None if around is None else (around[0], round(max(around[1] - around[0], 0.5), 1))
    return Dots(place(figure.value), ends(figure), beaten, around)


class Line(NamedTuple):
    """A curve with its interval; (T,) each, None where there is none.

    Attributes:
        name: as in the legend.
        style: number of its colour and dashes.
        baseline: whether it is grey.
    """

    name: str
    style: int
    baseline: bool
    x: Sequence[float]
    y: Values
    low: Values
    high: Values

    @property
    def colour(self) -> str:
        """Class in the style."""
        return "cb" if self.baseline else f"c{self.style % COLOURS}"

    @property
    def dashes(self) -> str:
        """Lengths of strokes and gaps; empty for a line without gaps."""
        return DASHES[(self.style + self.baseline) % len(DASHES)]


class Path(NamedTuple):
    """A drawn line, and the bands around it."""

    line: Line
    path: str
    bands: list[str]


class Tick(NamedTuple):
    """A mark of an axis."""

    at: float
    text: str


class Chart(NamedTuple):
    """Curves in one frame.

    Attributes:
        says: the figures in words, for those who are read to.
        diagonal: where x is y; empty where it means nothing.
    """

    title: str
    x_title: str
    y_title: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    paths: list[Path]
    diagonal: str
    says: str


def chart(
    lines: Sequence[Line], axes: tuple[Axis, Axis], titles: tuple[str, str, str], *, diagonal: bool
) -> Chart:
    """Place curves in a frame.

    Args:
        lines: the last is drawn on top.
        axes: of x and y.
        titles: of the chart, of x and of y.
        diagonal: whether it means something that x is y.
    """
    across, up = axes

    def place(point: Point) -> Point:
        x = LEFT + across.at(point[0]) * (WIDTH - LEFT - RIGHT)
        y = HEIGHT - BOTTOM - up.at(point[1]) * (HEIGHT - BOTTOM - TOP)
        return round(x, 1), round(y, 1)

    paths = [
        Path(
            line,
            "".join(_drawn(map(place, points)) for points in _runs(line.x, line.y)),
            [_drawn(map(place, [*there, *back[::-1]])) + "Z" for there, back in _sides(line)],
        )
        for line in lines
    ]
    return Chart(
        *titles,
        [Tick(place((tick, 0))[0], text) for tick, text in zip(across.ticks, across.texts(), strict=True)],
        [Tick(place((0, tick))[1], text) for tick, text in zip(up.ticks, up.texts(), strict=True)],
        paths,
        _drawn(map(place, [(0, 0), (1, 1)])) if diagonal else "",
        _in_words(lines, titles),
    )


def _runs(x: Sequence[float], y: Values) -> Iterator[list[Point]]:
    """Stretches of points without gaps."""
    run: list[Point] = []
    for across, up in zip(x, y, strict=True):
        if up is not None:
            run.append((across, up))
        elif run:
            yield run
            run = []
    if run:
        yield run


def _sides(line: Line) -> Iterator[tuple[list[Point], list[Point]]]:
    """The lower and the upper edge of each stretch of the band."""
    known = [low is not None and high is not None for low, high in zip(line.low, line.high, strict=True)]
    edges = [
        [v if there else None for v, there in zip(edge, known, strict=True)] for edge in (line.low, line.high)
    ]
    return zip(_runs(line.x, edges[0]), _runs(line.x, edges[1]), strict=True)


def _drawn(points: Iterable[Point]) -> str:
    """``M1 2L3 4``; a point alone is a short stroke, which is seen."""
    first, *rest = [f"{x:g} {y:g}" for x, y in points]
    return f"M{first}" + ("".join(f"L{point}" for point in rest) or "h.1")


def _in_words(lines: Sequence[Line], titles: tuple[str, str, str]) -> str:
    """Each curve at its start, middle and end."""
    said = []
    for line in lines:
        known = [point for run in _runs(line.x, line.y) for point in run]
        chosen = dict.fromkeys((0, len(known) // 2, len(known) - 1)) if known else {}
        told = ", ".join(f"{number(known[i][1], 2)} at {number(known[i][0], 2)}" for i in chosen)
        said.append(f"{line.name}: {told or 'no values'}")
    return f"{titles[0]}: {titles[2]} over {titles[1]}. {'; '.join(said)}."
