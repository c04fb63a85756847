"""The one module that is served: an image and targets in, logits and maps out.

torch runs this module and this module is what is exported to ONNX, so two runtimes cannot
disagree about preprocessing, targets or maps.
"""

from __future__ import annotations

from torch import Tensor, nn

from konkyo.models.classifier import Classifier
from konkyo.models.explain import Explanation, methods
from konkyo.models.explain.rows import wide


class Explained(nn.Module):
    """A classifier with an explanation method.

    Args:
        classifier: network and normalisation.
        method: name of the explanation; see ``models/explain``.
        layer: where the network is explained, for methods that take one; default: its own choice.

    Raises:
        KeyError: no such method; the message lists those that exist.
        TypeError: the method does not explain networks of this kind, or takes no layer.
        ValueError: the network cannot be explained at this layer.
    """

    def __init__(self, classifier: Classifier, method: str, layer: str | None = None) -> None:
        super().__init__()
        known = methods()
        if method not in known:
            raise KeyError(f"unknown explanation {method!r}; there are: {', '.join(known)}")
        if layer is not None and not known[method].takes_layer:
            raise TypeError(f"{method!r} explains the network whole and takes no layer")
        options = {} if layer is None else {"layer": layer}
        self.classifier = classifier
        self.explanation: Explanation = known[method](classifier.network, **options)

    def forward(
        self, image: Tensor, targets: Tensor, attention: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Classify and explain in one pass.

        Args:
            image: (B, H, W, 3) uint8 RGB.
            targets: (B, K) int64 class indices; −1 is the predicted class; K = 0 asks for no map.
            attention: (B, h', w') float32 edit of the map at any resolution, where the method takes
                one; a negative cell is the network's own value.

        Returns:
            logits (B, N) float32 and maps (B, M, h, w) float32, raw and signed; M = K where the
            method is class-specific, else the number of its scales.

        Raises:
            TypeError: an edit for a method that takes none.
        """
        edit = (attention,) if self.explanation.takes_attention else ()
        if attention is not None and not edit:
            raise TypeError(f"the maps of {self.explanation.name!r} cannot be edited")
        logits, maps = self.explanation(self.classifier.normalise(image), targets, *edit)
        return wide(logits), wide(maps)
