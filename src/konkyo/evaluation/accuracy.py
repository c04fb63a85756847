"""Accuracy of what is served: the exported graph where there is one, not the network it came from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from konkyo.evaluation.classification import balanced_accuracy, quadratic_weighted_kappa
from konkyo.models.card import Accuracy

Array = npt.NDArray[np.float32]
ServedModel = Callable[[npt.NDArray[np.uint8], npt.NDArray[np.int64]], tuple[Array, Array]]


class Images(Protocol):
    """An array of images, or whatever decodes them when they are asked for."""

    def __len__(self) -> int:
        """Their number."""
        ...

    def __getitem__(self, index: slice, /) -> npt.NDArray[np.uint8]:
        """(n, H, W, 3)."""
        ...


def measure_accuracy(
    model: ServedModel,
    images: Images,
    labels: npt.NDArray[np.int64],
    *,
    ordered: bool = False,
    batch_size: int = 100,
) -> Accuracy:
    """Classify every image, and count.

    Args:
        model: images (B, H, W, 3) and targets (B, K) to logits (B, N) and maps.
        images: (n, H, W, 3), at the size of the network's input.
        labels: class indices (n,).
        ordered: whether the classes are grades.
        batch_size: changes the time and the memory, not the result.

    Raises:
        ValueError: no images, or not as many labels.
    """
    if len(images) != len(labels) or not len(labels):
        raise ValueError(f"accuracy needs a label for each image: {len(images)} images, {len(labels)} labels")
    answers: list[npt.NDArray[np.int64]] = []
    classes = 0
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        no_maps = np.empty((len(batch), 0), dtype=np.int64)
        logits, _ = model(batch, no_maps)
        classes = logits.shape[1]
        answers.append(logits.argmax(axis=1))
    predictions = np.concatenate(answers)
    return Accuracy(
        float((predictions == labels).mean()),
        len(images),
        balanced_accuracy(labels, predictions, classes),
        quadratic_weighted_kappa(labels, predictions, classes) if ordered else None,
    )
