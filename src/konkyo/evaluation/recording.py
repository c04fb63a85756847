"""What a run writes down of an image, and where.

Shape legend: B batch, K targets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.examples import Batch, Examples
from konkyo.evaluation.lines import EXAMPLE
from konkyo.evaluation.measures.base import Record, Wants


class Subject(NamedTuple):
    """A model, and the data as its network sees it."""

    candidate: Candidate
    examples: Examples


def records_path(out: Path, candidate: Candidate, name: str | None, measure: str) -> Path:
    """The file of a measure's records; ``name`` is the method's, None for the model alone."""
    return out / "records" / candidate.name / (name or "model").replace(":", "-") / f"{measure}.jsonl"


def examples_path(out: Path, candidate: Candidate) -> Path:
    """The file of what is known of each image."""
    return out / "records" / candidate.name / "examples.jsonl"


def made_by(subject: Subject) -> dict[str, Any]:
    """What the records of a model on its data must have in common, as JSON."""
    candidate, examples = subject
    names = hashlib.sha256("\0".join(examples.names()).encode(errors="surrogateescape")).hexdigest()
    data = {"name": examples.name, "description": examples.description, "images": names}
    return {
        "candidate": candidate.name,
        "digest": candidate.bundle.digest,
        "device": candidate.device.type,
        "data": {**data, "content": examples.digest()},
        "versions": {name: version(name) for name in ("konkyo", "torch")},
    }


def about(batch: Batch) -> list[dict[str, Any]]:
    """What is known of images, for the report."""
    return [
        {
            EXAMPLE: example.name,
            "broken": None,
            "truth": example.truth,
            "predicted": predicted,
            "marked": None if example.marked is None else len(example.marked),
            "group": example.group,
        }
        for example, predicted in zip(batch.examples, batch.logits.argmax(dim=1).tolist(), strict=True)
    ]


def lines_of(
    batch: Batch, wants: Wants, targets: Tensor, records: Sequence[Record], seconds: float
) -> list[dict[str, Any]]:
    """A line for each image, also for those a measure has nothing to say of."""
    lines: list[dict[str, Any]] = [
        {EXAMPLE: example.name, "group": example.group, "seconds": seconds, "records": []}
        for example in batch.examples
    ]
    for record in records:
        target = _target(batch, wants, targets, record)
        line = {"about": record.about, "target": target, "values": record.values}
        lines[record.position]["records"].append(line)
    return lines


def _target(batch: Batch, wants: Wants, targets: Tensor, record: Record) -> int | None:
    """Class of the map a record is about: of several the predicted one, None of no map."""
    of_image: list[int] = targets[record.position].tolist()
    if wants == "nothing":
        return None
    if wants == "all":
        return int(batch.logits[record.position].argmax())
    if wants != "marked":
        return of_image[0] if of_image[0] >= 0 else None
    things = batch.examples[record.position].marked or ()
    of_name = [target for thing, target in zip(things, of_image, strict=False) if thing.name == record.about]
    return next((target for target in of_name if target >= 0), None)
