"""A section for each measure: what it says, its figures, its curves, what cannot be taken and why."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from konkyo.evaluation.comparing import Entry, best_baseline, entries_of, is_baseline
from konkyo.evaluation.report.cases import Cases
from konkyo.evaluation.report.curves import Curves, curves_of
from konkyo.evaluation.report.numbers import decimals, listed, number, setting
from konkyo.evaluation.report.shades import Shades, shades
from konkyo.evaluation.report.tables import Styles, Table, table
from konkyo.evaluation.report.verdicts import Standing, difference, judged, standing
from konkyo.evaluation.report.words import QUESTIONS, WORDS, Question, Words, words_of
from konkyo.evaluation.results import FigureResult, MeasureResult, Results

FIGURES = 4
"""In the table; the rest are further figures."""


class Against(NamedTuple):
    """The maps of a model against the best baseline.

    Attributes:
        figure: title of the one that is compared.
        value: of the baseline.
        better, open, worse: names of maps, with the intervals of their differences.
    """

    candidate: str
    figure: str
    baseline: str
    value: str
    better: str
    open: str
    worse: str


class Note(NamedTuple):
    """What belongs to the figures of one row."""

    of: str
    lines: Sequence[str]


class Section(NamedTuple):
    """A measure.

    Attributes:
        id: of its heading.
        settings: by name, and of which rows where rows differ.
        further: figures that did not find room.
        unsuited: reasons, and whose.
    """

    id: str
    title: str
    reference: str
    words: Words
    settings: list[tuple[str, str]]
    table: Table
    further: Table | None
    against: list[Against]
    notes: list[Note]
    curves: list[Curves]
    shades: list[Shades]
    cases: list[Cases]
    unsuited: list[tuple[str, str]]


class Chapter(NamedTuple):
    """The measures of a question."""

    question: Question
    title: str
    sections: list[Section]


class NotTaken(NamedTuple):
    """A measure that could be taken of nothing."""

    title: str
    reasons: list[tuple[str, str]]


def chapters(results: Results, styles: Styles, cases: dict[str, list[Cases]]) -> list[Chapter]:
    """Every measure that was taken, by questions."""
    by_name: dict[str, list[MeasureResult]] = {}
    for result in results.measures:
        by_name.setdefault(result.measure, []).append(result)
    order = [*(name for name in WORDS if name in by_name), *(name for name in by_name if name not in WORDS)]
    found: dict[Question, list[Section]] = {question: [] for question in QUESTIONS}
    for name in order:
        if any(result.figures for result in by_name[name]):
            section = _section(by_name[name], styles, cases.get(name, []))
            found[section.words.question].append(section)
    return [Chapter(question, QUESTIONS[question], items) for question, items in found.items() if items]


def not_taken(results: Results, styles: Styles) -> list[NotTaken]:
    """Measures without any figure, with the reasons."""
    names = dict.fromkeys(result.measure for result in results.measures)
    of = {name: [result for result in results.measures if result.measure == name] for name in names}
    return [
        NotTaken(items[0].title, _reasons(items, styles))
        for items in of.values()
        if not any(item.figures for item in items)
    ]


def anchor(measure: str) -> str:
    """Id of a measure's heading."""
    return "measure-" + re.sub(r"[^a-z0-9]+", "-", measure.lower())


def _section(results: Sequence[MeasureResult], styles: Styles, cases: list[Cases]) -> Section:
    first = results[0]
    words = words_of(first.measure, first.title)
    taken = [result for result in results if result.figures]
    names = list(dict.fromkeys(figure.name for result in taken for figure in result.figures))
    return Section(
        id=anchor(first.measure),
        title=first.title,
        reference=first.reference,
        words=words,
        settings=_settings(taken, styles),
        table=table(taken, names[:FIGURES], styles),
        further=table(taken, names[FIGURES:], styles) if len(names) > FIGURES else None,
        against=[item for name in styles.candidates if words.beatable and (item := _against(taken, name))],
        notes=_notes(taken, styles),
        curves=curves_of(taken, styles, diagonal=words.diagonal),
        shades=[shades(matrix, item.candidate) for item in taken for matrix in item.matrices],
        cases=[item for item in cases if item.shown or item.left_out],
        unsuited=_reasons(results, styles),
    )


def _whose(result: MeasureResult, styles: Styles) -> str:
    if result.source is None:
        return result.candidate
    return f"{result.source} of {result.candidate}" if styles.several else result.source


def _settings(results: Sequence[MeasureResult], styles: Styles) -> list[tuple[str, str]]:
    """Each setting once, or once for each value that it has."""
    values: dict[str, dict[str, list[str]]] = {}
    for result in results:
        for name, value in result.settings.items():
            values.setdefault(name, {}).setdefault(setting(value), []).append(_whose(result, styles))
    found = []
    for name, by_value in values.items():
        for value, whose in by_value.items():
            alone = len(by_value) == 1 and len(whose) == len(results)
            found.append((name, value if alone else f"{value} ({listed(whose)})"))
    return found


def _reasons(results: Sequence[MeasureResult], styles: Styles) -> list[tuple[str, str]]:
    """Why it was not taken, and of what: one reason once."""
    found: dict[str, list[str]] = {}
    for result in results:
        if result.unsuited is not None:
            found.setdefault(result.unsuited, []).append(_whose(result, styles))
    return [(reason, listed(whose)) for reason, whose in found.items()]


def _against(results: Sequence[MeasureResult], candidate: str) -> Against | None:
    own = [result for result in results if result.candidate == candidate and not is_baseline(result)]
    figures = [(str(result.source), figure) for result in own if (figure := judged(result)) is not None]
    found = best_baseline(entries_of(results, figures[0][1].name), candidate) if figures else None
    if found is None:
        return None
    maps: dict[Standing, list[str]] = {"better": [], "open": [], "worse": []}
    for source, figure in figures:
        maps[standing(figure, found)].append(f"{source}{_by_how_much(figure, found)}")
    texts = [listed(names) if names else "" for names in maps.values()]
    return Against(
        candidate, found.figure.title, str(found.result.source), number(found.figure.value, 2), *texts
    )


def _by_how_much(figure: FigureResult, other: Entry) -> str:
    """Such as `` (+0.04 to +0.11)``; empty where it is not known."""
    found = difference(figure, other)
    if found is None or found.low is None or found.high is None:
        return ""
    places = decimals([found])
    low, high = (f"{'+' if end > 0 else ''}{number(end, places)}" for end in (found.low, found.high))
    return f" ({low} to {high})"


def _notes(results: Sequence[MeasureResult], styles: Styles) -> list[Note]:
    """Notes that all rows share, once; then those of each row, rows with the same ones together."""
    noted = [result for result in results if result.notes]
    shared = [note for note in (noted[0].notes if noted else ()) if all(note in item.notes for item in noted)]
    rows: dict[tuple[str, ...], list[MeasureResult]] = {}
    for result in noted:
        own = tuple(note for note in result.notes if note not in shared)
        if own:
            rows.setdefault(own, []).append(result)
    found = [Note("", shared)] if shared else []
    return found + [Note(_whose_all(some, noted, styles), lines) for lines, some in rows.items()]


def _whose_all(some: Sequence[MeasureResult], noted: Sequence[MeasureResult], styles: Styles) -> str:
    """Names of rows; a model of which none is missing has one for all."""
    names: list[str] = []
    for candidate in dict.fromkeys(result.candidate for result in some):
        own = [result for result in some if result.candidate == candidate]
        known = [result for result in noted if result.candidate == candidate]
        whole = styles.several and len(own) == len(known) > 1
        names += [f"all maps of {candidate}"] if whole else [_whose(result, styles) for result in own]
    return listed(names)
