"""Networks of timm to compare with the public libraries, small and in general position.

The layers are those at which each family is usually explained; widths, depths and inputs are smaller
than the published ones. Everything is in double precision, so that what differs is no rounding.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from konkyo.models import registry
from konkyo.models.places import redraw

CLASSES = 5


class Entry(NamedTuple):
    """A network of timm: name, arguments, the side of its input, and where it is explained."""

    name: str
    layer: str
    arguments: dict[str, Any] = {}  # noqa: RUF012
    side: int = 64


NETWORKS = {
    "resnet": Entry("resnet18", "layer4"),
    "convnext": Entry("convnext_atto", "stages.3", {"depths": (1, 1, 2, 1)}, side=96),
    "swin": Entry(
        "swin_tiny_patch4_window7_224",
        "norm",
        {"window_size": 2, "embed_dim": 24, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 2, 4)},
    ),
    "deit": Entry("deit_tiny_patch16_224", "blocks.2.norm1", {"depth": 3}),
    "deit-distilled": Entry("deit_tiny_distilled_patch16_224", "blocks.2.norm1", {"depth": 3}),
    "cait": Entry("cait_xxs24_224", "blocks.2", {"depth": 3}),
    "coat": Entry("coat_lite_tiny", "serial_blocks4.1.norm1", side=96),
    "xcit": Entry("xcit_nano_12_p16_224", "blocks.2", {"depth": 3}),
}
WITH_RELU = {
    "resnet": NETWORKS["resnet"],
    "regnet": Entry("regnety_002", "s4"),  # gates of squeeze-and-excitation
    "vovnet": Entry("ese_vovnet19b_dw", "stages.3"),  # norm and activation are one module
}


def build(entry: Entry) -> tuple[nn.Module, Tensor]:
    """The network, and two images for it."""
    generator = torch.Generator().manual_seed(0)
    size = [entry.side, entry.side]
    network = registry.build(
        "timm", CLASSES, name=entry.name, image_size=size, model_args=entry.arguments, layer=entry.layer
    )
    redraw(network, generator)
    return network.eval(), torch.randn(2, 3, *size, dtype=torch.float64, generator=generator)


def relative(found: Tensor, expected: Tensor, scale: Tensor | None = None) -> float:
    """The largest difference, relative to the largest value, or to that of what the values are sums of."""
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / (expected if scale is None else scale).abs().max())
