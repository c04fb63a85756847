"""DINO (Caron et al., ICCV 2021): a backbone trained without labels, and a linear head for it.

The two are published apart. The backbone is a plain state (``dino_resnet50_pretrain.pth``), or a full
checkpoint with the states of teacher and student, where the projection head of the training lies beside
the backbone. The linear head (``dino_resnet50_linearweights.pth``) is one layer under
``module.linear``, on what the evaluation of the paper fed it:

- ResNet-50: the average of the last features;
- ViT-S/16: the normed class tokens of the last four blocks, one after the other (``models/dino.py``);
- XCiT-S12/16: its class token, as always.
"""

from __future__ import annotations

from pathlib import Path

import timm
from torch import Tensor

from konkyo.converters.checkpoints import read_state
from konkyo.converters.converted import Converted, load_exactly
from konkyo.converters.errors import ConversionError
from konkyo.models.card import InputSpec
from konkyo.models.dino import DinoViT
from konkyo.models.timm_net import TimmNet

_NETWORKS: dict[str, tuple[str, type[TimmNet], str, str]] = {
    "resnet50": ("timm", TimmNet, "resnet50", "fc"),
    "vit_small_patch16_224": ("dino-vit", DinoViT, "vit_small_patch16_224.dino", "head"),
    "xcit_small_12_p16_224": ("timm", TimmNet, "xcit_small_12_p16_224.fb_in1k", "head"),
}
"""Architecture, class, timm's name, and where the linear layer goes."""

NETWORKS = tuple(_NETWORKS)
"""What there are converters for."""

_INPUT = InputSpec(
    width=224,
    height=224,
    crop_fraction=0.875,
    interpolation="bicubic",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
"""The paper's evaluation: the shorter side to 256, the middle 224 of it."""


def from_dino(name: str, checkpoint: Path, head: Path, *, layer: str | None = None) -> Converted:
    """A backbone with its linear classifier.

    Args:
        name: one of ``NETWORKS``.
        checkpoint: of the backbone.
        head: of the linear layer; it says how many classes there are.
        layer: where it is explained.

    Raises:
        ConversionError: no such network, or the files are of another.
        ValueError: the network has no such layer.
    """
    if name not in _NETWORKS:
        raise ConversionError(f"no converter for DINO's {name!r}; there are: {', '.join(NETWORKS)}")
    architecture, build, timm_name, last = _NETWORKS[name]
    linear = _linear(head)
    network = build(len(linear["bias"]), name=timm_name, layer=layer)
    width = network.network.get_parameter(f"{last}.weight").shape[1]
    if linear["weight"].shape[1] != width:
        raise ConversionError(
            f"{head}: a head for {linear['weight'].shape[1]} features, but {name} has {width}"
        )
    state = _backbone(checkpoint, last)
    if "xcit" in name:
        state = _as_timm_names_xcit(state, timm_name, checkpoint)
    state |= {f"{last}.{part}": tensor for part, tensor in linear.items()}
    load_exactly(network.network, state, str(checkpoint))
    return Converted(
        architecture,
        network,
        _INPUT,
        licence="not stated",
        citation="Caron et al., Emerging properties in self-supervised vision transformers, ICCV 2021",
    )


def _backbone(path: Path, last: str) -> dict[str, Tensor]:
    """Its state; of a full checkpoint without the projection head of the training."""
    state = read_state(path)
    inner = {
        name.removeprefix("backbone."): tensor
        for name, tensor in state.items()
        if name.startswith("backbone.")
    }
    return {name: tensor for name, tensor in (inner or state).items() if not name.startswith(f"{last}.")}


def _linear(path: Path) -> dict[str, Tensor]:
    state = {name.removeprefix("linear."): tensor for name, tensor in read_state(path).items()}
    if state.keys() != {"weight", "bias"} or state["weight"].ndim != 2:
        raise ConversionError(
            f"{path}: expected a linear head, linear.weight and linear.bias, not {', '.join(list(state)[:4])}"
        )
    return state


def _as_timm_names_xcit(state: dict[str, Tensor], name: str, path: Path) -> dict[str, Tensor]:
    """timm calls the embedding of the positions otherwise, and splits queries, keys and values."""
    overlay = {"state_dict": state, "num_classes": 0}
    try:
        model = timm.create_model(name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay)
    except (RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise ConversionError(f"{path}: not the weights of {name}: {reason[:300]}") from error
    return dict(model.state_dict())
