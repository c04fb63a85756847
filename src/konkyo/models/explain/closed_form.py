"""Grad-CAM's weights without a backward pass, for the heads that allow it.

Global average and linear layer, where the gradient is the same in every cell:

    alpha^c = W_c / (h w)

Global average, layer norm and linear layer (ConvNeXt), with ``u = W_c gamma``, ``x`` the normalised
average and ``s`` its deviation:

    alpha^c = (u - mean(u) - x mean(u x)) / (s h w)

Class tokens: ``class_token.py``. Each costs next to nothing for any number of classes, needs no
autograd, and can be exported. Whether a form applies is read off the modules after the cut, and then
checked: it must give what autograd gives.

Shape legend: B batch, N classes, K targets, C feature channels, h, w grid, T tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, fx, nn

from konkyo.models.cut import Cut, Hook, Layout
from konkyo.models.explain import resolve_targets
from konkyo.models.explain.class_token import ClassToken, find_class_token
from konkyo.models.explain.gradients import differentiate
from konkyo.models.explain.rows import Normalised, class_rows, full_precision, wide
from konkyo.models.probing import redraw


class ClosedForm(Protocol):
    """The mean gradient of each target's logit by each channel."""

    def __call__(self, features: Tensor, rest: Sequence[Any], targets: Tensor) -> tuple[Tensor, Tensor]:
        """Features as they lie, what crosses the cut beside them, targets (B, K) -> (B, N), (B, K, C)."""
        ...


@dataclass(frozen=True)
class Average:
    """Global average, a layer norm where there is one, and a linear layer or the mean of several.

    Attributes:
        tail: features to logits, as the network has it.
        layout: of the features.
        norm: of the average.
        heads: linear layers, or convolutions of one pixel.

    Where maxima are pooled instead, the mean gradient is the same, as one cell has all of it. Only of an
    average are the logits what ``of_average`` gives.
    """

    tail: Callable[..., Tensor]
    layout: Layout
    norm: nn.LayerNorm | None
    heads: tuple[nn.Linear | nn.Conv2d, ...]

    def logits(self, features: Tensor, rest: Sequence[Any] = ()) -> Tensor:
        """(B, N), the network's own."""
        return wide(self.tail(features, *rest))

    def class_weights(self, targets: Tensor) -> Tensor:
        """W_c: targets (B, K) in [0, N) -> (B, K, C)."""
        return class_rows(self.heads, targets).sum(dim=2)

    def of_average(self, features: Tensor) -> Tensor:
        """The heads on the average of the features: (B, N)."""
        average = wide(self.layout.to_map(features)).mean(dim=(2, 3))
        outputs = [head(average.view(-1, *head.weight.shape[1:])) for head in self.heads]
        return torch.stack(outputs).mean(dim=0).flatten(1)

    def __call__(self, features: Tensor, rest: Sequence[Any], targets: Tensor) -> tuple[Tensor, Tensor]:
        """See ``ClosedForm``."""
        logits = self.logits(features, rest)
        with full_precision(features):
            maps = wide(self.layout.to_map(features))  # (B, C, h, w)
            gradient = self.class_weights(resolve_targets(logits, targets))  # (B, K, C)
            if self.norm is not None:
                gradient = Normalised.of(maps.mean(dim=(2, 3)), self.norm).gradient(gradient)
            return logits, gradient / (maps.shape[2] * maps.shape[3])


def find_closed_form(network: nn.Module, hook: Hook, cut: Cut) -> ClosedForm | None:
    """The closed form of what follows the cut, None if there is none here.

    Args:
        network: that is explained.
        hook: where it is cut.
        cut: of the root of the hook.
    """
    form = find_class_token(hook) or _find_average(hook, cut)
    return form if form is not None and _Trial(form, hook, cut).agrees() else None


def find_linear(network: nn.Module, hook: Hook, cut: Cut) -> Average | None:
    """As ``find_closed_form``, where it is the average and linear layers alone."""
    form = _find_average(hook, cut)
    if form is None or form.norm is not None:
        return None
    trial = _Trial(form, hook, cut)
    return form if trial.agrees() and trial.averages() else None


def _find_average(hook: Hook, cut: Cut) -> Average | None:
    """By the modules with parameters after the cut: not more than one norm, and linear layers."""
    if cut.crossing:
        return None
    layers = list(_layers(cut.tail_graph, hook.root))
    norms = [layer for layer in layers[:1] if isinstance(layer, nn.LayerNorm)]
    heads = tuple(layer for layer in layers if isinstance(layer, nn.Linear | nn.Conv2d))
    channels = {head.weight[0].numel() for head in heads}
    if len(norms) + len(heads) < len(layers) or len(channels) != 1:
        return None
    return Average(cut.tail, hook.layout, norms[0] if norms else None, heads)


def _layers(graph: fx.Graph, root: nn.Module) -> Iterator[nn.Module]:
    """The modules whose parameters or buffers a graph uses, in order."""
    paths = [
        str(node.target).rpartition(".")[0] if node.op == "get_attr" else str(node.target)
        for node in graph.nodes
        if node.op in ("get_attr", "call_module")
    ]
    for path in dict.fromkeys(paths):
        module = root.get_submodule(path)
        if any(True for _ in (*module.parameters(), *module.buffers())):
            yield module


class _Trial:
    """A form and the tail it stands for, on random features, at parameters drawn anew."""

    def __init__(self, form: ClassToken | Average, hook: Hook, cut: Cut) -> None:
        generator = torch.Generator().manual_seed(0)
        # Copied together, so that the form has the parameters of the copy.
        tail = cut.tail.module()
        form = replace(form, tail=tail) if isinstance(form, Average) else form
        self.tail, self.form = copy.deepcopy((tail, form))
        redraw(self.tail, generator)
        self.layout = hook.layout
        classes, channels = self.form.heads[0].weight.flatten(1).shape
        shape = _shape(hook.layout, channels)
        drawn = torch.randn(1 + len(cut.crossing), *shape, generator=generator, dtype=torch.float64)
        self.features, *self.rest = drawn
        self.targets = torch.randint(classes, (2, 3), generator=generator)

    def agrees(self) -> bool:
        """Whether the form gives what the tail gives, and what autograd gives."""
        try:
            with torch.no_grad():
                expected_logits = self.tail(self.features.clone(), *self.rest)
                logits, weights = self.form(self.features, self.rest, self.targets)
            _, gradients = differentiate(
                self.features, lambda leaf: self.tail(leaf, *self.rest), self.targets
            )
        except (RuntimeError, ValueError, AssertionError):  # what follows takes something else
            return False
        expected = self.layout.to_map(gradients).mean(dim=(-2, -1))
        return _close(logits, expected_logits) and _close(weights, expected)

    @torch.no_grad()
    def averages(self) -> bool:
        """Whether the logits are those of the average."""
        assert isinstance(self.form, Average)
        return _close(self.form.of_average(self.features), self.tail(self.features.clone(), *self.rest))


def _shape(layout: Layout, channels: int) -> tuple[int, ...]:
    """Of the features of two images, of a small grid."""
    height, width = 4, round(4 * layout.aspect)
    if layout.kind == "tokens":
        return 2, layout.prefix_tokens + height * width, channels
    return (2, height, width, channels) if layout.kind == "nhwc" else (2, channels, height, width)


def _close(found: Tensor, expected: Tensor) -> bool:
    """But for the rounding of a norm that is computed in float32 whatever it is given."""
    same = found.shape == expected.shape
    return same and bool((found - expected).abs().max() <= 1e-5 * expected.abs().max())
