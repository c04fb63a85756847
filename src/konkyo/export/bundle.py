"""Writes the bundle of a network: its weights, and its graph where it has one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import onnx
import torch
from safetensors.torch import save
from torch import Tensor

from konkyo.export.onnx import OnnxModel, export_onnx
from konkyo.export.parity import Parity, check_parity, run_torch
from konkyo.export.sharing import SMALLEST, share_weights
from konkyo.export.writing import Measure, Origin, Served, ServedModel, write_around
from konkyo.imaging import UInt8
from konkyo.models.abilities import find_methods
from konkyo.models.bundle import ONNX, WEIGHTS, Bundle
from konkyo.models.card import InputSpec
from konkyo.models.explained import Explained
from konkyo.models.loading import assemble

__all__ = ["Measure", "Origin", "ServedModel", "pack", "write_bundle"]


def write_bundle(
    out: Path,
    weights: Mapping[str, Tensor],
    samples: UInt8,
    origin: Origin,
    *,
    name: str | None = None,
    version: str | None = None,
    measure: Measure | None = None,
    half: bool = False,
    share: bool = False,
    force: bool = False,
) -> tuple[Bundle, Parity | None]:
    """Write a bundle whole or not at all, and return it as read back.

    The network is rebuilt from the weights as written, and what is compared and measured is the graph
    as written. Where the explanation needs autograd there is no graph: torch serves the bundle, and
    there is no second runtime to compare it with.

    Args:
        out: the folder of the version, such as ``zoo/gcm-cifar10/1``.
        weights: state of a ``Classifier``.
        samples: validation images (n, H, W, 3); they fix the input size, parity is checked on
            them, and the range of the maps is theirs.
        origin: the rest of the card.
        name: of the model; default: the name of the folder around ``out``.
        version: default: the name of ``out``.
        measure: the answers of what is served, for the card.
        half: store large weights in float16. They are rounded first of all, so every runtime serves
            the same rounded values.
        share: let the graph read its weights from the file of the weights, instead of a copy of its own;
            see ``sharing.py``.
        force: replace a bundle that is there.

    Raises:
        BundleError: something is at ``out``, the name or version cannot be one, or the network
            gives no usable map.
        ParityError: the exported graph computes something else than the network.
    """

    def put(folder: Path) -> Served:
        (folder / WEIGHTS).write_bytes(pack(weights, half=half))
        model = assemble(
            origin.architecture, origin.arguments, len(origin.labels), origin.method, folder / WEIGHTS
        )
        run, parity = _export(model, folder, samples, share=share)
        height, width = samples.shape[1:3]
        return Served(
            run,
            _input(model, width, height, origin),
            find_methods(model),
            sum(parameter.numel() for parameter in model.parameters()),
            parity,
            takes_attention=model.explanation.takes_attention,
            scales=model.explanation.scales,
        )

    return write_around(out, put, samples, origin, name=name, version=version, measure=measure, force=force)


def pack(weights: Mapping[str, Tensor], *, half: bool = False) -> bytes:
    """The content of a file of weights.

    Args:
        weights: some may share their memory, as the position encodings of CoaT do; each is written whole.
        half: store large float32 tensors in float16; what is small is dear, and saves nothing.
    """
    packed = {}
    for name, tensor in weights.items():
        large = tensor.ndim >= 2 and tensor.numel() >= SMALLEST and tensor.dtype == torch.float32
        tensor = tensor.half() if half and large else tensor.clone()
        packed[name] = tensor.contiguous()
    return save(packed)


def _export(
    model: Explained, folder: Path, samples: UInt8, *, share: bool
) -> tuple[ServedModel, Parity | None]:
    """What will be served, from the files as written, and how far the runtimes differ."""
    if model.explanation.differentiates:
        return partial(run_torch, model), None
    graph = export_onnx(model, width=samples.shape[2], height=samples.shape[1])
    path = folder / ONNX
    path.write_bytes(share_weights(graph, folder / WEIGHTS) if share else graph)
    onnx.checker.check_model(path, full_check=True)
    return OnnxModel(path), check_parity(model, path, samples)


def _input(model: Explained, width: int, height: int, origin: Origin) -> InputSpec:
    mean, std = (tuple(buffer.flatten().tolist()) for buffer in (model.classifier.mean, model.classifier.std))
    return InputSpec(
        width=width,
        height=height,
        resize_mode=origin.resize_mode,
        crop_fraction=origin.crop_fraction,
        interpolation=origin.interpolation,
        mean=mean,
        std=std,
    )
