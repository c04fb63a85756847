"""What is to be measured: which measures of which models by which methods, and why not the others."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.measures import measures
from konkyo.evaluation.measures.base import Measure, Parameters, Unsuited
from konkyo.evaluation.sources import BASELINES, Source, find_source, source_names
from konkyo.models.card import problems


@dataclass(frozen=True)
class Choice:
    """A measure that was chosen.

    Attributes:
        kind: its class.
        parameters: as set.
        limit: the most images it is taken on, None for as many as there are.
    """

    kind: type[Measure]
    parameters: Parameters
    limit: int | None = None


@dataclass(frozen=True)
class Task:
    """A measure to be taken of a model, by a method.

    Attributes:
        choice: which measure.
        name: of the method, None for a measure of the model alone.
        source: of the maps, None likewise and where it is unsuited.
        measure: None where it is unsuited.
        unsuited: why it cannot be taken.
    """

    choice: Choice
    name: str | None
    source: Source | None = None
    measure: Measure | None = None
    unsuited: str | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """The measure's parameters, as they came out."""
        settled = {} if self.measure is None else self.measure.settled()
        return {**self.choice.parameters.model_dump(mode="json"), **settled}


def choose(
    names: Sequence[str] | None,
    settings: Sequence[str] = (),
    limits: Sequence[str] = (),
    *,
    ordered: bool = False,
) -> list[Choice]:
    """The measures asked for, with their parameters.

    Args:
        names: of measures; None: all.
        settings: ``MEASURE.NAME=VALUE`` each, the value in JSON or a word.
        limits: ``MEASURE=N`` each.
        ordered: the classes are grades; told to every measure that wants to know.

    Raises:
        ValueError: a measure or a parameter that is not there, a value out of range.
    """
    known = measures()
    chosen = list(known) if names is None else list(names)
    given: dict[str, dict[str, Any]] = {}
    for item in settings:
        place, equals, value = item.partition("=")
        name, dot, parameter = place.partition(".")
        if not (equals and dot):
            raise ValueError(f"--set {item}: expected MEASURE.NAME=VALUE, such as pointing.tolerance=0")
        given.setdefault(name, {})[parameter] = _value(value)
    most = dict(_limit(item) for item in limits)
    for name in (*chosen, *given, *most):
        if name not in known:
            raise ValueError(f"there is no measure {name!r}; there are: {', '.join(known)}")
    for name in (*given, *most):
        if name not in chosen:
            raise ValueError(f"{name} is set, but not among the measures: {', '.join(chosen)}")
    return [
        Choice(known[name], _parameters(known[name], given.get(name, {}), ordered), most.get(name))
        for name in chosen
    ]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _limit(item: str) -> tuple[str, int]:
    name, _, number = item.partition("=")
    if not number.isdecimal() or not int(number):
        raise ValueError(f"--limit {item}: expected MEASURE=N, such as occlusion_correlation=50")
    return name, int(number)


def _parameters(kind: type[Measure], given: Mapping[str, Any], ordered: bool) -> Parameters:
    told = {"ordered": True} if ordered and "ordered" in kind.parameters.model_fields else {}
    try:
        return kind.parameters.model_validate({**told, **given})
    except ValidationError as error:
        fields = ", ".join(kind.parameters.model_fields) or "none"
        raise ValueError(f"{kind.name}: {problems(error)}; its parameters: {fields}") from None


def method_names(candidate: Candidate) -> list[str]:
    """What a model is explained by unless asked otherwise.

    Its own method, with the contribution map where there is one, Grad-CAM, and the baselines.
    """
    own = candidate.card.explanation.method
    return [
        name for name in source_names(candidate.card) if name in (own, "contribution", "gradcam", *BASELINES)
    ]


def require_methods(names: Sequence[str], candidates: Sequence[Candidate]) -> None:
    """Refuse what no model has.

    Raises:
        ValueError: a method that no candidate has.
    """
    for name in names:
        if all(isinstance(_source(name, candidate), str) for candidate in candidates):
            raise ValueError(str(_source(name, candidates[0])))


def plan(candidate: Candidate, choices: Sequence[Choice], methods: Sequence[str]) -> list[Task]:
    """Every measure by every method, or once where it wants no maps."""
    sources = {name: _source(name, candidate) for name in methods}
    return [task for choice in choices for task in _tasks(candidate, choice, sources)]


def _tasks(candidate: Candidate, choice: Choice, sources: Mapping[str, Source | str]) -> Iterator[Task]:
    if choice.kind.wants == "nothing":
        yield _task(candidate, choice, None, None)
        return
    for name, source in sources.items():
        if isinstance(source, str):
            yield Task(choice, name, unsuited=source)
        else:
            yield _task(candidate, choice, name, source)


def _task(candidate: Candidate, choice: Choice, name: str | None, source: Source | None) -> Task:
    try:
        measure = choice.kind(candidate, source, choice.parameters)
    except Unsuited as error:
        return Task(choice, name, unsuited=str(error))
    return Task(choice, name, source, measure)


def _source(name: str, candidate: Candidate) -> Source | str:
    """It, ready to be asked; or why there is none."""
    try:
        source = find_source(name, candidate)
        if method := getattr(source, "method", None):
            candidate.explained(method)
    except (KeyError, TypeError, ValueError) as error:
        return str(error.args[0])
    return source
