"""A network together with the normalisation it was trained with.

The mean and deviation are buffers of the module, saved with the weights and exported into the
graph, so that they can never drift from the network they belong to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

import torch
from torch import Tensor, nn

from konkyo.models.attention import AttentionNetwork, AttentionOutputs


class Classifier(nn.Module):
    """uint8 image in, logits out.

    Args:
        network: maps (B, 3, H, W) float32 to logits (B, N).
        mean: per channel, in units of the pixel range 0 to 1.
        std: likewise. Mean 0 and deviation 1 leave the image in [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))

    def normalise(self, image: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 -> (B, 3, H, W), ``(image / 255 - mean) / std`` in the type of the network."""
        return ((image.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std).to(self.mean.dtype)

    @overload
    def forward(self, image: Tensor) -> Tensor: ...

    @overload
    def forward(self, image: Tensor, *, outputs: Literal[True]) -> AttentionOutputs: ...

    def forward(self, image: Tensor, *, outputs: bool = False) -> Tensor | AttentionOutputs:
        """(B, H, W, 3) uint8 -> logits (B, N); ``outputs`` gives all that a network with attention trains on.

        Raises:
            TypeError: ``outputs`` of a network without attention.
        """
        normalised = self.normalise(image)
        if outputs:
            if not isinstance(self.network, AttentionNetwork):
                raise TypeError(f"{type(self.network).__name__} has no attention")
            return self.network.outputs(normalised)
        logits: Tensor = self.network(normalised)
        return logits
