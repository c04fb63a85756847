from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn


@pytest.fixture(scope="session")
def settled(trained_like) -> Callable[[nn.Module, Tensor], nn.Module]:
    """``trained_like``, but by the statistics of the image: values stay of order 1 in deep networks."""

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
