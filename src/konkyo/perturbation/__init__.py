"""Explanation methods that only perturb the image and watch the predictions, one a file.

They need no network, no gradient and no torch: whatever turns images into logits can be explained, in
any runtime. A method is an object that neither calls the network nor waits for it. It hands out
batches of images and is fed their logits (``base.py``), so the same code serves a plain loop, as in
``explain``, and a queue that others share.

Example:
    >>> import numpy as np
    >>> def predict(images):  # bright left half or bright right half
    ...     halves = images[:, :, :4].mean((1, 2, 3)), images[:, :, 4:].mean((1, 2, 3))
    ...     return np.stack(halves, axis=1) / 255
    >>> image = np.zeros((8, 8, 3), np.uint8)
    >>> image[2:4, 0:2] = 255
    >>> [map_] = explain(predict, image, [0], patch=2, stride=2, fill="black", score="logit")
    >>> map_.shape, float(map_[2, 0]), float(map_[6, 6])
    ((8, 8), 0.125, 0.0)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from konkyo.errors import UnsupportedMethod
from konkyo.imaging import UInt8
from konkyo.named import Named
from konkyo.perturbation.base import Float32, Floats, Perturbation

P = TypeVar("P", bound=type[Perturbation])
_METHODS: Named[type[Perturbation]] = Named(__name__, "perturbation")


def register(method: P) -> P:
    """Class decorator: make a method findable by its ``name``.

    Raises:
        ValueError: the name is taken.
    """
    _METHODS.add(method.name, method)
    return method


def methods() -> dict[str, type[Perturbation]]:
    """Every registered method by name."""
    return _METHODS.all()


def explain(
    predict: Callable[[UInt8], Floats],
    image: UInt8,
    targets: Sequence[int] = (-1,),
    *,
    method: str = "occlusion",
    batch_size: int = 32,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    **parameters: Any,
) -> Float32:
    """Explain one image by any classifier.

    Args:
        predict: images (B, H, W, 3) uint8 to logits (B, N).
        image: (H, W, 3) uint8.
        targets: class indices, −1 for the class predicted for ``image``.
        method: ``occlusion`` or ``rise``.
        batch_size: images at once; changes the time and the memory, not the maps.
        on_progress: called after each batch with the number of images done and their total.
        parameters: of the method.

    Returns:
        One map for each target: (K, H, W).

    Raises:
        UnsupportedMethod: there is no such method.
        InvalidParameter: a parameter does not fit the image.
        ValidationError: a parameter is unknown or out of range.
        ValueError: no such class.
    """
    known = methods()
    if method not in known:
        raise UnsupportedMethod(f"there is no perturbation {method!r}", methods=list(known))
    kind = known[method]
    explanation = kind(image, targets, kind.parameters(**parameters))
    while explanation.done < explanation.total:
        explanation.feed(predict(explanation.take(batch_size)))
        on_progress(explanation.done, explanation.total)
    return explanation.maps
