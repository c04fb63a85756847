"""The table of a measure: a row for each map of each model, a column for each figure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from konkyo.evaluation.comparing import Entry, best_baseline, best_map, entries_of, is_baseline
from konkyo.evaluation.report.charts import COLOURS, Axis, Dots, axis, dots
from konkyo.evaluation.report.numbers import counted, decimals, interval, number
from konkyo.evaluation.report.verdicts import Standing, standing
from konkyo.evaluation.report.words import words_of
from konkyo.evaluation.results import FigureResult, MeasureResult

WAYS = {"higher": "↑ higher is better", "lower": "↓ lower is better", "neither": ""}

Mark = Literal["best", "level", ""]
Names = Sequence[str]


class Cell(NamedTuple):
    """A figure.

    Attributes:
        images: on how many it rests, where that is not said of the whole column.
        few: whether they are too few.
        mark: ``best`` where it is told apart from all other maps; ``level`` where it is not told apart from
            the best one, and so for the best one.
        standing: to the best baseline; empty for baselines, and where there is none.
    """

    value: str
    interval: str
    images: str
    few: bool
    mark: Mark
    standing: Standing | Literal[""]
    drawn: Dots | None
    colour: str


class Row(NamedTuple):
    """A map of a model, or a model; a cell may be missing."""

    name: str
    baseline: bool
    cells: list[Cell | None]


class Group(NamedTuple):
    """Rows that belong together: one map, of several models. The name is empty where there is one model."""

    name: str
    rows: list[Row]


class Column(NamedTuple):
    """A figure of all rows.

    Attributes:
        way: which is better.
        images: on how many it rests, where that is the same for all.
        few: whether they are too few.
        ends: of the line that its dots lie on.
    """

    title: str
    way: str
    images: str
    few: bool
    ends: tuple[str, str]


class Table(NamedTuple):
    """All of it; ``head`` is what the first column is."""

    head: str
    columns: list[Column]
    groups: list[Group]


class Styles(NamedTuple):
    """Which colour is whose, the same all over the page.

    Attributes:
        candidates: names of the models.
        sources: names of the maps but the baselines.
    """

    candidates: Names
    sources: Names

    @property
    def several(self) -> bool:
        """Whether models are compared: then colours are theirs."""
        return len(self.candidates) > 1

    def number(self, result: MeasureResult) -> int:
        """Of its colour and dashes."""
        if self.several or result.source is None:
            return self.candidates.index(result.candidate)
        return 0 if is_baseline(result) else self.sources.index(result.source)

    def colour(self, result: MeasureResult) -> str:
        """Class in the style."""
        return "cb" if is_baseline(result) else f"c{self.number(result) % COLOURS}"


def table(results: Sequence[MeasureResult], figures: Names, styles: Styles) -> Table:
    """The figures of one measure.

    Args:
        results: of one measure, none unsuited.
        figures: their names, a column each.
        styles: whose colours are which.
    """
    of_maps = any(result.source is not None for result in results)
    columns = {name: _Column(results, name) for name in figures}

    def row(result: MeasureResult, name: str) -> Row:
        cells = [columns[figure].cell(result, styles.colour(result)) for figure in figures]
        return Row(name, is_baseline(result), cells)

    if of_maps and styles.several:
        sources = dict.fromkeys(str(result.source) for result in _baselines_last(results))
        groups = [
            Group(source, [row(item, item.candidate) for item in results if str(item.source) == source])
            for source in sources
        ]
    else:
        rows = [row(item, item.source or item.candidate) for item in _baselines_last(results)]
        groups = [Group("", rows)]
    head = "Model" if not of_maps else "Map and model" if styles.several else "Map"
    return Table(head, [column.described() for column in columns.values()], groups)


def _baselines_last(results: Iterable[MeasureResult]) -> list[MeasureResult]:
    return sorted(results, key=is_baseline)


class _Column:
    """One figure, of all results of a measure."""

    def __init__(self, results: Sequence[MeasureResult], name: str) -> None:
        self.name, self.entries = name, entries_of(results, name)
        self.figures = [entry.figure for entry in self.entries]
        self.places = decimals(self.figures)
        ends = [end for figure in self.figures for end in (figure.value, figure.low, figure.high)]
        self.axis: Axis = axis(ends)
        self.beatable = words_of(results[0].measure, results[0].title).beatable
        self.best = best_map(self.entries)
        maps = [entry.figure for entry in self.entries if not is_baseline(entry.result)]
        self.level = [item for item in maps if self.best is not None and _level(item, self.best)]

    def cell(self, result: MeasureResult, colour: str) -> Cell | None:
        figure = figure_of(result, self.name)
        if figure is None:
            return None
        beat = best_baseline(self.entries, result.candidate) if self.beatable else None
        compared = beat is not None and not is_baseline(result) and figure.value is not None
        return Cell(
            number(figure.value, self.places),
            interval(figure, self.places),
            "" if self._same() else _images(figure),
            figure.few,
            self._mark(figure) if not is_baseline(result) else "",
            standing(figure, beat) if compared and beat is not None else "",
            dots(figure, self.axis, None if beat is None or is_baseline(result) else beat.figure),
            colour,
        )

    def _mark(self, figure: FigureResult) -> Mark:
        if self.best is None or len(self.figures) < 2 or not any(figure is item for item in self.level):
            return ""
        return "level" if len(self.level) > 1 else "best"

    def _same(self) -> bool:
        return len({(figure.images, figure.few) for figure in self.figures}) == 1

    def described(self) -> Column:
        first = self.figures[0]
        texts = self.axis.texts()
        images = _images(first) if self._same() else ""
        return Column(
            first.title, WAYS[first.better], images, first.few and bool(images), (texts[0], texts[-1])
        )


def _images(figure: FigureResult) -> str:
    """On how many images, or things in them, it rests; how many are independent, where they are few."""
    if not figure.few:
        return f"of {figure.images:,}"
    if figure.units is None or figure.units == figure.images:
        return f"only {counted(figure.images, 'image')}"
    return f"of {figure.images:,}, only {figure.units:,} independent"


def figure_of(result: MeasureResult, name: str) -> FigureResult | None:
    """The figure of a name."""
    return next((figure for figure in result.figures if figure.name == name), None)


def _level(figure: FigureResult, top: Entry) -> bool:
    return figure.value is not None and (figure is top.figure or standing(figure, top) == "open")
