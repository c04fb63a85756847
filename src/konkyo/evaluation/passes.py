"""Many forward passes of one network, as measures that perturb images ask for."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.exported import exported
from konkyo.models.folding import fold_batch_norms

Logits = Callable[[Tensor], Tensor]
"""Images (b, ...) to logits (b, N)."""

ON_CPU = 16
"""Images at once on a CPU: its convolutions are quickest for whole multiples of 16, and the features of
larger batches leave its cache for memory that is mapped anew in every layer."""
PIXELS_ON_GPU = 2**24
"""Pixels of the images at once elsewhere; at most ``MOST_ON_GPU`` images."""
MOST_ON_GPU = 1024


def for_many_passes(candidate: Candidate) -> Candidate:
    """The same model, quicker; its logits are the same but for rounding.

    On a CPU its exported graph, where the bundle has one that gives its logits; else a copy of the
    network whose batch norms are folded into its convolutions. Ask it for no maps.
    """
    return candidate.once("many passes", lambda: _quick(candidate))


def _quick(candidate: Candidate) -> Candidate:
    quick = exported(candidate)
    if quick is not None:
        return quick
    classifier = copy.deepcopy(candidate.classifier)
    try:
        fold_batch_norms(classifier.network)
    except ValueError:  # it cannot be traced
        return candidate
    return candidate.with_classifier(classifier.to(memory_format=torch.channels_last))


def largest_batch(device: torch.device, size: tuple[int, int]) -> int:
    """The most images of H, W to take at once on a device."""
    if device.type == "cpu":
        return ON_CPU
    return min(max(PIXELS_ON_GPU // (size[0] * size[1]), 1), MOST_ON_GPU)
