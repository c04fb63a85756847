"""Where a network can be explained: the modules whose output lies on a grid, found by what flows through it.

Which module that is no name and no base class tells, so the network is traced, one image is run
through the graph, and the outputs of its stages, blocks and norms are looked at: their shapes, what
comes before them, and whether the score has a gradient by them. A vision transformer decides by its
class token, so the last output of its patch tokens has none at all.

Shape legend: B batch, D input channels, H, W input size, C feature channels, h, w grid, T tokens.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from timm.layers import DropPath  # type: ignore[attr-defined]
from torch import Tensor, fx, nn

from konkyo.models.cut import Cut, Layout, Trace, needed
from konkyo.models.probing import redraw, run

MOST_PREFIX_TOKENS = 16
SHARE_BEHIND = 0.75
"""A map without prefix tokens that lies behind this share of the parameters is no mere embedding."""
LEAST_BEHIND = 0.2
"""A place before nearly all of the parameters is a sign that the blocks hand on something else."""

_NO_FEATURES = (nn.Identity, nn.Dropout, nn.Dropout2d, DropPath, nn.Linear)


@dataclass(frozen=True)
class _Place:
    layer: str
    node: fx.Node
    layout: Layout


class Places:
    """The places in a network where it can be cut to be explained.

    Args:
        network: is not changed, and left in the mode it is in.
        size: D, H, W of its input.

    Raises:
        ValueError: the network cannot be traced, or run at this size.
    """

    def __init__(self, network: nn.Module, size: tuple[int, int, int]) -> None:
        self._network = network
        self._size = size
        self._format = getattr(network, "output_fmt", "NCHW")
        self._trace = Trace(network)
        self._values = run(self._trace, size)
        self._decisions: dict[str, bool] = {}
        self._parameters = sum(parameter.numel() for parameter in network.parameters())

    def best(self) -> tuple[str, Layout]:
        """Where to explain it: the deepest place the score still depends on cell by cell.

        That is the last map without prefix tokens, as long as hardly anything but the head follows it.
        Else it is the last tokens with a gradient, if need be inside the last block. Children and
        grandchildren of the network are looked at, which are its stages, blocks and norms; every module
        only where these hand on something else than a grid.

        Raises:
            ValueError: there is no such place.
        """
        found = self._last(most_depth=2)
        if found is None or self._parameters_before(found.node) < LEAST_BEHIND * self._parameters:
            found = self._last() or found
        if found is None:
            raise ValueError(
                f"{type(self._network).__name__} has no module with a grid that decides its score"
            )
        return found.layer, found.layout

    def _last(self, most_depth: int | None = None) -> _Place | None:
        places = self._distinct(self._candidates(most_depth))
        tokens = [place for place in places if place.layout.prefix_tokens]
        behind = SHARE_BEHIND * self._parameters_before(tokens[-1].node) if tokens else 0
        for place in reversed(places):
            deep = place.layout.prefix_tokens == 0 and self._parameters_before(place.node) >= behind
            if deep and self._decides(place):
                return place
        return next((found for place in reversed(tokens) if (found := self._inside(place))), None)

    def at(self, layer: str) -> Layout:
        """How the output of a layer lies.

        Raises:
            ValueError: there is no such layer, it has no grid, or the score has no gradient by it.
        """
        node = self._trace.node(layer)
        place = self._place(layer)
        if place is None:
            shape = self._values[node].shape if isinstance(self._values.get(node), Tensor) else ()
            raise ValueError(f"the output of {layer} {tuple(shape)} is no grid of features")
        if not self._decides(place):
            other = self._inside(place)
            better = other.layer if other else self.best()[0]
            raise ValueError(f"the gradient by every cell of {layer} is exactly zero; {better} has one")
        return place.layout

    def _candidates(self, most_depth: int | None) -> list[_Place]:
        """In the order of their outputs: modules that are called once and do something.

        No linear layers: those are projections, or classify each token by itself.
        """
        order = {node: position for position, node in enumerate(self._trace.graph.nodes)}
        found = []
        for path, nodes in self._trace.outputs.items():
            shallow = most_depth is None or path.count(".") < most_depth
            if not path or not shallow or len(nodes) > 1 or self._pools_tokens(path):
                continue
            place = self._place(path)
            if place is not None and not isinstance(self._network.get_submodule(path), _NO_FEATURES):
                found.append(place)
        return sorted(found, key=lambda place: order[place.node])

    def _pools_tokens(self, path: str) -> bool:
        """Whether it is a projection of an attention pool: tokens, in a module that returns none."""
        value = self._values[self._trace.outputs[path][0]]
        outer = self._trace.outputs.get(path.rpartition(".")[0], [])
        tokens = isinstance(value, Tensor) and value.ndim == 3
        return tokens and len(outer) == 1 and getattr(self._values[outer[0]], "ndim", 3) < 3

    def _place(self, layer: str) -> _Place | None:
        node = self._trace.outputs[layer][0]
        layout = layout_of(self._values.get(node), self._size[1:], self._format)
        return None if layout is None else _Place(layer, node, layout)

    def _distinct(self, places: list[_Place]) -> list[_Place]:
        """One name for each output: that of the network's own features, else the shortest."""
        info = getattr(self._network, "feature_info", None)
        known = {item["module"] for item in getattr(info, "info", info) or []}
        names: dict[fx.Node, _Place] = {}
        for place in places:
            other = names.get(place.node)
            if other is None or (place.layer not in known, len(place.layer)) < (
                other.layer not in known,
                len(other.layer),
            ):
                names[place.node] = place
        return list(names.values())

    def _inside(self, place: _Place) -> _Place | None:
        """The place, or where the score has no gradient by it the last one inside with the same tokens."""
        if self._decides(place):
            return place
        shape = self._values[place.node].shape
        # A block and what holds it give the same; inside the block is where to look.
        same = [path for path, nodes in self._trace.outputs.items() if nodes == [place.node]]
        for path in sorted(same, key=len, reverse=True):
            for name, child in reversed(list(self._network.get_submodule(path).named_children())):
                nodes = self._trace.outputs.get(f"{path}.{name}", [])
                if (
                    len(nodes) == 1
                    and not isinstance(child, nn.Linear)
                    and self._values[nodes[0]].shape == shape
                ):
                    inner = _Place(f"{path}.{name}", nodes[0], place.layout)
                    if self._decides(inner):
                        return inner
        return None

    def _parameters_before(self, node: fx.Node) -> int:
        """Number of parameters the value of a node depends on."""
        found: dict[int, int] = {}
        for other in needed([node], set()):
            if other.op == "call_module":
                owned = list(self._network.get_submodule(str(other.target)).parameters())
            elif other.op == "get_attr":
                owned = [attrgetter(str(other.target))(self._network)]
            else:
                continue
            found.update({id(parameter): parameter.numel() for parameter in owned})
        return sum(found.values())

    def _decides(self, place: _Place) -> bool:
        """Whether any logit has a gradient by any cell, for a network in general position."""
        if place.layer not in self._decisions:
            self._decisions[place.layer] = self._has_gradient(place)
        return self._decisions[place.layer]

    @torch.inference_mode(False)
    def _has_gradient(self, place: _Place) -> bool:
        """By autograd, on the tail alone.

        Some heads are zero before they have learnt anything, so the parameters after the cut are drawn
        anew, in a copy. The features are drawn too: only what follows the cut is run.
        """
        try:
            cut = Cut(self._network, place.layer, trace=self._trace)
        except ValueError:  # the logits do not depend on it
            return False
        generator = torch.Generator().manual_seed(0)
        tail = copy.deepcopy(cut.tail.module())
        redraw(tail, generator)
        features, *rest = [self._drawn(node, generator) for node in (place.node, *cut.crossing)]
        with torch.enable_grad():
            logits = tail(features.requires_grad_(), *rest)
            score = (logits * torch.randn(logits.shape, generator=generator)).sum()
            (gradient,) = torch.autograd.grad(score, features)
        return bool((place.layout.to_map(gradient) != 0).any())

    def _drawn(self, node: fx.Node, generator: torch.Generator) -> Any:
        value = self._values[node]
        if isinstance(value, Tensor) and value.is_floating_point():
            return torch.randn(value.shape, generator=generator, dtype=torch.float64)
        return value.cpu() if isinstance(value, Tensor) else value


def layout_of(value: Any, size: tuple[int, int], output_format: str = "NCHW") -> Layout | None:
    """How features (B, ...) of an image of this height and width lie; None if they are no grid."""
    if not isinstance(value, Tensor) or value.shape[:1] != (1,):
        return None
    aspect = size[1] / size[0]
    if value.ndim == 4:
        grids = {"NCHW": value.shape[2:], "NHWC": value.shape[1:3]}
        fitting = [kind for kind, grid in grids.items() if _covers(grid, size)]
        if not fitting:
            return None
        kind = output_format if output_format in fitting else fitting[0]
        return Layout("nhwc" if kind == "NHWC" else "nchw")
    if value.ndim == 3:
        for prefix in range(MOST_PREFIX_TOKENS + 1):
            height = round((max(0, value.shape[1] - prefix) / aspect) ** 0.5)
            if height > 1 and height * round(height * aspect) == value.shape[1] - prefix:
                return Layout("tokens", prefix, aspect)
    return None


def _covers(grid: torch.Size, size: tuple[int, int]) -> bool:
    """Whether a grid is a reduction of the image, the same along both sides but for rounding."""
    rows, columns = grid
    return rows * columns > 1 and rows <= size[0] and abs(columns - rows * size[1] / size[0]) < 1
