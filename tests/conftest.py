from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # the tests of the service run without torch
    from torch import nn


@pytest.fixture(scope="session")
def trained_like() -> Callable[[nn.Module, int], nn.Module]:
    """Gives batch norms the statistics training would, so that maps are not trivial; eval mode."""

    import torch
    from torch import nn

    def spread(module: nn.Module, seed: int = 0) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                assert layer.running_mean is not None
                assert layer.running_var is not None
                layer.running_mean.normal_(0, 0.1, generator=generator)
                layer.running_var.uniform_(0.02, 0.2, generator=generator)
                nn.init.uniform_(layer.weight, 0.5, 1.5, generator=generator)
                nn.init.normal_(layer.bias, 0, 0.2, generator=generator)
        return module.eval()

    return spread
