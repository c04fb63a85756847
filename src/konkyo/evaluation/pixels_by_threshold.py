"""Insertion and deletion by threshold, as in the AMB paper (Iwayoshi et al.).

At each threshold t on the attention map, scaled to [0, 1], insertion keeps the pixels whose
attention is at least t, deletion those below; the others are filled with one colour. Of each the
accuracy over t is a curve, and the area under it one number. A map that lies on what decides keeps
the accuracy high in insertion and lets it fall in deletion:

    score = insertion area - deletion area

This is not the insertion and deletion of RISE (Petsiuk et al., 2018), which takes pixels by rank,
a fixed number a step. Here a map that is high on few pixels keeps few of them in insertion and
nearly all in deletion at most thresholds, so areas depend on how the map's values are distributed.
``kept`` says how many pixels each threshold kept; compare methods with it in view.

The paper gives neither the thresholds nor the colour: both are ours to state.

Shape legend: n images, H, W input size, h, w map grid, N classes, T thresholds, b batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from konkyo.imaging import UInt8

Int64 = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating]
Float64 = npt.NDArray[np.float64]
Classify = Callable[[UInt8], Floats]
"""Pixels (b, H, W, 3) uint8 to logits (b, N)."""

THRESHOLDS = tuple(step / 20 for step in range(21))


@dataclass(frozen=True)
class InsertionDeletion:
    """The two curves.

    Attributes:
        thresholds: (T,) on the scaled map.
        insertion: accuracy (T,) with the pixels at or above each threshold.
        deletion: accuracy (T,) with the pixels below.
        kept: share of the pixels (T,) that insertion keeps; deletion keeps the rest.
        images: how many they were measured on.
        flat: how many of them have a flat map.
    """

    thresholds: Float64
    insertion: Float64
    deletion: Float64
    kept: Float64
    images: int
    flat: int

    @property
    def insertion_area(self) -> float:
        """Area under the curve over the range of the thresholds, so in [0, 1]; higher is better."""
        return self._area(self.insertion)

    @property
    def deletion_area(self) -> float:
        """Area under the curve over the range of the thresholds, so in [0, 1]; lower is better."""
        return self._area(self.deletion)

    @property
    def score(self) -> float:
        """Insertion area less deletion area, in [-1, 1]; higher is better."""
        return self.insertion_area - self.deletion_area

    def _area(self, curve: Float64) -> float:
        return float(np.trapezoid(curve, self.thresholds) / (self.thresholds[-1] - self.thresholds[0]))


def insertion_deletion(
    logits_of: Classify,
    images: UInt8,
    labels: Int64,
    maps: Floats,
    *,
    fill: Sequence[int],
    thresholds: Sequence[float] = THRESHOLDS,
    batch_size: int = 64,
) -> InsertionDeletion:
    """Classify every image with its attended part only, and without it, at every threshold.

    Each map is enlarged bilinearly to the image and then scaled, lowest to highest, to [0, 1], in
    this order so that every map has pixels at both ends. A flat map has no lowest and highest; it
    points nowhere, so all its pixels count as 0: insertion keeps them at threshold 0 alone, and
    deletion at all others.

    Args:
        logits_of: the classifier, asked 2 T times about each batch.
        images: (n, H, W, 3).
        labels: true classes (n,).
        maps: (n, h, w), finite.
        fill: red, green and blue, 0 to 255, of the pixels taken away; the mean colour of the
            training data leaves the least trace.
        thresholds: (T,), at least 2, rising, within [0, 1].
        batch_size: images at once; changes the time and the memory, not the result.

    Raises:
        ValueError: no images, not as many labels or maps, a map that is not finite, thresholds that
            do not rise within [0, 1].
    """
    if not len(images) == len(labels) == len(maps) or not len(images):
        raise ValueError(f"{len(images)} images, {len(labels)} labels, {len(maps)} maps")
    if not np.isfinite(maps).all():
        raise ValueError("a map is not finite")
    steps = np.asarray(thresholds, dtype=np.float64)
    if len(steps) < 2 or not (np.diff(steps) > 0).all() or steps[0] < 0 or steps[-1] > 1:
        raise ValueError("thresholds are at least 2, rising, within [0, 1]")
    colour = np.asarray(fill, dtype=np.uint8)
    insertion, deletion, kept = np.zeros((3, len(steps)))
    flat = 0
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        pixels, truth = images[part], labels[part]
        attention, are_flat = _scaled(maps[part], pixels.shape[1:3])
        flat += int(are_flat.sum())
        for step, threshold in enumerate(steps):
            keep = attention >= threshold  # (b, H, W)
            kept[step] += keep.mean(axis=(1, 2)).sum()
            for curve, stays in ((insertion, keep), (deletion, ~keep)):
                logits = logits_of(np.where(stays[..., None], pixels, colour))
                curve[step] += (logits.argmax(axis=1) == truth).sum()
    count = len(images)
    return InsertionDeletion(steps, insertion / count, deletion / count, kept / count, count, flat)


def _scaled(maps: Floats, size: Sequence[int]) -> tuple[Float64, npt.NDArray[np.bool_]]:
    """Maps (b, h, w) -> (b, H, W) in [0, 1], and which of them are flat (b,)."""
    enlarged = F.interpolate(
        torch.from_numpy(maps.astype(np.float64))[:, None], size=tuple(size), mode="bilinear"
    ).numpy()[:, 0]
    lowest, highest = (end(enlarged, axis=(1, 2), keepdims=True) for end in (np.min, np.max))
    flat = maps.min(axis=(1, 2)) == maps.max(axis=(1, 2))
    scaled = (enlarged - lowest) / np.where(highest > lowest, highest - lowest, 1)
    return np.where(flat[:, None, None], 0, scaled), flat
