"""Worst cases as pictures, as many as the page may hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from konkyo.evaluation.comparing import is_baseline
from konkyo.evaluation.report.look import Look, Looking
from konkyo.evaluation.report.numbers import brief
from konkyo.evaluation.report.pictures import Picture, draw, turns
from konkyo.evaluation.results import MeasureResult, WorstCase

MOST_BYTES = 11_000_000
"""Of all pictures of a page."""


class Case(NamedTuple):
    """A worst case.

    Attributes:
        of: what its value is.
        about: which thing in it; empty where it is the whole image.
    """

    pictures: list[Picture]
    file: str
    about: str
    truth: str | None
    predicted: str
    probability: str
    explained: str | None
    of: str
    value: str


class Cases(NamedTuple):
    """Worst cases of one map of one model by one measure.

    Attributes:
        left_out: how many the page has no room for, or cannot be shown.
    """

    candidate: str
    source: str | None
    shown: list[Case]
    left_out: int


def all_cases(results: Sequence[MeasureResult], look: Looking) -> dict[str, list[Cases]]:
    """The worst cases of every measure by its name, those of baselines left out.

    Where there are too many, each map keeps its worst ones.
    """
    chosen = [result for result in results if result.worst and not is_baseline(result)]
    shown: list[list[Case]] = [[] for _ in chosen]
    room = MOST_BYTES
    for index, place in turns([len(result.worst) for result in chosen]):
        if room <= 0:
            break
        worst = chosen[index].worst[place]
        seen = look(chosen[index], worst)
        if seen is None:
            continue
        case = _case(chosen[index], worst, seen)
        room -= sum(len(picture.uri) for picture in case.pictures)
        shown[index].append(case)
    found: dict[str, list[Cases]] = {}
    for result, cases in zip(chosen, shown, strict=True):
        left_out = len(result.worst) - len(cases)
        found.setdefault(result.measure, []).append(Cases(result.candidate, result.source, cases, left_out))
    return found


def _case(result: MeasureResult, worst: WorstCase, seen: Look) -> Case:
    return Case(
        draw(seen),
        seen.file,
        worst.about,
        seen.truth,
        seen.predicted,
        f"{100 * seen.probability:.0f} %",
        seen.explained,
        result.worst_by or result.title,
        brief(worst.value),
    )
