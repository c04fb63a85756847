"""Writes bundles: weights, graph, canary and card, all of them or nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import save
from torch import Tensor

from konkyo.errors import BundleError
from konkyo.export.canary import find_canary
from konkyo.export.onnx import OnnxModel, export_onnx
from konkyo.export.parity import Parity, check_parity
from konkyo.imaging import ResizeMode, UInt8
from konkyo.models.bundle import CANARY, CARD, ONNX, WEIGHTS, Bundle, describe_file, read_bundle
from konkyo.models.card import (
    Accuracy,
    Canary,
    ExplanationSpec,
    InputSpec,
    ModelCard,
    Name,
    Provenance,
    Version,
    problems,
)
from konkyo.models.explained import Explained
from konkyo.models.loading import assemble

Measure = Callable[[Path], Accuracy]
"""Takes the path of ``model.onnx``."""

_BATCH = 16


@dataclass(frozen=True)
class Origin:
    """What a card says that cannot be read off the weights.

    Attributes:
        architecture: name in the registry.
        arguments: of its constructor, JSON values.
        labels: names of the classes, in order.
        method: name of the explanation.
        data: name of the training data.
        licence: of that data.
        command: that trained the weights.
        epochs: of training behind them.
        resize_mode: how training brought images to the input size.
        citation: how the data wants to be cited.
    """

    architecture: str
    arguments: Mapping[str, Any]
    labels: tuple[str, ...]
    method: str
    data: str
    licence: str
    command: str
    epochs: int
    resize_mode: ResizeMode = "center_crop"
    citation: str | None = None


def write_bundle(
    out: Path,
    weights: Mapping[str, Tensor],
    samples: UInt8,
    origin: Origin,
    *,
    name: str | None = None,
    version: str | None = None,
    measure: Measure | None = None,
    force: bool = False,
) -> tuple[Bundle, Parity]:
    """Write a bundle whole or not at all, and return it as read back.

    The network is rebuilt from the weights as written, so what is exported, compared and measured
    is what the bundle holds.

    Args:
        out: the folder of the version, such as ``zoo/gcm-cifar10/1``.
        weights: state of a ``Classifier``.
        samples: validation images (n, H, W, 3); they fix the input size, parity is checked on
            them, and the range of the maps is theirs.
        origin: the rest of the card.
        name: of the model; default: the name of the folder around ``out``.
        version: default: the name of ``out``.
        measure: the answers of the exported graph, for the card.
        force: replace a bundle that is there.

    Raises:
        BundleError: something is at ``out``, the name or version cannot be one, or the network
            gives no usable map.
        ParityError: the exported graph computes something else than the network.
    """
    out = out.absolute()
    name, version = _identity(name or out.parent.name, version or out.name)
    _require_free(out, force)
    with _whole(out) as folder:
        (folder / WEIGHTS).write_bytes(save({key: tensor.contiguous() for key, tensor in weights.items()}))
        model = assemble(
            origin.architecture, origin.arguments, len(origin.labels), origin.method, folder / WEIGHTS
        )
        height, width = samples.shape[1:3]
        graph = export_onnx(model, width=width, height=height)
        (folder / ONNX).write_bytes(graph)
        parity = check_parity(model, graph, samples)
        measured = measure(folder / ONNX) if measure else None

        exported = OnnxModel(graph)
        canary = find_canary(exported, width=width, height=height)
        Image.fromarray(canary).save(folder / CANARY)
        logits, _ = exported(canary[None], np.empty((1, 0), dtype=np.int64))
        try:
            card = ModelCard(
                name=name,
                version=version,
                architecture=origin.architecture,
                arguments=dict(origin.arguments),
                labels=origin.labels,
                input=_input(model, width, height, origin.resize_mode),
                explanation=_explanation(model, exported, samples),
                provenance=Provenance(
                    data=origin.data,
                    licence=origin.licence,
                    citation=origin.citation,
                    command=origin.command,
                    date=datetime.now(UTC).date().isoformat(),
                    parameters=sum(parameter.numel() for parameter in model.parameters()),
                    epochs=origin.epochs,
                    accuracy=measured and measured.share,
                    accuracy_images=measured and measured.images,
                    balanced_accuracy=measured and measured.balanced,
                    kappa=measured and measured.kappa,
                    parity=parity.largest,
                ),
                canary=Canary(file=CANARY, logits=tuple(logits[0].tolist())),
                files={file: describe_file(folder / file) for file in (ONNX, WEIGHTS, CANARY)},
            )
        except ValidationError as error:
            raise BundleError(f"{out}: no valid card can be written: {problems(error)}", file=CARD) from None
        (folder / CARD).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return read_bundle(out), parity


def _identity(name: str, version: str) -> tuple[str, str]:
    for kind, value, valid in (("name", name, Name), ("version", version, Version)):
        try:
            TypeAdapter(valid).validate_python(value)
        except ValidationError as error:
            raise BundleError(f"{value!r} cannot be the {kind} of a model: {problems(error)}") from None
    return name, version


def _require_free(out: Path, force: bool) -> None:
    if not out.exists():
        return
    if not (out / CARD).is_file():
        raise BundleError(f"{out}: there is something here that is not a bundle")
    if not force:
        raise BundleError(f"{out}: there is a bundle here already; use --force to replace it")


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that takes its place when the block ends well, and else vanishes."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        folder, old = Path(scratch, "new"), Path(scratch, "old")
        folder.mkdir()
        yield folder
        if out.exists():
            out.rename(old)
        try:
            folder.rename(out)
        except OSError:
            if old.exists():
                old.rename(out)
            raise


def _input(model: Explained, width: int, height: int, resize_mode: ResizeMode) -> InputSpec:
    mean, std = (tuple(buffer.flatten().tolist()) for buffer in (model.classifier.mean, model.classifier.std))
    return InputSpec(width=width, height=height, resize_mode=resize_mode, mean=mean, std=std)


def _explanation(model: Explained, exported: OnnxModel, samples: UInt8) -> ExplanationSpec:
    lows, highs = [], []
    for start in range(0, len(samples), _BATCH):
        batch = samples[start : start + _BATCH]
        _, maps = exported(batch, np.full((len(batch), 1), -1))
        lows.append(float(maps.min()))
        highs.append(float(maps.max()))
    method = model.explanation
    return ExplanationSpec(
        method=method.name,
        map_kind=method.map_kind,
        class_specific=method.class_specific,
        range=(min(lows), max(highs)),
        takes_attention=method.takes_attention,
        scales=method.scales,
    )
