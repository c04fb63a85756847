"""From a source to a bundle: ``konkyo import``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from konkyo.converters.converted import Converted
from konkyo.converters.dino import NETWORKS, from_dino
from konkyo.converters.errors import ConversionError
from konkyo.converters.keras_resnet import from_keras_resnet
from konkyo.converters.labels import labels_for
from konkyo.converters.onnx_source import OnnxSource
from konkyo.converters.packages import from_package
from konkyo.converters.photos import LabelledPhotos, sample_photos
from konkyo.converters.preparation import Preparation
from konkyo.converters.timm_weights import from_timm
from konkyo.export.bundle import write_bundle
from konkyo.export.parity import Parity
from konkyo.export.writing import Origin, ServedModel, write_around
from konkyo.models.bundle import Bundle
from konkyo.models.card import Accuracy
from konkyo.models.classifier import Classifier

SOURCES = (
    "timm:NAME",
    *(f"dino:{name}" for name in NETWORKS),
    *(f"efficientnet-lite:{size}" for size in range(3)),
    "keras-resnet50",
    "onnx:FILE",
)

Measure = Callable[[ServedModel, LabelledPhotos], Accuracy]


@dataclass(frozen=True)
class Files:
    """What the caller has at hand.

    Attributes:
        checkpoint: weights, as the source publishes them.
        head: weights of the linear head, of DINO.
        labels: names of the classes, one a line; default: ImageNet's, if there are 1,000.
        samples: folder of photos that the runtimes are compared on; default: those that ship.
        data: folder of class folders to measure the accuracy on; default: it is not measured.
    """

    checkpoint: Path | None = None
    head: Path | None = None
    labels: Path | None = None
    samples: Path | None = None
    data: Path | None = None


def convert(source: str, files: Files, *, layer: str | None = None) -> Converted:
    """The network of a source, with its weights.

    Args:
        source: see ``SOURCES``.
        files: of which a source uses the checkpoint and the head.
        layer: where it is explained; default: where it is best.

    Raises:
        ConversionError: no such source, a file is missing, or not what it should be.
        ValueError: no such network, or it has no such layer.
    """
    kind, _, name = source.partition(":")
    if kind != "dino" and files.head is not None:
        raise ConversionError(f"{source} has no head in a file of its own: leave out --head")
    if kind == "timm":
        return from_timm(name, files.checkpoint, layer=layer)
    if kind == "dino":
        if files.checkpoint is None or files.head is None:
            raise ConversionError(
                f"{source} needs --checkpoint, of the backbone, and --head, of the linear head"
            )
        return from_dino(name, files.checkpoint, files.head, layer=layer)
    if kind == "efficientnet-lite":
        if files.checkpoint is not None:
            raise ConversionError(f"{source} is read from its package: leave out --checkpoint")
        return from_package(f"tf_efficientnet_lite{name}", layer=layer)
    if source == "keras-resnet50":
        if files.checkpoint is None:
            raise ConversionError(f"{source} needs --checkpoint, the folder with model.json")
        return from_keras_resnet(files.checkpoint, layer=layer)
    if kind == "torchscript":
        raise ConversionError(
            "a TorchScript file is code, which is not run here; export the network to ONNX, and give that: "
            "onnx:FILE"
        )
    raise ConversionError(f"no source {source!r}; there are: {', '.join(SOURCES)}")


def import_network(
    source: str,
    out: Path,
    files: Files,
    *,
    command: str,
    measure: Measure,
    preparation: Preparation | None = None,
    layer: str | None = None,
    name: str | None = None,
    version: str | None = None,
    licence: str | None = None,
    half: bool = False,
    force: bool = False,
) -> tuple[Bundle, Parity | None]:
    """Write the bundle of a network that was trained elsewhere.

    Batch norms are folded into the convolutions, so that both runtimes can read one file of weights. An
    ONNX file stays as it is, inside a larger graph.

    Args:
        source: see ``SOURCES``.
        out: folder of the version.
        files: see ``Files``.
        command: for the card.
        measure: accuracy of what is served on labelled photos; called if there are any.
        preparation: how images are brought to the input of an ONNX file; other sources know.
        layer: where it is explained; default: where it is best.
        name: of the model; default: the name of the folder around ``out``.
        version: default: the name of ``out``.
        licence: of the weights; default: what the source says.
        half: store large weights in float16.
        force: replace a bundle that is there.

    Raises:
        ConversionError: see ``convert``; or the labels do not fit.
        BundleError: see ``write_bundle``.
        ValueError: no such network, or it has no such layer.
    """
    found = _open(source, files, preparation or Preparation(), layer=layer, half=half)
    spec = found.input
    labels = labels_for(found.num_classes, files.labels)
    photos = None if files.data is None else LabelledPhotos(files.data, labels, spec)
    samples = sample_photos(files.samples, spec)
    origin = Origin(
        architecture=found.architecture,
        arguments=found.arguments,
        labels=labels,
        method=found.method,
        data=found.data if files.labels is None else "not stated",
        licence=licence or found.licence,
        command=command,
        epochs=None,
        resize_mode=spec.resize_mode,
        crop_fraction=spec.crop_fraction,
        interpolation=spec.interpolation,
        citation=found.citation,
    )
    measured = None if photos is None else lambda served: measure(served, photos)
    if isinstance(found, OnnxSource):
        put = partial(found.put, samples=samples)
        return write_around(
            out, put, samples, origin, name=name, version=version, measure=measured, force=force
        )
    return write_bundle(
        out,
        Classifier(found.network, spec.mean, spec.std).state_dict(),
        samples,
        origin,
        name=name,
        version=version,
        measure=measured,
        half=half,
        share=True,
        force=force,
    )


def _open(
    source: str, files: Files, preparation: Preparation, *, layer: str | None, half: bool
) -> Converted | OnnxSource:
    """The network of a source, ready to be written."""
    kind, _, file = source.partition(":")
    if kind != "onnx":
        if given := preparation.given():
            raise ConversionError(f"{source} says itself how it takes images: leave out {', '.join(given)}")
        return convert(source, files, layer=layer).folded()
    others = {"--checkpoint": files.checkpoint, "--head": files.head, "--layer": layer, "--half": half}
    if given := [option for option, value in others.items() if value]:
        raise ConversionError(f"{source} is taken as it is: leave out {', '.join(given)}")
    return OnnxSource(Path(file), preparation)
