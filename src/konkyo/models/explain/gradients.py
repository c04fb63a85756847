"""What the explanations by gradient share: scores differentiated by features, or by the image.

Each is the same four steps: the trunk without a gradient, the features as a leaf, the tail with one,
and one batched call for every target. Nothing is left behind: no hook, no gradient of a parameter, no
state. Logits are differentiated before softmax and in float32 or wider, because a softmax in half
precision underflows to a gradient of zero.

Shape legend: B batch, D input channels, N classes, K targets, C feature channels, h, w grid.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from konkyo.models.card import MapKind
from konkyo.models.cut import Cut, Hook
from konkyo.models.explain import resolve_targets
from konkyo.models.explain.rows import wide


def differentiate(
    features: Tensor, score: Callable[[Tensor], Tensor], targets: Tensor, *, at_once: bool = True
) -> tuple[Tensor, Tensor]:
    """Scores, and their gradients by the features, for several targets from one forward pass.

    Any differentiable scalar can be the target: ``score`` may return the log-probabilities of the words
    of a caption as well as the logits of a classifier.

    Args:
        features: (B, ...), of any floating type; it is not changed, and gets no gradient.
        score: features (B, ...) to scores (B, N). It sees a copy, so that it may work in place.
        targets: (B, K) int64; −1 is the highest score.
        at_once: all targets in one batched backward pass; else one after the other, which takes longer
            and the memory of one.

    Returns:
        scores (B, N), float32 or wider, and gradients (B, K, ...) of the type of the features. In
        float16, unlike bfloat16, gradients below 6e-8 vanish.

    Example:
        >>> import torch
        >>> features, weight = torch.rand(1, 3), torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
        >>> _, gradients = differentiate(features, lambda x: x @ weight.T, torch.tensor([[0, 1]]))
        >>> gradients.tolist()
        [[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]]
    """
    with torch.inference_mode(False), torch.enable_grad():
        leaf = ordinary(features).detach().requires_grad_()
        scores = wide(score(leaf.clone()))  # (B, N)
        found = scores.detach()
        resolved = resolve_targets(found, targets)  # (B, K)
        if resolved.shape[1] == 0:
            return found, features.new_empty(*resolved.shape, *features.shape[1:])
        seeds = scores.new_zeros(*resolved.shape, scores.shape[1])
        seeds = seeds.scatter_(2, resolved[..., None], 1).movedim(1, 0)  # (K, B, N)
        if at_once:
            (gradients,) = torch.autograd.grad(scores, leaf, seeds, is_grads_batched=True)
        else:
            last = len(seeds) - 1
            gradients = torch.stack(
                [
                    torch.autograd.grad(scores, leaf, seed, retain_graph=index < last)[0]
                    for index, seed in enumerate(seeds)
                ]
            )
    return found, gradients.movedim(0, 1)


def ordinary(tensor: Tensor) -> Tensor:
    """The tensor, or a copy where it was made in inference mode and so could not enter autograd."""
    return tensor.clone() if tensor.is_inference() else tensor


class LayerGradient(nn.Module, ABC):
    """Base of the explanations that weigh the features of a layer by gradients.

    Args:
        network: with a ``hook``.
        layer: where; default: the network's own choice.

    Raises:
        TypeError: the network does not say where it can be cut.
        ValueError: it cannot be cut there.
    """

    name: ClassVar[str]
    map_kind: ClassVar[MapKind] = "class_activation_map"
    class_specific: ClassVar[bool] = True
    takes_attention: ClassVar[bool] = False
    takes_layer: ClassVar[bool] = True
    scales: ClassVar[int] = 1

    def __init__(self, network: nn.Module, layer: str | None = None) -> None:
        super().__init__()
        self.network = network
        self.hook = hook_of(network, layer)
        self.cut = self.cut_network()

    def cut_network(self) -> Cut:
        """At the hook; for methods whose tail is another than the network's."""
        return Cut(self.hook.root, self.hook.layer)

    @property
    def differentiates(self) -> bool:
        """Whether autograd is needed, and so torch."""
        return True

    @abstractmethod
    def combine(self, features: Tensor, gradients: Tensor) -> Tensor:
        """Features (B, C, h, w), gradients (B, K, C, h, w), at least float32 -> maps (B, K, h, w), signed."""

    def forward(self, image: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D, H, W), (B, K) -> logits (B, N), maps (B, K, h, w)."""
        with torch.inference_mode(False), torch.no_grad():
            features, *rest = self.cut.trunk(ordinary(image))
        logits, gradients = differentiate(features, lambda leaf: self.cut.tail(leaf, *rest), targets)
        layout = self.hook.layout
        return logits, self.combine(wide(layout.to_map(features.detach())), wide(layout.to_map(gradients)))


def hook_of(network: nn.Module, layer: str | None) -> Hook:
    """Where a network is cut; see ``Network.hook``.

    Raises:
        TypeError: it does not say.
        ValueError: it has no such layer.
    """
    hook: Callable[[str | None], Hook] | None = getattr(network, "hook", None)
    if hook is None:
        raise TypeError(f"{type(network).__name__} does not say at which layer it can be explained")
    return hook(layer)
