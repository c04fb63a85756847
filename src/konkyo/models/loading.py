"""From the files of a bundle back to the network, in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from konkyo.errors import BundleError
from konkyo.models.bundle import WEIGHTS, Bundle
from konkyo.models.classifier import Classifier
from konkyo.models.explained import Explained
from konkyo.models.registry import build


def load_explained(bundle: Bundle) -> Explained:
    """The network of a bundle with its explanation, in eval mode, on the CPU.

    Raises:
        BundleError: there are no weights, or they are not those of the network the card describes.
    """
    path = bundle.file(WEIGHTS)
    if path is None:
        raise BundleError(
            f"{bundle.path}: the card names no {WEIGHTS}, which PyTorch needs; ONNX Runtime can serve it",
            file=WEIGHTS,
        )
    card = bundle.card
    return assemble(card.architecture, card.arguments, len(card.labels), card.explanation.method, path)


def assemble(
    architecture: str, arguments: Mapping[str, Any], num_classes: int, method: str, weights: Path
) -> Explained:
    """Build a network as a card describes it, and give it its weights.

    Args:
        architecture: name in the registry.
        arguments: of its constructor.
        num_classes: N.
        method: name of the explanation.
        weights: a safetensors file with the state of a ``Classifier``, of which any part may be stored in
            float16; it is float32 once it is loaded.

    Raises:
        BundleError: no such network or explanation, or the weights are unreadable or do not fit.
    """
    try:
        classifier = Classifier(build(architecture, num_classes, **arguments))
        explained = Explained(classifier, method)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{weights.parent}: no network as described: {error.args[0]}") from None
    mismatch = _load(classifier, weights)
    if mismatch:
        raise BundleError(
            f"{weights}: not the weights of {architecture} for {num_classes} classes: {mismatch}",
            file=weights.name,
        )
    return explained.eval()


def _load(classifier: Classifier, path: Path) -> str:
    """Load strictly; what does not fit, in a few words, or nothing."""
    try:
        found: dict[str, Tensor] = load(path.read_bytes())  # mapped, a file that is cut off would kill us
    except (OSError, SafetensorError) as error:
        raise BundleError(f"{path}: cannot be read: {error}", file=path.name) from None
    expected = classifier.state_dict()
    if missing := sorted(expected.keys() - found.keys()):
        return f"{missing[0]} is missing"
    if unknown := sorted(found.keys() - expected.keys()):
        return f"{unknown[0]} is not part of it"
    for name, tensor in expected.items():
        halved = found[name].dtype == torch.float16 and tensor.dtype == torch.float32
        if found[name].shape != tensor.shape or not (halved or found[name].dtype == tensor.dtype):
            return f"{name} is {_kind(found[name])} instead of {_kind(tensor)}"
    classifier.load_state_dict(found)
    return ""


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
