"""Models evaluated side by side on the same images: what ``konkyo evaluate`` does, as one function."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnxruntime
import torch

from konkyo.evaluation.bootstrap import Resampling
from konkyo.evaluation.comparing import Measured, compare
from konkyo.evaluation.config import EvaluateConfig
from konkyo.evaluation.drawing import draw
from konkyo.evaluation.examples import Examples
from konkyo.evaluation.facts import Facts, read_facts, why_nothing
from konkyo.evaluation.planning import Choice, Task, method_names, plan, require_methods
from konkyo.evaluation.recording import Subject, examples_path, records_path
from konkyo.evaluation.results import CandidateResult, DataResult, Results
from konkyo.evaluation.running import Pace, images_of, take
from konkyo.evaluation.summing import summarise
from konkyo.evaluation.table import read_table
from konkyo.models.card import ModelCard

RESULTS = "results.json"
COMPUTED_BY = ("konkyo", "torch", "torchvision", "numpy", "scipy", "opencv-python-headless")
"""Packages that a figure may depend on."""


def device_of(name: str) -> torch.device:
    """The device a setting means.

    Raises:
        ValueError: torch knows no such device, or it is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name}: {str(error).splitlines()[0]}") from None
    return device


def evaluate(
    subjects: Sequence[Subject],
    choices: Sequence[Choice],
    config: EvaluateConfig,
    out: Path,
    *,
    command: str = "",
    restart: bool = False,
) -> Results:
    """Measure, or go on where a run was interrupted, and write ``OUT/results.json``.

    Args:
        subjects: models, each with the same data as its network sees it.
        choices: the measures.
        config: settings.
        out: folder of the results; the records are in ``OUT/records``.
        command: that asked for it, for the report.
        restart: begin anew, whatever records there are.

    Raises:
        ValueError: a method that no model has, models that cannot be compared, an image that cannot be
            read, or records in the folder that were made otherwise.
        OSError: likewise of files.
    """
    _require_comparable(subjects)
    named = config.named("methods")
    if named is not None:
        require_methods(named, [subject.candidate for subject in subjects])
    order = draw(subjects[0].examples.truths(), config.seed)
    pace = Pace(config.batch_size, config.images or None, config.skip_broken, restart)
    identity = {"masks": config.masks, "classes": _digest(config.classes)}
    known: list[Facts] = []
    resampling = Resampling(config.resamples, config.level, config.seed)
    measured: list[Measured] = []
    for subject in subjects:
        tasks = plan(subject.candidate, choices, named or method_names(subject.candidate))
        take(subject, tasks, order, pace, out, identity)
        facts = _facts(subject, order, pace, out)
        known.append(facts)
        measured += _results(subject, tasks, order, pace, out, config.worst, resampling, facts)
    results = Results(
        command=command,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        settings=_settings(config, choices, subjects[0].candidate.device),
        versions=_versions(),
        data=_data(subjects[0].examples, known[0]),
        candidates=tuple(_candidate(subject) for subject in subjects),
        measures=tuple(compare(measured, resampling)),
    )
    _write(out / RESULTS, results.model_dump_json(indent=2) + "\n")
    return results


def _require_comparable(subjects: Sequence[Subject]) -> None:
    if not subjects:
        raise ValueError("there is no model to evaluate")
    name, times = Counter(subject.candidate.name for subject in subjects).most_common(1)[0]
    if times > 1:
        raise ValueError(f"two of the bundles are called {name}; give one of them another name")
    names = list(subjects[0].examples.names())
    if not names:
        raise ValueError(f"{subjects[0].examples.name}: there are no images")
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise ValueError(f"{subjects[0].examples.name}: {times} images are called {name}")
    for candidate, examples in subjects[1:]:
        if list(examples.names()) != names:
            raise ValueError(
                f"{candidate.name} would be given other images than {subjects[0].candidate.name}"
            )


def _digest(path: str | None) -> str | None:
    """Of the file, if it is one."""
    if path is None or not Path(path).is_file():
        return path
    return sha256(Path(path).read_bytes()).hexdigest()


def _facts(subject: Subject, order: Sequence[int], pace: Pace, out: Path) -> Facts:
    names = subject.examples.names()
    explained = {names[position] for position in order[: pace.images]}
    return read_facts(examples_path(out, subject.candidate), explained)


def _results(
    subject: Subject,
    tasks: Sequence[Task],
    order: Sequence[int],
    pace: Pace,
    out: Path,
    worst: int,
    resampling: Resampling,
    facts: Facts,
) -> Iterator[Measured]:
    candidate, examples = subject
    listed = examples.names()
    names = [listed[position] for position in order]
    for task in tasks:
        table, statistics = None, {}
        if task.measure is not None:
            path = records_path(out, candidate, task.name, task.choice.kind.name)
            table = read_table(path, names[: images_of(task, pace, len(order))])
            statistics = {item.name: item for item in task.measure.statistics()}
        nothing = why_nothing(task.choice.kind.wants, facts)
        result = summarise(candidate.name, task, table, resampling, worst, nothing)
        yield Measured(result, statistics, table)


def _versions() -> dict[str, str]:
    installed = {name: version(name) for name in COMPUTED_BY}
    # Its distribution has another name with CUDA than without.
    return {"python": platform.python_version(), **installed, "onnxruntime": onnxruntime.__version__}


def _data(examples: Examples, facts: Facts) -> DataResult:
    return DataResult(
        name=examples.name,
        description=examples.description,
        licence=examples.licence,
        images=facts.images,
        explained=facts.explained,
        marked=facts.marked,
        grouped=facts.grouped,
        skipped=facts.skipped,
    )


def _candidate(subject: Subject) -> CandidateResult:
    card = subject.candidate.card
    return CandidateResult(
        name=subject.candidate.name,
        digest=subject.candidate.bundle.digest,
        architecture=card.architecture,
        labels=card.labels,
        input=_input(card),
    )


def _input(card: ModelCard) -> str:
    spec = card.input
    share = f", {spec.crop_fraction:g} of the sides" if spec.crop_fraction < 1 else ""
    return f"{spec.width} x {spec.height}, {spec.resize_mode}{share}, {spec.interpolation}"


def _settings(config: EvaluateConfig, choices: Sequence[Choice], device: torch.device) -> dict[str, Any]:
    limits = {choice.kind.name: choice.limit for choice in choices if choice.limit is not None}
    return {**config.model_dump(mode="json"), "limit": limits, "device": str(device)}


def _write(path: Path, text: str) -> None:
    """As a whole or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
