"""CAM, class activation mapping (Zhou et al., CVPR 2016).

For a network whose head is global average pooling and one linear layer,

    M_c = sum_k w_k^c A^k                     mean(M_c) + b_c = y^c

so the map of a class is a weighted sum of the last features, and its mean plus the bias is the
logit exactly, as long as nothing is rectified. Here nothing is: the map leaves signed.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from konkyo.models.backbone import Backbone
from konkyo.models.card import MapKind
from konkyo.models.cnn import CNN
from konkyo.models.explain import register, resolve_targets


@register
class CAM(nn.Module):
    """Class activation maps on the grid of the last features, signed.

    Example:
        >>> import torch
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
        if not isinstance(network, CNN | Backbone) or not isinstance(network.fc, nn.Linear):
            raise TypeError(f"CAM needs a GAP + linear head, which {type(network).__name__} has not")
        self.network = network

    def forward(self, image: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D, H, W), (B, K) -> logits (B, N), maps (B, K, h, w)."""
        features = self.network.forward_features(image)  # (B, C, h, w)
        logits = self.network.forward_head(features)
        weights = self.network.fc.weight[resolve_targets(logits, targets)]  # (B, K, C)
        maps = torch.matmul(weights, features.flatten(2)).view(*targets.shape, *features.shape[2:])
        return logits, maps
