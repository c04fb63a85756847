"""Who beats whom, by intervals alone: methods against baselines, and each against the others.

Two figures are told apart when their intervals do not overlap. That is a strict test: two methods with
overlapping intervals may still differ, but these images do not settle it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from konkyo.evaluation.measures.base import Better
from konkyo.evaluation.report.words import Question, words_of
from konkyo.evaluation.results import FigureResult, MeasureResult
from konkyo.evaluation.sources import BASELINES

Standing = Literal["better", "open", "worse"]
Outcome = Standing | Literal["few", "passes", "fails"]
State = Literal["yes", "part", "open", "no", "few", "unknown"]


def is_baseline(result: MeasureResult) -> bool:
    """Whether its maps never ask the model."""
    return result.source in BASELINES


def standing(figure: FigureResult, other: FigureResult) -> Standing:
    """How a figure stands to another: ``open`` where the intervals overlap or one has none."""
    if figure.low is None or figure.high is None or other.low is None or other.high is None:
        return "open"
    above, below = figure.low > other.high, figure.high < other.low
    if figure.better == "lower":
        above, below = below, above
    return "better" if above else "worse" if below else "open"


def best(figures: Iterable[FigureResult], better: Better) -> FigureResult | None:
    """The one with the best value; None where there is none, or where neither way is better."""
    known = [figure for figure in figures if figure.value is not None]
    if not known or better == "neither":
        return None
    return (max if better == "higher" else min)(known, key=lambda figure: figure.value or 0)


class Baseline(NamedTuple):
    """What must be beaten.

    Attributes:
        source: its name.
        figure: its figure.
    """

    source: str
    figure: FigureResult


def best_baseline(results: Sequence[MeasureResult], candidate: str, figure: str) -> Baseline | None:
    """The best of the baselines that were measured on a model; ``results`` are of one measure."""
    known = [
        Baseline(str(result.source), item)
        for result in results
        if result.candidate == candidate and is_baseline(result)
        for item in result.figures
        if item.name == figure
    ]
    found = best([item.figure for item in known], known[0].figure.better) if known else None
    return next((item for item in known if item.figure is found), None)


class Comparison(NamedTuple):
    """A method against the best baseline by one measure, or against what every map must pass.

    Attributes:
        short: name of the measure in a sentence.
        outcome: ``few`` where too few images decide nothing, whatever their intervals; ``fails`` where most
            maps do.
    """

    measure: str
    short: str
    outcome: Outcome


class Verdict(NamedTuple):
    """The answer to a question for one method.

    Attributes:
        state: better than the baselines by all measures, by some, by none but not worse by all, worse by all;
            those of too few images count only where there are no others; ``no`` where maps fail.
        comparisons: what it rests on.
    """

    state: State
    comparisons: tuple[Comparison, ...]

    def of(self, outcome: Outcome) -> list[Comparison]:
        """Those that came out so."""
        return [item for item in self.comparisons if item.outcome == outcome]


def verdict(measures: Sequence[MeasureResult], candidate: str, source: str, question: Question) -> Verdict:
    """Hold a method against the baselines in every measure of a question that has one to beat."""
    found = []
    for result in measures:
        words = words_of(result.measure, result.title)
        if (result.candidate, result.source) == (candidate, source) and words.question == question:
            outcome = _outcome(result, [other for other in measures if other.measure == result.measure])
            if outcome is not None:
                found.append(Comparison(result.measure, words.short, outcome))
    return Verdict(_state({item.outcome for item in found}), tuple(found))


def judged(result: MeasureResult) -> FigureResult | None:
    """The figure by which a measure is judged; None where it has no value."""
    name = words_of(result.measure, result.title).figure or result.figures[0].name
    found = next((figure for figure in result.figures if figure.name == name), None)
    return None if found is None or found.value is None else found


def _outcome(result: MeasureResult, same: Sequence[MeasureResult]) -> Outcome | None:
    words = words_of(result.measure, result.title)
    failing = next((figure for figure in result.figures if figure.name == words.fails), None)
    if failing is not None and failing.value is not None:
        return "few" if failing.few else "fails" if failing.value > 0.5 else "passes"
    figure = judged(result) if words.judged and result.figures else None
    baseline = None if figure is None else best_baseline(same, result.candidate, figure.name)
    if figure is None or baseline is None:
        return None
    return "few" if figure.few or baseline.figure.few else standing(figure, baseline.figure)


def _state(outcomes: set[Outcome]) -> State:
    if "fails" in outcomes:
        return "no"
    compared = outcomes - {"passes"}
    settled = compared - {"few"}
    if not settled:
        return "few" if compared else "unknown"
    if "better" in settled:
        return "yes" if settled == {"better"} else "part"
    return "open" if "open" in settled else "no"
