"""Toy models whose answers are known, examples without files, and maps given by hand."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.examples import Batch, Example, Marked
from konkyo.evaluation.measures.base import Measure, Record
from konkyo.evaluation.sources import Source
from konkyo.evaluation.wanted import targets_of
from konkyo.imaging import Geometry
from konkyo.models.bundle import Bundle
from konkyo.models.card import (
    Canary,
    ExplanationSpec,
    FileEntry,
    InputSpec,
    MethodSpec,
    ModelCard,
    Provenance,
)
from konkyo.models.classifier import Classifier
from konkyo.models.explained import Explained

SIDE = 8


class Linear(nn.Module):
    """Logits that are weighted means of the image's grey values; weights (N, H, W), bias (N,)."""

    def __init__(self, weights: Tensor, bias: Sequence[float] | None = None) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)
        self.bias = nn.Parameter(torch.tensor(bias) if bias else torch.zeros(len(weights)))

    def forward(self, image: Tensor) -> Tensor:
        return torch.einsum("bhw,nhw->bn", image.mean(dim=1), self.weights) + self.bias


class NoMaps(nn.Module):
    """An explanation with an empty map, for toys that are only asked for logits."""

    name, map_kind, class_specific = "none", "class_weight_map", True
    takes_attention, takes_layer, differentiates, scales = False, False, False, 1

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return self.network(image), torch.zeros(*targets.shape, 1, 1)


class Plain(Explained):
    """A classifier without a registered explanation."""

    def __init__(self, classifier: Classifier) -> None:
        nn.Module.__init__(self)
        self.classifier = classifier
        self.explanation = NoMaps(classifier.network)


def make_candidate(
    network: nn.Module,
    classes: int = 2,
    side: int = SIDE,
    method: str | None = None,
    **normalisation: Sequence[float],
) -> Candidate:
    """A candidate without files. ``method`` is a registered explanation; None: no maps of its own."""
    classifier = Classifier(network.eval(), **normalisation)
    explained = Plain(classifier) if method is None else Explained(classifier, method)
    own = explained.explanation
    spec = MethodSpec(
        method=own.name, map_kind=own.map_kind, class_specific=own.class_specific, needs="weights"
    )
    card = ModelCard(
        name="toy", version="1", architecture="toy", arguments={},
        labels=tuple(f"class {index}" for index in range(classes)),
        input=InputSpec(width=side, height=side, mean=(0, 0, 0), std=(1, 1, 1)),
        explanation=ExplanationSpec(
            method=own.name, map_kind=own.map_kind, class_specific=own.class_specific, range=(0, 1)
        ),
        methods=(spec,),
        provenance=Provenance(data="none", licence="none", command="none", date="2026-01-01", parameters=1),
        canary=Canary(file="canary.png", logits=(0.0,) * classes),
        files={name: FileEntry(sha256="0" * 64, bytes=1) for name in ("canary.png", "weights.safetensors")},
    )  # fmt: skip
    return Candidate(Bundle(Path("toy/1"), card, "sha256:0"), explained)


class Given(Source):
    """Maps given by hand: (h, w) for every image and class, or (B, K, h, w)."""

    def __init__(self, maps: Tensor, name: str = "given") -> None:
        super().__init__(name)
        self.given = maps

    def maps(self, candidate: Candidate, pixels: Tensor, targets: Tensor) -> Tensor:
        return self.given if self.given.ndim == 4 else self.given.expand(*targets.shape, *self.given.shape)


def make_example(
    pixels: npt.NDArray[np.uint8],
    truth: int | None = None,
    marked: tuple[Marked, ...] | None = None,
    name: str = "image",
    group: str | None = None,
) -> Example:
    height, width = pixels.shape[:2]
    geometry = Geometry((width, height), 1, (0, 0, width, height), (width, height))
    return Example(name, pixels, geometry, truth, marked, group)


def mark(mask: npt.NDArray[np.bool_], *classes: int, name: str = "thing") -> Marked:
    """A thing with one box around its whole mask; no box around nothing."""
    rows, columns = np.nonzero(mask)
    boxes = [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]] if len(rows) else []
    return Marked(name, classes or (0,), mask, np.array(boxes, np.float64).reshape(-1, 4))


def make_batch(candidate: Candidate, *examples: Example) -> Batch:
    pixels = torch.from_numpy(np.stack([example.pixels for example in examples]))
    return Batch(examples, pixels, candidate.logits(pixels))


@dataclass(frozen=True)
class Pictures:
    """Examples in memory; those named in ``broken`` cannot be read."""

    items: Sequence[Example]
    broken: frozenset[str] = frozenset()
    name: str = "pictures"
    description: str = "made for a test"
    licence: str = "none"
    ordered: bool = False

    def __len__(self) -> int:
        return len(self.items)

    def names(self) -> Sequence[str]:
        return [item.name for item in self.items]

    def truths(self) -> Sequence[int | None]:
        return [item.truth for item in self.items]

    def digest(self) -> str:
        return str(zlib.crc32(b"".join(item.pixels.tobytes() for item in self.items)))

    def read(self, index: int) -> Example:
        item = self.items[index]
        if item.name in self.broken:
            raise ValueError(f"{item.name}: cannot be read")
        return item


class Taken(NamedTuple):
    """A measure of one batch: its records, their columns, its figures and its notes."""

    records: Sequence[Record]
    columns: dict[str, npt.NDArray[np.float64]]
    figures: dict[str, float]
    notes: Sequence[str]


def take(
    kind: type[Measure],
    source: Source,
    *examples: Example,
    candidate: Candidate | None = None,
    **settings: Any,
) -> Taken:
    """Take a measure of some examples by a source's maps; the candidate matters for what it predicts."""
    candidate = candidate or make_candidate(Linear(torch.zeros(2, SIDE, SIDE)))
    measure = kind(candidate, source, kind.parameters(**settings))
    batch = make_batch(candidate, *examples)
    targets = targets_of(kind.wants, batch)
    records = measure.records(batch, targets, source.maps(candidate, batch.pixels, targets))
    names = records[0].values if records else ()
    columns = {name: np.array([record.values[name] for record in records], np.float64) for name in names}
    figures = {item.name: item.of(columns) for item in measure.statistics()} if records else {}
    return Taken(records, columns, figures, measure.notes(columns) if records else ())
