"""Who beats whom: methods against baselines, and each against the others.

Two figures are told apart when the interval of their difference, over the same draws of the same images,
leaves out 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from konkyo.evaluation.comparing import Entry, best_baseline, entries_of
from konkyo.evaluation.report.words import Question, words_of
from konkyo.evaluation.results import DifferenceResult, FigureResult, MeasureResult

Standing = Literal["better", "open", "worse"]
Outcome = Standing | Literal["few", "passes", "fails"]
State = Literal["yes", "part", "open", "no", "few", "unknown"]


def difference(figure: FigureResult, other: Entry) -> DifferenceResult | None:
    """By how much a figure is larger than another, where that was asked."""
    of = other.result.candidate, other.result.source
    return next((item for item in figure.differences if (item.candidate, item.source) == of), None)


def standing(figure: FigureResult, other: Entry) -> Standing:
    """How a figure stands to another: ``open`` where the interval of their difference holds 0."""
    found = difference(figure, other)
    if found is None or found.low is None or found.high is None:
        return "open"
    above, below = found.low > 0, found.high < 0
    if figure.better == "lower":
        above, below = below, above
    return "better" if above else "worse" if below else "open"


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
    baseline = None if figure is None else best_baseline(entries_of(same, figure.name), result.candidate)
    if figure is None or baseline is None:
        return None
    return "few" if figure.few or baseline.figure.few else standing(figure, baseline)


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
