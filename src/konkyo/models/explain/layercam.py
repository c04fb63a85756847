"""LayerCAM (Jiang et al., IEEE TIP 2021, equations 5 and 6).

    w^kc_ij = ReLU(dy^c / dA^k_ij)                    L^c = ReLU(sum_k w^kc A^k)

Only positive gradients count, each at its own position, so that maps of early layers are fine and
still lie on the object.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from konkyo.models.explain import register
from konkyo.models.explain.gradients import LayerGradient


@register
class LayerCAM(LayerGradient):
    """Features times their positive gradients, summed over the channels."""

    name: ClassVar[str] = "layercam"

    def combine(self, features: Tensor, gradients: Tensor) -> Tensor:
        """See ``LayerGradient.combine``."""
        return (gradients.clamp(min=0) * features[:, None]).sum(dim=2)
