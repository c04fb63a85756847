from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:  # the tests of the service run without torch
    from torch import Tensor, nn

# Time is no property of what is tested: on a busy machine any example may take long.
settings.register_profile("konkyo", deadline=None)
settings.load_profile("konkyo")


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


@pytest.fixture(scope="session")
def settled(trained_like: Callable[..., nn.Module]) -> Callable[[nn.Module, Tensor], nn.Module]:
    """``trained_like``, but by the statistics of the image: values stay of order 1 in deep networks."""

    import torch
    from torch import nn

    def settle(network: nn.Module, image: Tensor) -> nn.Module:
        trained_like(network)
        norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():
            network.train()(image)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        return network.eval()

    return settle
