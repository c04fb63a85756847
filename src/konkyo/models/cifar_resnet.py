"""ResNets for 32x32 images (He et al., "Deep Residual Learning", CVPR 2016, section 4.2).

One 3x3 convolution, three layers of blocks at 32, 16 and 8 pixels, global average pooling. As in the
reference code of Attention Branch Networks the blocks are bottlenecks from depth 44 on. Depth 8, with one
block a layer, is for small devices, and wherever it matters that there are blocks, but not how many.

Shape legend: B batch, D input channels, H, W input size, N classes, C feature channels, h, w grid.
"""

from __future__ import annotations

from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn

DEPTHS = (8, 20, 32, 56, 110)
BOTTLENECK_FROM = 44


class CIFARResNet(nn.Module):
    """A ResNet of depth 6n + 2 with basic blocks, or 9n + 2 with bottlenecks.

    Args:
        num_classes: N.
        depth: layers with weights; one of ``DEPTHS``.

    Raises:
        ValueError: another depth.
    """

    def __init__(self, num_classes: int, *, depth: int = 20) -> None:
        super().__init__()
        if depth not in DEPTHS:
            raise ValueError(f"the depth is one of {', '.join(map(str, DEPTHS))}, not {depth}")
        self.block = Bottleneck if depth >= BOTTLENECK_FROM else BasicBlock
        blocks = (depth - 2) // (9 if depth >= BOTTLENECK_FROM else 6)
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.act1 = nn.ReLU(inplace=True)
        channels = 16
        self.layer1, channels = self._layer(channels, 16, blocks, stride=1)
        self.layer2, channels = self._layer(channels, 32, blocks, stride=2)
        self.layer3, channels = self._layer(channels, 64, blocks, stride=2)
        self.global_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
        self.fc = nn.Linear(channels, num_classes)
        self.feature_info = [
            {"module": f"layer{number}", "num_chs": width * self.block.expansion, "reduction": reduction}
            for number, width, reduction in ((1, 16, 1), (2, 32, 2), (3, 64, 4))
        ]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def _layer(self, channels: int, width: int, blocks: int, *, stride: int) -> tuple[nn.Sequential, int]:
        out = width * self.block.expansion
        layer = nn.Sequential()
        for number in range(blocks):
            step = stride if number == 0 else 1
            project = None
            if step != 1 or channels != out:
                project = nn.Sequential(nn.Conv2d(channels, out, 1, step, bias=False), nn.BatchNorm2d(out))
            layer.append(self.block(channels, width, stride=step, downsample=project))
            channels = out
        return layer, channels

    def forward(self, image: Tensor) -> Tensor:
        """Logits: (B, D, H, W) -> (B, N)."""
        features = self.act1(self.bn1(self.conv1(image)))
        features = self.layer3(self.layer2(self.layer1(features)))
        logits: Tensor = self.fc(self.global_pool(features))
        return logits
