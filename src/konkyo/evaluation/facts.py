"""What is known of the images of a run, for the report."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from konkyo.evaluation.lines import EXAMPLE, read_lines
from konkyo.evaluation.measures.base import Wants


class Facts(NamedTuple):
    """What is known of the images of a model's run.

    Attributes:
        images: that could be read.
        explained: of them, those that maps were measured on.
        truths: of them, those whose class is known.
        masked: of those explained, those of which it is known what is to be marked.
        marked: of those explained, those with something marked in them.
        grouped: whether one is in a group.
        skipped: those that could not be read, and why.
    """

    images: int
    explained: int
    truths: int
    masked: int
    marked: int
    grouped: bool
    skipped: tuple[str, ...]


def read_facts(path: Path, explained: Collection[str]) -> Facts:
    """From the file of the images.

    Args:
        path: of the file.
        explained: names of the images that maps are measured on.
    """
    lines = list(read_lines(path))
    read = [line for line in lines if not line["broken"]]
    shown = [line for line in read if line[EXAMPLE] in explained]
    return Facts(
        images=len(read),
        explained=len(shown),
        truths=sum(line["truth"] is not None for line in read),
        masked=sum(line["marked"] is not None for line in shown),
        marked=sum(bool(line["marked"]) for line in shown),
        grouped=any(line["group"] is not None for line in read),
        skipped=tuple(line["broken"] for line in lines if line["broken"]),
    )


def why_nothing(wants: Wants, facts: Facts) -> str:
    """Why a measure has nothing to say of any image."""
    reasons = []
    if not facts.truths and wants != "marked":
        reasons.append("the true classes are not known")
    if not facts.masked:
        reasons.append("no image has masks or boxes")
    elif not facts.marked:
        reasons.append("nothing is marked in any image")
    elif wants == "marked":
        reasons.append("nothing that is marked is a class of the model")
    return "; ".join(reasons) or "there is no image it can say anything of"
