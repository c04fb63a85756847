"""``konkyo train`` with a network free of batch norm, whose results do not depend on the devices."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from konkyo.cli import main
from konkyo.models.registry import register


@register("plain")
class Plain(nn.Module):
    """Two convolutions and a linear head."""

    centred: ClassVar[bool] = True
    explanation: ClassVar[str] = "cam"
    stride = 1

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
        self.fc = nn.Linear(8, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(image).mean(dim=(2, 3)))
        return logits


if __name__ == "__main__":
    main()
