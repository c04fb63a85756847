"""Worst cases looked at again: the image as the network saw it, its map, what was marked.

Shape legend: H, W input size, n boxes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from konkyo.errors import KonkyoError
from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.examples import Bool, Example, Float64
from konkyo.evaluation.recording import Subject
from konkyo.evaluation.report.look import Look
from konkyo.evaluation.results import MeasureResult, WorstCase
from konkyo.evaluation.sources import Source, find_source
from konkyo.perturbation.base import Float32

SIGNED = ("class_weight_map", "score_drop")
"""Kinds of maps whose negative part means as much as the other."""


class Viewer:
    """Looks at worst cases, for the report.

    Args:
        subjects: the models and data of the run.
    """

    def __init__(self, subjects: Sequence[Subject]) -> None:
        self._subjects = {subject.candidate.name: subject for subject in subjects}
        self._positions = {name: place for place, name in enumerate(subjects[0].examples.names())}
        self._maps: dict[tuple[str, str, str, int | None], Float32] = {}

    def __call__(self, measured: MeasureResult, case: WorstCase) -> Look | None:
        """Read the image anew, and explain it anew; None if it cannot be read any more."""
        candidate, examples = self._subjects[measured.candidate]
        try:
            example = examples.read(self._positions[case.example])
        except (KonkyoError, ValueError, OSError):
            return None
        pixels = torch.tensor(example.pixels)[None]
        probabilities = candidate.logits(pixels).softmax(dim=1)[0].cpu().numpy()
        predicted, labels = int(probabilities.argmax()), candidate.card.labels
        seen = Look(
            pixels=example.pixels,
            file=example.name,
            predicted=labels[predicted],
            probability=float(probabilities[predicted]),
            truth=None if example.truth is None else labels[example.truth],
            mask=_mask(example, case.about),
            boxes=_boxes(example, case.about),
        )
        if measured.source is None:
            return seen
        source = find_source(measured.source, candidate)
        # Several measures show the same map, and it may take hundreds of predictions.
        key = (candidate.name, source.name, case.example, case.target)
        if key not in self._maps:
            self._maps[key] = _map(source, candidate, pixels, case.target)
        return _with_map(seen, candidate, source, case.target, self._maps[key])


def _map(source: Source, candidate: Candidate, pixels: torch.Tensor, target: int | None) -> Float32:
    """Of one image: (1, H, W, 3) -> (h, w)."""
    targets = torch.tensor([[-1 if target is None else target]], device=candidate.device)
    return source.maps(candidate, pixels, targets)[0, 0].float().cpu().numpy()


def _with_map(seen: Look, candidate: Candidate, source: Source, target: int | None, found: Float32) -> Look:
    kinds = {method.method: method.map_kind for method in candidate.card.methods}
    explained = seen.predicted if target is None else candidate.card.labels[target]
    return seen._replace(
        map=found,
        explained=explained if source.class_specific else None,
        importance=source.importance,
        signed=source.name == "contribution" or kinds.get(source.name) in SIGNED,
    )


def _mask(example: Example, about: str) -> Bool | None:
    """Of the thing the case is about, or of all things: (H, W)."""
    things = [thing for thing in example.marked or () if about in ("", thing.name)]
    return np.logical_or.reduce([thing.mask for thing in things]) if things else None


def _boxes(example: Example, about: str) -> Float64 | None:
    """Likewise: (n, 4)."""
    things = [thing for thing in example.marked or () if about in ("", thing.name)]
    return np.concatenate([thing.boxes for thing in things]) if things else None
