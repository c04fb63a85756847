"""Does the exported graph compute what the network computes? Figures, not trust."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from konkyo.errors import ParityError
from konkyo.export.onnx import Float32, Int64, OnnxModel
from konkyo.imaging import UInt8
from konkyo.models.explained import Explained
from konkyo.models.registry import as_network

TOLERANCE = 1e-4
"""Largest difference allowed, as a share of the range of the values compared.

Two correct float32 runtimes differ by about 1e-6; a wrong graph by far more than this.
"""

SEVERAL = 3
"""Targets that are tried at once."""

_EDITS = ((3, 5), (47, 34))
"""Rows and columns of the edited attention maps that are tried: coarser and finer than most grids."""


@dataclass(frozen=True)
class Comparison:
    """Largest differences at one batch size and number of targets.

    ``logits`` and ``maps`` are relative to the range of all logits and of all maps of the images.
    ``edit`` has the images, rows and columns of the edited attention map, if there was one.
    """

    batch_size: int
    num_targets: int
    logits: float
    maps: float
    edit: tuple[int, ...] | None = None

    def __str__(self) -> str:
        edit = f"edit {'x'.join(map(str, self.edit))}, " if self.edit else ""
        return (
            f"batch {self.batch_size}, {edit}{self.num_targets} targets: "
            f"logits {self.logits:.1e}, maps {self.maps:.1e}"
        )


@dataclass(frozen=True)
class Parity:
    """Every comparison that was made."""

    comparisons: tuple[Comparison, ...]

    @property
    def largest(self) -> float:
        """The largest difference of all; NaN if any is."""
        return float(np.max([[item.logits, item.maps] for item in self.comparisons]))


def check_parity(
    model: Explained, graph: bytes | Path, images: UInt8, *, tolerance: float = TOLERANCE
) -> Parity:
    """Compare the network in PyTorch with its exported graph in ONNX Runtime.

    Batches of 1, 7 and all images, each with no target, with the predicted class, and with several
    classes that differ from image to image; and, where the map may be edited, with edits of some of
    its cells at other resolutions, one for each image and one for all.

    Args:
        model: the network, in eval mode.
        graph: what ``export_onnx`` returned for it, or the path of it.
        images: (n, H, W, 3), n >= 1; real ones, because noise does not reach every ReLU.
        tolerance: largest relative difference allowed.

    Raises:
        ParityError: a difference is over the tolerance, or not a number; the message gives figures.
    """
    exported = OnnxModel(graph)
    comparisons = []
    classes = as_network(model.classifier.network).num_classes
    for edits in _edits(model, len(images)):
        expected = run_torch(model, images, targets_for(len(images), SEVERAL, classes), edits)
        ranges = [float(np.ptp(values)) for values in expected]
        for batch_size in sorted({1, min(7, len(images)), len(images)}):
            batch = images[:batch_size]
            edit = None if edits is None else edits[:batch_size]
            for num_targets in (0, 1, SEVERAL) if edit is None else (1,):
                targets = targets_for(batch_size, num_targets, classes)
                found = exported(batch, targets, edit)
                pairs = zip(run_torch(model, batch, targets, edit), found, ranges, strict=True)
                logits, maps = (difference(*pair) for pair in pairs)
                shape = None if edit is None else edit.shape
                comparisons.append(Comparison(batch_size, num_targets, logits, maps, shape))
    return judge(comparisons, "the exported graph differs from the network", tolerance=tolerance)


def judge(comparisons: Sequence[Comparison], failure: str, *, tolerance: float = TOLERANCE) -> Parity:
    """The comparisons, if none is over the tolerance.

    Raises:
        ParityError: one is, or is not a number; the message says what ``failure`` that is, with figures.
    """
    parity = Parity(tuple(comparisons))
    if not parity.largest <= tolerance:  # this way round, NaN fails
        failing = [item for item in comparisons if not max(item.logits, item.maps) <= tolerance]
        raise ParityError(
            f"{failure} by more than {tolerance:g} of the range: " + "; ".join(map(str, failing)),
            tolerance=tolerance,
            comparisons=[asdict(item) for item in comparisons],
        )
    return parity


def targets_for(batch: int, number: int, classes: int) -> Int64:
    """(B, K): none, the predicted class, or classes that differ from image to image."""
    if number <= 1:
        return np.full((batch, number), -1)
    return (np.arange(batch)[:, None] + np.arange(number)) % classes


def _edits(model: Explained, number: int) -> Iterator[Float32 | None]:
    """None, and for maps that take them edits (number, h', w') and (1, h', w') of about half the cells."""
    yield None
    if model.explanation.takes_attention:
        generator = np.random.default_rng(0)
        for size in _EDITS:
            yield generator.uniform(-1, 1, (number, *size)).astype(np.float32)
        yield generator.uniform(-1, 1, (1, *_EDITS[0])).astype(np.float32)


def run_torch(
    model: Explained, images: UInt8, targets: Int64, attention: Float32 | None = None
) -> tuple[Float32, Float32]:
    """The network in PyTorch, called like ``OnnxModel``."""
    # torch.tensor copies: images may be read-only
    edit = None if attention is None else torch.tensor(attention)
    with torch.no_grad():
        logits, maps = model(torch.tensor(images), torch.tensor(targets), edit)
    return logits.numpy(), maps.numpy()


def difference(expected: Float32, found: Float32, value_range: float) -> float:
    """The largest, as a share of a range; infinite where the shapes differ."""
    if expected.shape != found.shape:
        return float("inf")
    difference = float(np.abs(expected - found).max(initial=0))
    return difference / value_range if difference else 0.0
