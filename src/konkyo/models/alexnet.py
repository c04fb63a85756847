"""An AlexNet (Krizhevsky et al., NIPS 2012) with batch norm, any input size and one linear head.

The five convolutions of the original's widths in three blocks, as the multi-scale Attention Branch
Network cuts it; the three fully connected layers, which fix the input size and hold nearly all of
its weights, give way to global average pooling. Our reconstruction: the paper names AlexNet only.

Shape legend: B batch, D input channels, H, W input size, N classes, C feature channels, h, w grid.
"""

from __future__ import annotations

from torch import Tensor, nn


class AlexNet(nn.Module):
    """Five convolutions in three blocks at 1/8, 1/16 and 1/32 of the input.

    Args:
        num_classes: N.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.block1 = nn.Sequential(
            *_conv(3, 64, 11, stride=4), nn.MaxPool2d(3, 2, padding=1), *_conv(64, 192, 5)
        )
        self.block2 = nn.Sequential(nn.MaxPool2d(3, 2, padding=1), *_conv(192, 384, 3))
        self.block3 = nn.Sequential(nn.MaxPool2d(3, 2, padding=1), *_conv(384, 256, 3), *_conv(256, 256, 3))
        self.global_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
        self.fc = nn.Linear(256, num_classes)
        self.feature_info = [
            {"module": "block1", "num_chs": 192, "reduction": 8},
            {"module": "block2", "num_chs": 384, "reduction": 16},
            {"module": "block3", "num_chs": 256, "reduction": 32},
        ]

    def forward(self, image: Tensor) -> Tensor:
        """Logits: (B, D, H, W) -> (B, N)."""
        logits: Tensor = self.fc(self.global_pool(self.block3(self.block2(self.block1(image)))))
        return logits


def _conv(channels: int, width: int, kernel: int, *, stride: int = 1) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, bias=False)
    return convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)
