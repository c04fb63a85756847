"""A card in words, for ``konkyo inspect``; no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator

from konkyo.models.card import ONNX, ModelCard

MOST_LABELS = 20


def lines(card: ModelCard) -> Iterator[tuple[str, str]]:
    """A card as titles and values."""
    arguments = ", ".join(f"{name}={json.dumps(value)}" for name, value in card.arguments.items())
    spec, shown, origin = card.input, card.explanation, card.provenance
    yield "network", f"{card.architecture}({arguments}), {origin.parameters:,} parameters"
    more = len(card.labels) - MOST_LABELS
    rest = f" and {more} more" if more > 0 else ""
    yield "classes", f"{len(card.labels)}: {', '.join(card.labels[:MOST_LABELS])}{rest}"
    share = f", {spec.crop_fraction:g} of the sides" if spec.crop_fraction < 1 else ""
    yield "input", f"{spec.width} x {spec.height}, {spec.resize_mode}{share}, {spec.interpolation}"
    yield "  mean", ", ".join(f"{value:.4g}" for value in spec.mean)
    yield "  deviation", ", ".join(f"{value:.4g}" for value in spec.std)
    number = "one a target" if shown.class_specific else "one for all"
    number = f"{shown.scales} scales" if shown.scales > 1 else number
    edit = ", can be edited" if shown.takes_attention else ""
    yield "explanation", f"{shown.method}: {shown.map_kind}, {number}{edit}"
    yield "  range", f"{shown.range[0]:.4g} to {shown.range[1]:.4g}"
    if card.methods:
        yield "methods", ", ".join(item.method for item in card.methods)
    yield "data", f"{origin.data}, licence: {origin.licence}"
    if origin.citation:
        yield "cite", origin.citation
    epochs = "" if origin.epochs is None else f" ({origin.epochs} epochs)"
    yield "made by", f"{origin.command}{epochs}"
    yield "exported", origin.date
    yield "accuracy", accuracy(card)
    if origin.balanced_accuracy is not None:
        yield "  balanced", f"{100 * origin.balanced_accuracy:.2f} %, the mean of the classes"
    if origin.kappa is not None:
        yield "  kappa", f"{origin.kappa:.3f}, quadratic weighted"
    alone = "one runtime alone, torch"
    yield "parity", alone if origin.parity is None else f"{origin.parity:.1e} of the range"
    for name, entry in card.files.items():
        yield "file", f"{name:<20} {entry.bytes:>12,} bytes  sha256:{entry.sha256}"


def accuracy(card: ModelCard) -> str:
    """What is known of it."""
    origin = card.provenance
    if origin.accuracy is None:
        return "not measured"
    through = ONNX if ONNX in card.files else "torch"
    return f"{100 * origin.accuracy:.2f} % of {origin.accuracy_images:,} test images, through {through}"
