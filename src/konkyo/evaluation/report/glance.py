"""The first screen: of each map of each model, whether it may be trusted for what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from konkyo.evaluation.comparing import is_baseline
from konkyo.evaluation.report.numbers import counted, decimals, interval, listed, number
from konkyo.evaluation.report.verdicts import State, Verdict, verdict
from konkyo.evaluation.report.words import Question, words_of
from konkyo.evaluation.results import MeasureResult, Results

ANSWERS: dict[State, str] = {
    "yes": "Yes",
    "part": "In part",
    "open": "Not settled",
    "no": "No",
    "few": "Too few images",
    "unknown": "Not measured",
}

PLACE: dict[State, str] = {
    "yes": "May be read as the place of the thing",
    "part": "Read it as the place of the thing with care",
    "open": "Not proven to show the place of the thing",
    "no": "Do not read it as the place of the thing",
    "few": "Too few images to tell whether it shows the place of the thing",
    "unknown": "Not compared as to the place of the thing",
}
DECISION: dict[State, str] = {
    "yes": "may be read as the reason of the answer",
    "part": "read it as the reason of the answer with care",
    "open": "not proven to show the reason of the answer",
    "no": "do not read it as the reason of the answer",
    "few": "too few images to tell whether it shows the reason of the answer",
    "unknown": "not compared as to the reason of the answer",
}
ALIKE: dict[State, str] = {
    "yes": "May be read as the place of the thing and as the reason of the answer.",
    "part": "Read it with care, both as the place of the thing and as the reason of the answer.",
    "open": "Not proven: more images may settle it. Until then, do not rely on it.",
    "no": "Do not rely on it.",
    "few": "Too few images to tell.",
    "unknown": "Not compared with a map that never asks the model.",
}
"""Where place and decision came out alike."""
_WORTH: dict[State, int] = {"yes": 4, "part": 3, "open": 2, "few": 1, "unknown": 1, "no": 0}


class Seen(NamedTuple):
    """A figure without a baseline to beat.

    Attributes:
        measure: its name.
        short: the same in a sentence.
        title: of the figure.
        interval: may be empty.
    """

    measure: str
    short: str
    title: str
    value: str
    interval: str


class Standing(NamedTuple):
    """A map of a model.

    Attributes:
        conclusion: what one may take from it, in a sentence.
    """

    candidate: str
    source: str
    place: Verdict
    decision: Verdict
    steady: list[Seen]
    conclusion: str

    @property
    def worth(self) -> tuple[int, int]:
        """What makes a map the one to look at."""
        beaten = len(self.place.of("better")) + len(self.decision.of("better"))
        return _WORTH[self.place.state] + _WORTH[self.decision.state], beaten


class Lead(NamedTuple):
    """A model in short.

    Attributes:
        answers: how often it is right.
        map: the one to look at, or the nearest to it; None where none stands above a baseline.
        trusted: whether by every measure of a question, and nothing speaks against it in the other.
        text: what is known of that one, or why there is none.
    """

    candidate: str
    answers: list[Seen]
    map: str | None
    trusted: bool
    text: str


class Glance(NamedTuple):
    """All of it."""

    leads: list[Lead]
    groups: list[tuple[str, list[Standing]]]
    steady: bool
    few: bool


def glance(results: Results) -> Glance:
    """Hold every map against the baselines."""
    taken = [result for result in results.measures if result.figures]
    pairs = dict.fromkeys(
        (result.candidate, result.source)
        for result in taken
        if result.source is not None and not is_baseline(result)
    )
    standings = [_standing(taken, candidate, source) for candidate, source in pairs if source is not None]
    few = any(each.place.of("few") or each.decision.of("few") for each in standings)
    leads = [_lead(taken, item.name, standings) for item in results.candidates]
    groups = [
        (item.name, [standing for standing in standings if standing.candidate == item.name])
        for item in results.candidates
    ]
    groups = [group for group in groups if group[1]]
    return Glance(leads, groups, any(item.steady for item in standings), few)


def _standing(taken: Sequence[MeasureResult], candidate: str, source: str) -> Standing:
    place, decision = (verdict(taken, candidate, source, question) for question in ("place", "decision"))
    return Standing(
        candidate, source, place, decision, _seen(taken, candidate, source, "steady"),
        _conclusion(place.state, decision.state),
    )  # fmt: skip


def _seen(
    taken: Sequence[MeasureResult], candidate: str, source: str | None, question: Question
) -> list[Seen]:
    """The first figure of each measure of a question."""
    found = []
    for result in taken:
        fits = words_of(result.measure, result.title).question == question
        if fits and (result.candidate, result.source) == (candidate, source):
            first = result.figures[0]
            places = min(decimals([first]), 2)
            short = words_of(result.measure, result.title).short
            value, ends = number(first.value, places), interval(first, places)
            found.append(Seen(result.measure, short, first.title, value, ends))
    return found


def _conclusion(place: State, decision: State) -> str:
    return ALIKE[place] if place == decision else f"{PLACE[place]}; {DECISION[decision]}."


def _lead(taken: Sequence[MeasureResult], candidate: str, standings: Sequence[Standing]) -> Lead:
    own = [item for item in standings if item.candidate == candidate]
    answers = _seen(taken, candidate, None, "answer")[:1]
    if all(_states(item) == {"unknown"} for item in own):
        text = "Its maps were not compared with a map that never asks the model."
        return Lead(candidate, answers, None, trusted=False, text=text)
    top = max(own, key=lambda item: item.worth)
    if not top.worth[1]:
        states = {state for item in own for state in _states(item)} - {"unknown"}
        return Lead(candidate, answers, None, trusted=False, text=_nothing(states))
    above = [
        f"{len(found.of('better'))} of {counted(len(compared), 'measure')} of {what}"
        for found, what in ((top.place, "place"), (top.decision, "the decision"))
        if (compared := [item for item in found.comparisons if item.outcome not in ("passes", "fails")])
    ]
    trusted = "yes" in _states(top) and not _states(top) & {"no", "open"}
    text = f"better than a map that never asks the model in {listed(above)}"
    return Lead(candidate, answers, top.source, trusted, text)


def _states(item: Standing) -> set[State]:
    return {item.place.state, item.decision.state}


def _nothing(states: set[State]) -> str:
    """Why there is no map to look at."""
    if states == {"few"}:
        return (
            "These images are too few to tell whether its maps are better than one that never asks the model."
        )
    if states == {"no"}:
        return "Each of its maps is worse than one that never asks the model: do not rely on them."
    return "None of its maps is shown to be better than one that never asks the model: do not rely on them."
