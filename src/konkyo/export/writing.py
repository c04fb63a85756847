"""Writes bundles around the files of a network: canary and card, all of them or nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import ValidationError

from konkyo.errors import BundleError
from konkyo.export.canary import find_canary
from konkyo.export.folder import identity, require_free, whole, write_card
from konkyo.export.onnx import Float32, Int64
from konkyo.export.parity import Parity
from konkyo.imaging import Decoded, Interpolation, ResizeMode, UInt8, prepare
from konkyo.models.bundle import CANARY, CARD, ONNX, WEIGHTS, Bundle, describe_file, read_bundle
from konkyo.models.card import (
    Accuracy,
    Canary,
    ExplanationSpec,
    InputSpec,
    MethodSpec,
    ModelCard,
    Provenance,
    problems,
)

ServedModel = Callable[[UInt8, Int64], tuple[Float32, Float32]]
"""Images (B, H, W, 3) and targets (B, K) to logits and maps, by the runtime that will serve them."""

Measure = Callable[[ServedModel], Accuracy]

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
        epochs: of training behind them, None if nobody told.
        resize_mode: how training brought images to the input size.
        crop_fraction: likewise, the share of the sides that is kept.
        interpolation: likewise.
        citation: how the data wants to be cited.
    """

    architecture: str
    arguments: Mapping[str, Any]
    labels: tuple[str, ...]
    method: str
    data: str
    licence: str
    command: str
    epochs: int | None
    resize_mode: ResizeMode = "center_crop"
    crop_fraction: float = 1.0
    interpolation: Interpolation = "bicubic"
    citation: str | None = None


@dataclass(frozen=True)
class Served:
    """A network whose files are in the folder of a bundle.

    Attributes:
        run: images and targets to logits and maps, from those files.
        input: what it takes.
        methods: all that it can be asked for, its own explanation first.
        parameters: their number.
        parity: how far the runtimes differ; None of one runtime alone.
        takes_attention: of its own explanation, as in ``ExplanationSpec``.
        scales: likewise.
    """

    run: ServedModel
    input: InputSpec
    methods: tuple[MethodSpec, ...]
    parameters: int
    parity: Parity | None
    takes_attention: bool = False
    scales: int = 1


def write_around(
    out: Path,
    put: Callable[[Path], Served],
    samples: UInt8,
    origin: Origin,
    *,
    name: str | None = None,
    version: str | None = None,
    measure: Measure | None = None,
    force: bool = False,
) -> tuple[Bundle, Parity | None]:
    """Write a bundle whole or not at all, and return it as read back.

    Args:
        out: the folder of the version, such as ``zoo/gcm-cifar10/1``.
        put: writes the files of the network into a folder, and says what it is.
        samples: images (n, H, W, 3) at the size of the input; the range of the maps is theirs.
        origin: the rest of the card.
        name: of the model; default: the name of the folder around ``out``.
        version: default: the name of ``out``.
        measure: the answers of what is served, for the card.
        force: replace a bundle that is there.

    Raises:
        BundleError: something is at ``out``, the name or version cannot be one, or the network
            gives no usable map.
    """
    out = out.absolute()
    name, version = identity(name or out.parent.name, version or out.name)
    require_free(out, force)
    with whole(out) as folder:
        served = put(folder)
        spec = served.input
        pixels = partial(_as_served, spec=spec)
        canary = find_canary(
            lambda image, targets: served.run(pixels(image), targets), width=spec.width, height=spec.height
        )
        Image.fromarray(canary).save(folder / CANARY)
        logits, _ = served.run(pixels(canary[None]), np.empty((1, 0), dtype=np.int64))
        measured = measure(served.run) if measure else None
        try:
            card = ModelCard(
                name=name,
                version=version,
                architecture=origin.architecture,
                arguments=dict(origin.arguments),
                labels=origin.labels,
                input=spec,
                explanation=_explanation(served, samples),
                methods=served.methods,
                provenance=_provenance(origin, served, measured),
                canary=Canary(file=CANARY, logits=tuple(logits[0].tolist())),
                files={
                    file: describe_file(folder / file)
                    for file in (ONNX, WEIGHTS, CANARY)
                    if (folder / file).exists()
                },
            )
        except ValidationError as error:
            raise BundleError(f"{out}: no valid card can be written: {problems(error)}", file=CARD) from None
        write_card(folder, card)
    return read_bundle(out), served.parity


def _as_served(images: UInt8, spec: InputSpec) -> UInt8:
    """Images at the size of the input as the service would bring them there: it crops them too."""
    return np.stack(
        [
            prepare(
                Decoded(Image.fromarray(image), 1, "PNG"),
                (spec.width, spec.height),
                mode=spec.resize_mode,
                crop_fraction=spec.crop_fraction,
                interpolation=spec.interpolation,
            )[0]
            for image in images
        ]
    )


def _provenance(origin: Origin, served: Served, measured: Accuracy | None) -> Provenance:
    return Provenance(
        data=origin.data,
        licence=origin.licence,
        citation=origin.citation,
        command=origin.command,
        date=datetime.now(UTC).date().isoformat(),
        parameters=served.parameters,
        epochs=origin.epochs,
        accuracy=measured and measured.share,
        accuracy_images=measured and measured.images,
        balanced_accuracy=measured and measured.balanced,
        kappa=measured and measured.kappa,
        parity=None if served.parity is None else served.parity.largest,
    )


def _explanation(served: Served, samples: UInt8) -> ExplanationSpec:
    lows, highs = [], []
    for start in range(0, len(samples), _BATCH):
        batch = samples[start : start + _BATCH]
        _, maps = served.run(batch, np.full((len(batch), 1), -1))
        lows.append(float(maps.min()))
        highs.append(float(maps.max()))
    own = served.methods[0]
    return ExplanationSpec(
        method=own.method,
        map_kind=own.map_kind,
        class_specific=own.class_specific,
        range=(min(lows), max(highs)),
        takes_attention=served.takes_attention,
        scales=served.scales,
    )
