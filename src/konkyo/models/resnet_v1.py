"""ResNet as it was first published: a stage halves its grid in the first 1×1 convolution of a block.

He et al., CVPR 2016. Networks of today, timm's among them, halve it in the 3×3 convolution after it,
which sees every cell; weights of one kind give nonsense in the other.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from konkyo.models.registry import register
from konkyo.models.timm_net import TimmNet


@register("resnet-v1")
class ResNetV1(TimmNet):
    """A ResNet of timm with bottlenecks and the strides of the original; its parameters have timm's names.

    Args:
        num_classes: N, at least 2.
        arguments: as of ``TimmNet``.

    Raises:
        ValueError: as of ``TimmNet``; or the network named is none with bottlenecks.
    """

    def __init__(self, num_classes: int, *, name: str = "resnet50", **arguments: Any) -> None:
        super().__init__(num_classes, name=name, **arguments)
        for stage in ("layer2", "layer3", "layer4"):
            block = getattr(self.network, stage, [None])[0]
            if not isinstance(getattr(block, "conv3", None), nn.Conv2d):
                raise ValueError(f"{name} is no ResNet with bottlenecks")
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
