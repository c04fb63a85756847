"""A network cut in two at the output of one of its modules, without a hook.

    logits = network(image) = tail(*trunk(image))

The network is traced once into a graph (``torch.fx``), and the graph is split at the module's output:
the trunk is what the output needs, the tail is what depends on it. Whatever else the tail needs (the
other side of a residual connection, another input) crosses the cut beside it. So the features can be
had, and the score differentiated by them, while the module itself is never touched: no state between
calls, any number of threads, and the halves can be exported.

Shape legend: B batch, C feature channels, h, w grid, T tokens.
"""

from __future__ import annotations

import copy
import functools
import inspect
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from timm.layers import get_notrace_functions, get_notrace_modules  # type: ignore[attr-defined]
from torch import Tensor, fx, nn

_TRACING = threading.Lock()


@dataclass(frozen=True)
class Layout:
    """How the features of a layer lie in memory.

    Attributes:
        kind: ``nchw`` (B, C, h, w), ``nhwc`` (B, h, w, C), or ``tokens`` (B, T, C).
        prefix_tokens: class and register tokens before those of the image.
        aspect: width of the grid over its height, of tokens.
    """

    kind: Literal["nchw", "nhwc", "tokens"] = "nchw"
    prefix_tokens: int = 0
    aspect: float = 1.0

    def to_map(self, features: Tensor) -> Tensor:
        """Features with any leading axes (..., as they lie) -> (..., C, h, w).

        Raises:
            ValueError: the tokens without the prefix fill no grid of this aspect.
        """
        if self.kind == "nchw":
            return features
        if self.kind == "tokens":
            tokens = features.shape[-2] - self.prefix_tokens
            height = round((max(tokens, 0) / self.aspect) ** 0.5)
            width = round(height * self.aspect)
            if not 0 < height * width == tokens:
                raise ValueError(f"{tokens} tokens fill no grid of aspect {self.aspect:g}")
            kept = features[..., self.prefix_tokens :, :]
            features = kept.reshape(*kept.shape[:-2], height, width, kept.shape[-1])
        return features.movedim(-1, -3)


@dataclass(frozen=True)
class Hook:
    """Where a network is cut to be explained.

    Attributes:
        root: the module that is cut; the network itself, or one inside it.
        layer: path of a module in ``root``.
        layout: of that module's output.
    """

    root: nn.Module
    layer: str
    layout: Layout = Layout()


class Trace:
    """The graph of a network, with the place of each module's output in it.

    Args:
        network: as it is in eval mode; it is not changed.
        whole: modules of these types are taken as one step although they would be traced through.

    Raises:
        ValueError: the network decides by the values of tensors which way it goes, or changes a tensor
            unseen, and so is no graph.

    Attributes:
        graph: of the whole network; the placeholders of arguments that are left out are no part of it.
        inputs: its placeholders.
        outputs: by path, the nodes of each call of a module that returns one tensor.
    """

    def __init__(self, network: nn.Module, *, whole: tuple[type[nn.Module], ...] = ()) -> None:
        tracer = _Tracer(whole)
        # Arguments that are left out, such as masks and edits, are no inputs of the graph.
        parameters = inspect.signature(network.forward).parameters.values()
        defaults = {item.name: item.default for item in parameters if item.default is not item.empty}
        training = [module for module in network.modules() if module.training]
        network.eval()
        try:
            with _TRACING:
                self.graph = tracer.trace(network, defaults)
        except Exception as error:  # whatever a forward pass raises that was given no real tensor
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise ValueError(f"{type(network).__name__} cannot be traced into a graph: {reason}") from error
        finally:
            for module in training:
                module.training = True
        if any(_changes_unseen(node, network) for node in self.graph.nodes):
            raise ValueError(f"{type(network).__name__} is no graph: it drops what it changes in place")
        self.network = network
        self.outputs = tracer.outputs
        self.inputs = self.graph.find_nodes(op="placeholder")[: len(parameters) - len(defaults)]

    def node(self, layer: str) -> fx.Node:
        """Where the output of a module is.

        Raises:
            ValueError: there is no such module, it is not called exactly once, or returns no tensor.
        """
        calls = self.outputs.get(layer, [])
        if len(calls) == 1:
            return calls[0]
        if calls:
            raise ValueError(f"{layer} is called {len(calls)} times, so its output is no one place")
        known = dict(self.network.named_modules())
        if layer in known:
            raise ValueError(f"{layer} returns no single tensor, or is not called")
        near = [name for name in self.outputs if name.startswith(layer.rpartition(".")[0])] or self.outputs
        raise ValueError(
            f"{type(self.network).__name__} has no layer {layer!r}; there are: {', '.join([*near][:40])}"
        )

    def compile(self, graph: fx.Graph) -> Compiled:
        """A graph as a function of its placeholders, run on the network as it is then."""
        return Compiled(self.network, graph)


class Compiled:
    """A part of a network's graph as a function of its placeholders; compiled when it is first called.

    It reads parameters off the network each time, so the network may move and learn, and holds none
    itself.
    """

    def __init__(self, network: nn.Module, graph: fx.Graph) -> None:
        self.network = network
        self.graph = graph

    @functools.cached_property
    def _forward(self) -> Callable[..., Any]:
        self.graph.lint()
        return type(self.module()).forward

    def __call__(self, *inputs: Any) -> Any:
        """Inputs of the graph -> its output."""
        return self._forward(self.network, *inputs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Compiled:
        return Compiled(copy.deepcopy(self.network, memo), self.graph)

    def module(self) -> fx.GraphModule:
        """The graph as a module, which shares the parameters it uses with the network."""
        return fx.GraphModule(self.network, self.graph)


class Cut:
    """A network as trunk and tail.

    Args:
        network: in eval mode when it is run.
        layer: path of the module at whose output it is cut.
        trace: of the network, where there is one already.

    Raises:
        ValueError: there is no such place, or the logits do not depend on it.

    Example:
        >>> import torch
        >>> from konkyo.models.cnn import CNN
        >>> network, image = CNN(10).eval(), torch.rand(1, 3, 32, 32)
        >>> cut = Cut(network, "features")
        >>> features, *rest = cut.trunk(image)
        >>> torch.equal(cut.tail(features, *rest), network(image))
        True
    """

    def __init__(self, network: nn.Module, layer: str, *, trace: Trace | None = None) -> None:
        self.layer = layer
        trace = trace or Trace(network)
        place = trace.node(layer)
        after = _dependents(place)
        output = next(node for node in trace.graph.nodes if node.op == "output")
        if output not in after:
            raise ValueError(f"the output does not depend on {layer}")
        self.crossing = [
            node
            for node in trace.graph.nodes
            if node is not place and node not in after and node.op != "get_attr" and after & node.users.keys()
        ]
        self.trunk_graph = _part(trace.graph, trace.inputs, [place, *self.crossing])
        self.tail_graph = _part(trace.graph, [place, *self.crossing], output.args[0])
        self._trunk = trace.compile(self.trunk_graph)
        self.tail = trace.compile(self.tail_graph)
        """Features, and what crosses beside them -> what the network returns."""

    def trunk(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Inputs of the network -> features, and whatever else the tail needs, in order."""
        return tuple(self._trunk(*inputs))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        other = copy.copy(self)  # of the graphs, which stay as they are, there is need of only one
        memo[id(self)] = other
        other._trunk, other.tail = copy.deepcopy((self._trunk, self.tail), memo)
        return other


def _part(graph: fx.Graph, inputs: Sequence[fx.Node], outputs: Any) -> fx.Graph:
    """The part of a graph between some of its nodes."""
    part = fx.Graph()
    copies = {node: part.placeholder(f"value_{index}") for index, node in enumerate(inputs)}
    wanted = needed(outputs, set(inputs))
    for node in graph.nodes:
        if node in wanted:
            copies[node] = part.node_copy(node, copies.__getitem__)
    part.output(fx.node.map_arg(outputs, copies.__getitem__))
    return part


def needed(outputs: Any, given: set[fx.Node]) -> set[fx.Node]:
    """The nodes that nodes are computed from, themselves among them, back to what is given."""
    waiting: list[fx.Node] = []
    fx.node.map_arg(outputs, waiting.append)
    found: set[fx.Node] = set()
    while waiting:
        node = waiting.pop()
        if node not in found and node not in given:
            found.add(node)
            waiting.extend(node.all_input_nodes)
    return found


def _changes_unseen(node: fx.Node, network: nn.Module) -> bool:
    """Whether a node works in place and its result is used by no other, so that no half would need it."""
    if node.users or node.op in ("placeholder", "get_attr", "output"):
        return False
    if node.op == "call_module":
        return bool(getattr(network.get_submodule(str(node.target)), "inplace", False))
    name = node.target if isinstance(node.target, str) else node.target.__name__
    return bool(node.kwargs.get("inplace")) or (name.endswith("_") and not name.endswith("__"))


def _dependents(node: fx.Node) -> set[fx.Node]:
    waiting = list(node.users)
    found: set[fx.Node] = set()
    while waiting:
        user = waiting.pop()
        if user not in found:
            found.add(user)
            waiting.extend(user.users)
    return found


class _Tracer(fx.Tracer):
    """Notes where the output of each module is; leaves the modules of other threads alone.

    Tracing replaces ``__call__`` and ``__getattr__`` of ``nn.Module`` for the whole process for as long as
    it takes, so a network that another thread runs meanwhile comes by here too, even the same network.
    """

    proxy_buffer_attributes = True
    """Buffers are read when the graph is run, and nothing computed from them is kept on the network."""

    def __init__(self, whole: tuple[type[nn.Module], ...]) -> None:
        super().__init__(autowrap_functions=tuple(get_notrace_functions()))  # type: ignore[no-untyped-call]
        self._leaves = (*get_notrace_modules(), *whole)  # type: ignore[no-untyped-call]
        self._thread = threading.get_ident()
        self.outputs: dict[str, list[fx.Node]] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, self._leaves) or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        result = super().call_module(m, forward, args, kwargs)
        if isinstance(result, fx.Proxy):
            self.outputs.setdefault(self.path_of_module(m), []).append(result.node)
        return result

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)
