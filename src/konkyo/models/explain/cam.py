"""CAM, class activation mapping (Zhou et al., CVPR 2016).

For a network whose head is global average pooling and one linear layer,

    M_c = sum_k w_k^c A^k                     mean(M_c) + b_c = y^c

so the map of a class is a weighted sum of the last features, and its mean plus the bias is the
logit exactly, as long as nothing is rectified. Here nothing is: the map leaves signed.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from konkyo.models.card import MapKind
from konkyo.models.cut import Cut
from konkyo.models.explain import register, resolve_targets
from konkyo.models.explain.closed_form import find_linear
from konkyo.models.explain.gradcam import weighted_sum
from konkyo.models.explain.gradients import hook_of
from konkyo.models.explain.rows import wide


@register
class CAM(nn.Module):
    """Class activation maps on the grid of the last features, signed.

    Args:
        network: whose features at its hook are averaged and go through one linear layer, or several
            whose logits are averaged.

    Raises:
        TypeError: its head is another.

    Example:
        >>> import torch
        >>> from konkyo.models.cnn import CNN
        >>> logits, maps = CAM(CNN(10))(torch.rand(1, 3, 32, 32), torch.tensor([[-1]]))
        >>> maps.shape
        torch.Size([1, 1, 8, 8])
    """

    name: ClassVar[str] = "cam"
    map_kind: ClassVar[MapKind] = "class_activation_map"
    class_specific: ClassVar[bool] = True
    takes_attention: ClassVar[bool] = False
    takes_layer: ClassVar[bool] = False
    differentiates: ClassVar[bool] = False
    scales: ClassVar[int] = 1

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        hook = hook_of(network, None)
        self.network = network
        self.cut = Cut(hook.root, hook.layer)
        head = find_linear(network, hook, self.cut)
        if head is None:
            known = getattr(network, "name", type(network).__name__)
            raise TypeError(f"{known} has no head of global average pooling and one linear layer")
        self.head = head

    def forward(self, image: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D, H, W), (B, K) -> logits (B, N), maps (B, K, h, w)."""
        features, *rest = self.cut.trunk(image)
        logits = self.head.logits(features, rest)
        weights = self.head.class_weights(resolve_targets(logits, targets))  # (B, K, C)
        return logits, weighted_sum(wide(self.head.layout.to_map(features)), weights)
