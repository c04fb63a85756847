"""Which explanations a network can give, for its card."""

from __future__ import annotations

from konkyo.models.card import MethodSpec, Needs
from konkyo.models.explain import Explanation, methods
from konkyo.models.explained import Explained

BY_PREDICTIONS = (
    MethodSpec(method="occlusion", map_kind="score_drop", class_specific=True, needs="predictions"),
    MethodSpec(method="rise", map_kind="saliency_map", class_specific=True, needs="predictions"),
)
"""What every classifier can be asked for; ``konkyo.perturbation``."""


def find_methods(model: Explained) -> tuple[MethodSpec, ...]:
    """Every method that explains the network of a model: its own first, then by name.

    Each registered method is tried; one that does not explain networks of this kind says so.

    Args:
        model: a network with its own explanation, which is the one that is exported.

    Example:
        >>> from konkyo.models.classifier import Classifier
        >>> from konkyo.models.cnn import CNN
        >>> [item.method for item in find_methods(Explained(Classifier(CNN(2)), "cam"))][:2]
        ['cam', 'gradcam']
    """
    own = model.explanation
    found = [_spec(own, "weights" if own.differentiates else "graph")]
    for name, method in methods().items():
        if name == own.name:
            continue
        try:
            method(model.classifier.network)
        except (TypeError, ValueError):
            continue
        found.append(_spec(method, "weights"))
    return (*found, *BY_PREDICTIONS)


def _spec(method: Explanation | type[Explanation], needs: Needs) -> MethodSpec:
    return MethodSpec(
        method=method.name, map_kind=method.map_kind, class_specific=method.class_specific, needs=needs
    )
