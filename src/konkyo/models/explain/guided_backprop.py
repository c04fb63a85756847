"""Guided backpropagation (Springenberg et al., ICLR workshop 2015, section 3.4).

The gradient of a score by the image, for which a ReLU passes only positive gradients, and only where
its features are positive (``relus.py``). The gradient is that by the normalised image. The map is its
sum over the channels, signed; for colours there is ``gradients``.

It shows fine structure, but hardly depends on the class: see ``guided_gradcam.py``.

Shape legend: B batch, D input channels, H, W input size, N classes, K targets.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from konkyo.models.card import MapKind
from konkyo.models.explain import register
from konkyo.models.explain.gradients import differentiate
from konkyo.models.explain.relus import ModifiedCut, guided_relu
from konkyo.models.explain.rows import wide


class _FromImage(nn.Module):
    """A network with a place before it where it can be cut."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.image = nn.Identity()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.network(self.image(image))
        return logits


@register
class GuidedBackprop(nn.Module):
    """Gradients of scores by the image through guided ReLUs, at the size of the input.

    Args:
        network: whose activations are ReLUs.

    Raises:
        TypeError: it has none, or others beside them, or is no graph.

    Example:
        >>> import torch
        >>> from konkyo.models.cnn import CNN
        >>> method = GuidedBackprop(CNN(10).eval())
        >>> method(torch.rand(1, 3, 32, 32), torch.tensor([[-1, 3]]))[1].shape
        torch.Size([1, 2, 32, 32])
    """

    name: ClassVar[str] = "guided-backprop"
    map_kind: ClassVar[MapKind] = "input_gradient"
    class_specific: ClassVar[bool] = True
    takes_attention: ClassVar[bool] = False
    takes_layer: ClassVar[bool] = False
    differentiates: ClassVar[bool] = True
    scales: ClassVar[int] = 1
    relu = staticmethod(guided_relu)

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        try:
            cut = ModifiedCut(_FromImage(network), "image", self.relu)
        except ValueError as error:  # no layer was chosen, so it is the network that does not fit
            reason = str(error).partition(": ")[2]
            raise TypeError(f"{type(network).__name__} cannot be traced into a graph: {reason}") from error
        cut.require(self.name, "the plain gradient", network)
        self._score = cut.tail

    def gradients(self, image: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D, H, W), (B, K) -> logits (B, N), gradients (B, K, D, H, W)."""
        # One target after the other: the graph of the whole network is in memory, not only of its tail.
        logits, gradients = differentiate(image, self._score, targets, at_once=False)
        return logits, wide(gradients)

    def forward(self, image: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D, H, W), (B, K) -> logits (B, N), maps (B, K, H, W)."""
        logits, gradients = self.gradients(image, targets)
        return logits, gradients.sum(dim=2)
