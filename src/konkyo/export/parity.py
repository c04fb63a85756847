"""Does the exported graph compute what the network computes? Figures, not trust."""

from __future__ import annotations

from dataclasses import asdict, dataclass

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

_SEVERAL = 3


@dataclass(frozen=True)
class Comparison:
    """Largest differences at one batch size and number of targets.

    ``logits`` and ``maps`` are relative to the range of all logits and of all maps of the images.
    """

    batch_size: int
    num_targets: int
    logits: float
    maps: float

    def __str__(self) -> str:
        return (
            f"batch {self.batch_size}, {self.num_targets} targets: "
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


def check_parity(model: Explained, graph: bytes, images: UInt8, *, tolerance: float = TOLERANCE) -> Parity:
    """Compare the network in PyTorch with its exported graph in ONNX Runtime.

    Batches of 1, 7 and all images, each with no target, with the predicted class, and with several
    classes that differ from image to image.

    Args:
        model: the network, in eval mode.
        graph: what ``export_onnx`` returned for it.
        images: (n, H, W, 3), n >= 1; real ones, because noise does not reach every ReLU.
        tolerance: largest relative difference allowed.

    Raises:
        ParityError: a difference is over the tolerance, or not a number; the message gives figures.
    """
    exported = OnnxModel(graph)
    logits, maps = _run_torch(model, images, _targets(len(images), _SEVERAL, model))
    ranges = float(np.ptp(logits)), float(np.ptp(maps))
    comparisons = []
    for batch_size in sorted({1, min(7, len(images)), len(images)}):
        batch = images[:batch_size]
        for num_targets in (0, 1, _SEVERAL):
            targets = _targets(batch_size, num_targets, model)
            pairs = zip(_run_torch(model, batch, targets), exported(batch, targets), ranges, strict=True)
            figures = (_difference(*pair) for pair in pairs)
            comparisons.append(Comparison(batch_size, num_targets, *figures))
    parity = Parity(tuple(comparisons))
    if not parity.largest <= tolerance:  # this way round, NaN fails
        failing = [item for item in comparisons if not max(item.logits, item.maps) <= tolerance]
        raise ParityError(
            f"the exported graph differs from the network by more than {tolerance:g} of the range: "
            + "; ".join(map(str, failing)),
            tolerance=tolerance,
            comparisons=[asdict(item) for item in comparisons],
        )
    return parity


def _targets(batch: int, number: int, model: Explained) -> Int64:
    """(B, K): none, the predicted class, or classes that differ from image to image."""
    if number <= 1:
        return np.full((batch, number), -1)
    classes = as_network(model.classifier.network).num_classes
    return (np.arange(batch)[:, None] + np.arange(number)) % classes


def _run_torch(model: Explained, images: UInt8, targets: Int64) -> tuple[Float32, Float32]:
    with torch.no_grad():
        logits, maps = model(torch.tensor(images), torch.tensor(targets))  # copies: images may be read-only
    return logits.numpy(), maps.numpy()


def _difference(expected: Float32, found: Float32, value_range: float) -> float:
    if expected.shape != found.shape:
        return float("inf")
    difference = float(np.abs(expected - found).max(initial=0))
    return difference / value_range if difference else 0.0
