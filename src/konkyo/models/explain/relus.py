"""A network whose ReLUs pass other gradients back, made from its traced graph.

    ReLU        dL/dx = dL/dy [x > 0]
    deconv      dL/dx = ReLU(dL/dy)                   Zeiler and Fergus, ECCV 2014, section 2.1
    guided      dL/dx = ReLU(dL/dy) [x > 0]           Springenberg et al., ICLR workshop 2015, section 3.4

The graph is a copy of what the network does, and only in this copy the ReLUs are replaced: other threads
run the network itself meanwhile. ReLU6 is a ReLU that also stops gradients above 6.

Gates, such as the sigmoids of squeeze-and-excitation and the softmax of attention, keep their gradient,
as in the public libraries. A network with another activation in the place of ReLU is another matter:
there the rules say nothing, so it is refused.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from konkyo.models.cut import Cut, Trace

ModifiedReLU = Callable[[Tensor, float, bool], Tensor]
"""Features, the value above which they are cut off, and whether they are overwritten -> rectified."""

CEILINGS = {"relu": math.inf, "relu6": 6.0}
OTHERS = {
    "celu", "elu", "gelu", "gelutanh", "glu", "gru", "hardmish", "hardshrink", "hardswish",
    "hardtanh", "inplaceabn", "leakyrelu", "logsigmoid", "lstm", "mish", "prelu", "quickgelu",
    "rnn", "rrelu", "selu", "silu", "softplus", "softshrink", "softsign", "swish", "tanh",
    "tanhshrink", "threshold", "transformerdecoderlayer", "transformerencoderlayer",
}  # fmt: skip
"""Activations that take the place of ReLU, and modules that hide one; named as ``_plain`` has it."""


class _Deconv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, ceiling: float) -> Tensor:
        return features.clamp(0, ceiling)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0].clamp(min=0), None


class _Guided(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, ceiling: float) -> Tensor:
        ctx.save_for_backward((features > 0) & (features < ceiling))
        return features.clamp(0, ceiling)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (passes,) = ctx.saved_tensors
        return torch.where(passes, gradients[0].clamp(min=0), 0), None


def deconv_relu(features: Tensor, ceiling: float = math.inf, inplace: bool = False) -> Tensor:
    """ReLU that passes positive gradients, wherever they come from."""
    return _rectified(_Deconv, features, ceiling, inplace)


def guided_relu(features: Tensor, ceiling: float = math.inf, inplace: bool = False) -> Tensor:
    """ReLU that passes positive gradients where the features are positive.

    Example:
        >>> x = torch.tensor([-1.0, 2.0, 3.0], requires_grad=True)
        >>> guided_relu(x).backward(torch.tensor([1.0, 1.0, -1.0]))
        >>> x.grad.tolist()
        [0.0, 1.0, 0.0]
    """
    return _rectified(_Guided, features, ceiling, inplace)


def _rectified(
    function: type[torch.autograd.Function], features: Tensor, ceiling: float, inplace: bool
) -> Tensor:
    rectified = cast(Tensor, function.apply(features, ceiling))
    # What else sees the features must see them overwritten, as it does in the network itself.
    return features.copy_(rectified) if inplace else rectified


class ModifiedCut(Cut):
    """A cut whose tail has modified ReLUs.

    Args:
        root: the network that is cut, unchanged.
        layer: at whose output.
        relu: what takes the place of each ReLU of the tail.

    Raises:
        ValueError: as ``Cut``.
    """

    def __init__(self, root: nn.Module, layer: str, relu: ModifiedReLU) -> None:
        trace = Trace(root)
        super().__init__(root, layer, trace=trace)
        steps = [node for node in self.tail_graph.nodes if _rectifies(node, root)]
        self._replaced = len(steps)
        self._anywhere = any(_rectifies(node, root) for node in trace.graph.nodes)
        self._others = sorted({name for node in self.tail_graph.nodes for name in _others(node, root)})
        for node in steps:
            _replace(node, root, relu)
        self.tail = trace.compile(self.tail_graph)

    def require(self, method: str, plain: str, network: nn.Module, layer: str | None = None) -> None:
        """That the rule of the ReLUs is all there is to know of the tail.

        Args:
            method: that follows the rule, by name.
            plain: what it is without modified ReLUs.
            network: whose name to use.
            layer: likewise.

        Raises:
            TypeError: the network has no ReLU, or other activations.
            ValueError: it has ReLUs, but none after the layer.
        """
        kind, others = type(network).__name__, ", ".join(self._others)
        if not self._anywhere:
            has = f"no ReLU but {others}" if others else "no ReLU"
            raise TypeError(f"{method} would equal {plain}, because {kind} has {has}")
        if others:
            raise TypeError(f"{method} is defined for ReLUs alone, and {kind} also has {others}")
        if not self._replaced:
            place = layer or "its default layer"
            raise ValueError(
                f"{method} would equal {plain}, because {kind} has no ReLU after {place};"
                " choose an earlier one"
            )


def _plain(name: str) -> str:
    """One name for ``nn.LeakyReLU``, ``F.leaky_relu`` and ``Tensor.leaky_relu_``."""
    return name.replace("_", "").lower()


def _name(node: fx.Node) -> str:
    return str(getattr(node.target, "__name__", node.target))


def _others(node: fx.Node, root: nn.Module) -> Iterator[str]:
    """Names of the activations other than ReLU that a step is, is part of, or holds."""
    if node.op in ("call_function", "call_method"):
        names = [_name(node)]
    elif node.op == "call_module":
        names = [type(part).__name__ for part in _module(node, root).modules()]
    else:
        return
    # An activation that is a module of several steps, such as x * sigmoid(x), is known by the module alone.
    names += [kind.__name__ for _, kind in node.meta.get("nn_module_stack", {}).values()]
    yield from (name for name in names if _plain(name) in OTHERS)


def _rectifies(node: fx.Node, root: nn.Module) -> bool:
    if node.op == "call_module":
        return any(isinstance(part, nn.ReLU | nn.ReLU6) for part in _module(node, root).modules())
    return node.op in ("call_function", "call_method") and _plain(_name(node)) in CEILINGS


def _replace(node: fx.Node, root: nn.Module, relu: ModifiedReLU) -> None:
    """Change a step of a graph that belongs to nobody else."""
    if node.op != "call_module":
        inplace = _name(node).endswith("_") or node.kwargs.get("inplace", node.args[1:] == (True,))
        node.args = (
            node.args[0] if node.args else node.kwargs["input"],
            CEILINGS[_plain(_name(node))],
            inplace,
        )
        node.kwargs = {}
        node.op, node.target = "call_function", relu
        return
    module = _module(node, root)
    if isinstance(module, nn.ReLU | nn.ReLU6):
        node.args = (*node.args, _ceiling(module), module.inplace)
        node.op, node.target = "call_function", relu
        return

    def step(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return _twin(module, relu)(*args, **kwargs)

    # The module is read off the network when the graph is run, which may be on a copy of the network.
    with node.graph.inserting_before(node):
        node.args = (node.graph.get_attr(str(node.target)), *node.args)
    node.op, node.target = "call_function", step


def _twin(module: nn.Module, relu: ModifiedReLU) -> nn.Module:
    """A module in eval mode with the parameters and buffers of another."""
    if isinstance(module, nn.ReLU | nn.ReLU6):
        return _ModifiedReLU(relu, _ceiling(module), module.inplace)
    twin = copy.copy(module)
    twin._modules = {name: part and _twin(part, relu) for name, part in module._modules.items()}
    twin.training = False
    return twin


def _ceiling(module: nn.ReLU | nn.ReLU6) -> float:
    return CEILINGS["relu6" if isinstance(module, nn.ReLU6) else "relu"]


def _module(node: fx.Node, root: nn.Module) -> nn.Module:
    return root.get_submodule(str(node.target))


class _ModifiedReLU(nn.Module):
    def __init__(self, relu: ModifiedReLU, ceiling: float, inplace: bool) -> None:
        super().__init__()
        self.relu, self.ceiling, self.inplace = relu, ceiling, inplace

    def forward(self, features: Tensor) -> Tensor:
        return self.relu(features, self.ceiling, self.inplace)
