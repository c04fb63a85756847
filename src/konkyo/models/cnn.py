"""The comparison network of the GCM paper: an ordinary CNN of about the same size.

Convolutions down to a quarter of the input, global average pooling, one linear layer. It is what
GCM is measured against, and the smallest network whose class activation map is exact: the mean of
the map plus the bias is the logit (Zhou et al., CVPR 2016; the GCM paper, section on the comparison network).

Shape legend: B batch, D input channels, H, W input size, N classes, C feature channels, h, w grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from konkyo.models.cut import Hook
from konkyo.models.registry import register

LAYERS: tuple[tuple[int, int], ...] = (
    (16, 1), (16, 1), (16, 1),
    (32, 2), (32, 1), (32, 1),
    (64, 2), (64, 1), (64, 1), (64, 1),
)  # fmt: skip
"""Channels and stride of each 3x3 layer."""


@register("cnn")
class CNN(nn.Module):
    """3x3 convolutions with batch norm and ReLU, global average pooling, a linear head.

    Args:
        num_classes: N, at least 2.
        in_chans: D, the channels of the image.
        layers: ``(channels, stride)`` of each layer.

    Raises:
        ValueError: fewer than 2 classes.

    Unlike GCM's, the input is centred: ``(image - mean) / std`` of the training data.
    """

    centred: ClassVar[bool] = True
    explanation: ClassVar[str] = "cam"

    def __init__(
        self, num_classes: int = 10, *, in_chans: int = 3, layers: Sequence[Sequence[int]] = LAYERS
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"a classifier needs at least 2 classes, not {num_classes}")
        self.num_classes = num_classes
        self.stride = math.prod(stride for _, stride in layers)
        channels = in_chans
        self.features = nn.Sequential()
        for width, stride in layers:
            self.features.append(nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False))
            self.features.append(nn.BatchNorm2d(width))
            self.features.append(nn.ReLU(inplace=True))
            channels = width
        self.fc = nn.Linear(channels, num_classes)

    def hook(self, layer: str | None = None) -> Hook:
        """See ``Network.hook``: by default the last features."""
        return Hook(self, layer or "features")

    def forward_features(self, image: Tensor) -> Tensor:
        """(B, D, H, W) -> (B, C, h, w)."""
        features: Tensor = self.features(image)
        return features

    def forward_head(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> logits (B, N)."""
        logits: Tensor = self.fc(features.mean(dim=(2, 3)))
        return logits

    def forward(self, image: Tensor) -> Tensor:
        """Logits: (B, D, H, W) -> (B, N)."""
        return self.forward_head(self.forward_features(image))
