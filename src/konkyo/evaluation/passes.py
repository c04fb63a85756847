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


def for_many_passes(candidate: Candidate) -> Candidate:
    """The same model, quicker; its logits are the same but for rounding.

    On a CPU its exported graph, where the bundle has one that gives its logits; else a copy of the
    network whose batch norms are folded into its convolutions. Ask it for no maps. What computes in
    another way already, or not in single precision, is taken as it is: that is the point of it.
    """
    weights = candidate.classifier.parameters()
    if type(candidate) is not Candidate or any(weight.dtype != torch.float32 for weight in weights):
        return candidate
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
