"""Accuracy of what is served: the exported graph, not the network it came from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from konkyo.evaluation.classification import balanced_accuracy, quadratic_weighted_kappa
from konkyo.models.card import Accuracy


def measure_accuracy(
    graph: Path,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    *,
    ordered: bool = False,
    batch_size: int = 100,
) -> Accuracy:
    """Classify every image with ONNX Runtime on the CPU, and count.

    Args:
        graph: path of a bundle's ``model.onnx``.
        images: (n, H, W, 3), at the size of the network's input.
        labels: class indices (n,).
        ordered: whether the classes are grades.
        batch_size: changes the time and the memory, not the result.

    Raises:
        ValueError: no images, or not as many labels.
    """
    if len(images) != len(labels) or not len(labels):
        raise ValueError(f"accuracy needs a label for each image: {len(images)} images, {len(labels)} labels")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns of inputs that have a default
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    answers: list[npt.NDArray[np.int64]] = []
    classes = 0
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        no_maps = np.empty((len(batch), 0), dtype=np.int64)
        (logits,) = session.run(["logits"], {"image": batch, "targets": no_maps})
        classes = logits.shape[1]
        answers.append(logits.argmax(axis=1))
    predictions = np.concatenate(answers)
    return Accuracy(
        float((predictions == labels).mean()),
        len(images),
        balanced_accuracy(labels, predictions, classes),
        quadratic_weighted_kappa(labels, predictions, classes) if ordered else None,
    )
