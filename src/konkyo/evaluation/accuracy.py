"""Accuracy of what is served: the exported graph, not the network it came from."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime


class Accuracy(NamedTuple):
    """Share of right answers, and the number of images it was measured on."""

    share: float
    images: int


def measure_accuracy(
    graph: Path,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    *,
    batch_size: int = 100,
) -> Accuracy:
    """Classify every image with ONNX Runtime on the CPU, and count.

    Args:
        graph: path of a bundle's ``model.onnx``.
        images: (n, H, W, 3), at the size of the network's input.
        labels: class indices (n,).
        batch_size: changes the time and the memory, not the result.

    Raises:
        ValueError: no images, or not as many labels.
    """
    if len(images) != len(labels) or not len(labels):
        raise ValueError(f"accuracy needs a label for each image: {len(images)} images, {len(labels)} labels")
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    hits = 0
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        no_maps = np.empty((len(batch), 0), dtype=np.int64)
        (logits,) = session.run(["logits"], {"image": batch, "targets": no_maps})
        hits += int((logits.argmax(axis=1) == labels[start : start + batch_size]).sum())
    return Accuracy(hits / len(images), len(images))
