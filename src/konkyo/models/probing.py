"""Finding out what a network does by running it: as it is, or at parameters drawn anew.

Shape legend: D input channels, H, W input size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from konkyo.models.cut import Trace


def redraw(module: nn.Module, generator: torch.Generator) -> None:
    """Put a module in general position: parameters drawn anew, in eval mode, double precision, on the CPU.

    What a network has learnt, or not yet, hides its structure: a head that starts at zero, a scale of
    1e-5. At parameters drawn at random nothing vanishes by chance.
    """
    module.eval().double().cpu()
    for parameter in module.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
        drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data = drawn / fan_in**0.5


@torch.no_grad()
def run(trace: Trace, size: tuple[int, int, int]) -> dict[fx.Node, Any]:
    """What every node of the graph gives; of tensors of floats only their shape, in no memory."""
    values: dict[fx.Node, Any] = {}

    class Noting(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            floats = isinstance(value, Tensor) and value.is_floating_point()
            values[n] = torch.empty_like(value, device="meta") if floats else value
            return value

    parameter = next(trace.network.parameters())
    training = [module for module in trace.network.modules() if module.training]
    trace.network.eval()
    image = torch.linspace(-1, 1, size[0] * size[1] * size[2]).view(1, *size).to(parameter)
    try:
        Noting(trace.network, graph=trace.graph).run(image)
    except Exception as error:  # whatever a forward pass raises at a size it does not take
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{type(trace.network).__name__} cannot be run at {size[1:]}: {reason}") from error
    finally:
        for module in training:
            module.training = True
    return values
