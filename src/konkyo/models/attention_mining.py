"""AMB, attention mining: an Attention Branch Network that must not leave out what decides (Iwayoshi et al.).

    T(M) = [M > threshold]      F* = F - T(M) F      S = softmax(perception_branch(F*))

What the map attends is hidden, and a second perception branch that shares every weight of the first
looks at the rest. As long as it still finds the class there, the map has missed something: training
lowers its probability of the true class (``training/losses/mining.py``). For the map to feel that,
the mechanism has no bypass: M g, not (1 + M) g. At inference the mining branch is not run.

Shape legend: B batch, D input channels, H, W input size, N classes, C feature channels, h, w grid.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from konkyo.models.abn import ABN, Mechanism
from konkyo.models.attention import AttentionOutputs
from konkyo.models.registry import register


@register("amb")
class AttentionMiningNetwork(ABN):
    """ABN with the mining branch, and with class centres for the prototype conformity loss.

    Args:
        num_classes: N, at least 2.
        mechanism: as for ``ABN``; ``plain`` as in the paper.
        mask_threshold: of T; the paper's 0.78 is for CUB-200-2010, 0.40 for Stanford Dogs.
        mask_sharpness: slope of the sigmoid that stands in for T in the backward pass, 10 as in GAIN.
        **abn: the other arguments of ``ABN``.

    Raises:
        TypeError: an argument that ``ABN`` does not take.
        ValueError: as ``ABN``, or a threshold outside (0, 1), or a sharpness of 0 or less.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        mechanism: Mechanism = "plain",
        mask_threshold: float = 0.4,
        mask_sharpness: float = 10.0,
        **abn: Any,
    ) -> None:
        super().__init__(num_classes, mechanism=mechanism, **abn)
        if not 0 < mask_threshold < 1:
            raise ValueError(f"the mask threshold lies between 0 and 1, not at {mask_threshold}")
        if mask_sharpness <= 0:
            raise ValueError(f"the mask sharpness is above 0, not {mask_sharpness}")
        self.mask_threshold, self.mask_sharpness = mask_threshold, mask_sharpness
        widths = (self.backbone.channels[-1], self.branch_channels)
        self.prototypes = nn.ParameterList(0.1 * torch.randn(num_classes, width) for width in widths)
        """Class centres (N, C), of the perception and of the attention branch."""

    def outputs(self, image: Tensor) -> AttentionOutputs:
        """As ABN's, with the logits the perception branch gives on the hidden features."""
        features = self.extract(image)
        found = self._outputs(features)
        with _without_counting(self.backbone):
            _, hidden_logits = self.perceive(self.hide(features, found.maps[0]))
        return found._replace(hidden_logits=hidden_logits)

    def hide(self, features: Tensor, attention_map: Tensor) -> Tensor:
        """F* = F - T(M) F: (B, C, h, w), (B, h, w) -> (B, C, h, w).

        The mask is hard, as the paper has it. A step has no gradient, so the backward pass takes
        that of a sigmoid around the threshold (a straight-through estimator): the map is pushed up
        where hiding more would take the class away.
        """
        return features * (1 - self.mask(attention_map))[:, None]

    def mask(self, attention_map: Tensor) -> Tensor:
        """T(M) of zeros and ones, with the gradient of a sigmoid: (B, h, w) -> (B, h, w)."""
        soft = torch.sigmoid(self.mask_sharpness * (attention_map - self.mask_threshold))
        hard = (attention_map > self.mask_threshold).to(soft.dtype)
        return hard + (soft - soft.detach())  # the brackets: 1 + 0.3 - 0.3 is not always 1


@contextmanager
def _without_counting(module: nn.Module) -> Iterator[None]:
    """Normalise by the statistics of the batch without adding them to the running ones.

    The branches share weights; but hidden features are not what is classified at inference, and
    must not shift the statistics that are used there.
    """
    norms = [child for child in module.modules() if isinstance(child, nn.modules.batchnorm._BatchNorm)]
    tracked = [norm.track_running_stats for norm in norms]
    try:
        for norm in norms:
            norm.track_running_stats = False
        yield
    finally:
        for norm, before in zip(norms, tracked, strict=True):
            norm.track_running_stats = before
