"""A run that ends itself in the middle: as a module for tests, and as a process of its own.

python interrupted.py OUT SIGNAL BATCH
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from toys import SIDE, Linear, Pictures, make_candidate, make_example, mark

from konkyo.evaluation.config import EvaluateConfig
from konkyo.evaluation.evaluating import evaluate
from konkyo.evaluation.examples import Batch
from konkyo.evaluation.measures.base import Curve, Mean, Measure, Parameters, Record, Statistic
from konkyo.evaluation.planning import Choice
from konkyo.evaluation.recording import Subject
from konkyo.evaluation.results import Results


class Neighbours(Measure):
    """Depends on what else is in the batch, as no measure should; so what a batch was made of shows."""

    name, title, reference, wants = "neighbours", "Neighbours", "a toy of these tests", "predicted"
    worst = "mean"

    def records(self, batch: Batch, targets: Tensor, maps: Tensor) -> Sequence[Record]:
        whole = batch.pixels.double().mean()
        own = batch.pixels.double().mean(dim=(1, 2, 3)) + 1000 * whole + len(batch)
        seen = maps.double().mean(dim=(1, 2, 3)).tolist()
        return [
            Record(place, {"own": value, "map": maps_mean, "curve": [value, maps_mean]})
            for place, (value, maps_mean) in enumerate(zip(own.tolist(), seen, strict=True))
        ]

    def statistics(self) -> Sequence[Statistic]:
        return (
            Statistic("mean", Mean("own"), "higher", "mean"),
            Statistic("middle", lambda columns: float(np.median(columns["map"])), "neither", "median"),
        )

    def curves(self) -> Sequence[Curve]:
        return (Curve("curve", "curve", (0.0, 1.0), "x", "y"),)


class Things(Neighbours):
    """Likewise, of each thing that is marked."""

    name, wants = "things", "marked"

    def records(self, batch: Batch, targets: Tensor, maps: Tensor) -> Sequence[Record]:
        found = super().records(batch, targets, maps)
        return [
            record._replace(about=thing.name)
            for record, example in zip(found, batch.examples, strict=True)
            for thing in example.marked or ()
        ]


class Alone(Neighbours):
    """Likewise, without maps; ends the process in a batch of the run."""

    name, wants = "alone", "nothing"
    ends: ClassVar[tuple[int, int] | None] = None
    """Signal, and in which batch; 0 raises instead."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.batches = 0

    def records(self, batch: Batch, targets: Tensor, maps: Tensor) -> Sequence[Record]:
        self.batches += 1
        if self.ends is not None and self.batches == self.ends[1]:
            if not self.ends[0]:
                raise RuntimeError("a fault of the device")
            os.kill(os.getpid(), self.ends[0])
        return super().records(batch, targets, torch.zeros(len(batch), 1, 1, 1))


def pictures(count: int = 20, broken: Sequence[str] = ()) -> Pictures:
    """Two classes, some in groups, some with something marked."""
    generator = np.random.default_rng(0)
    mask = np.eye(SIDE, dtype=bool)
    found = [
        make_example(
            generator.integers(0, 256, (SIDE, SIDE, 3), np.uint8),
            number % 2,
            (mark(mask, 0), mark(mask, 1, name="other")) if number % 3 else (),
            f"{number}.png",
            group=f"group {number // 2}" if number < 12 else None,
        )
        for number in range(count)
    ]
    return Pictures(found, frozenset(broken))


KINDS = (Neighbours, Alone, Things)


def run(out: Path, examples: Pictures | None = None, restart: bool = False, **settings: Any) -> Results:
    """Twenty images in batches of 4, maps of 14 of them, two measures of each method in between."""
    network = Linear(torch.randn(2, SIDE, SIDE, generator=torch.Generator().manual_seed(0)))
    usual = {"methods": "centre,random", "images": 14, "batch_size": 4, "resamples": 100, "worst": 3}
    config = EvaluateConfig(data="toy", **{**usual, **settings})
    choices = [Choice(kind, Parameters()) for kind in KINDS]
    subject = Subject(make_candidate(network), examples or pictures())
    return evaluate([subject], choices, config, out, restart=restart)


if __name__ == "__main__":
    Alone.ends = int(sys.argv[2]), int(sys.argv[3])
    run(Path(sys.argv[1]))
