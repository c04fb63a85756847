"""Pixels taken by threshold: the insertion and deletion of the AMB paper (Iwayoshi et al.).

At each threshold t on the attention map, scaled to [0, 1], insertion keeps the pixels whose
attention is at least t, deletion those below; the others are filled with one colour. Of each the
accuracy over t is a curve, and the area under it one number. A map that lies on what decides keeps
the accuracy high in insertion and lets it fall in deletion:

    score = insertion area - deletion area

This is not the insertion and deletion of RISE (Petsiuk et al., 2018; ``pixels_by_rank``), which takes
pixels by rank, a fixed number a step. Here a map that is high on few pixels keeps few of them in
insertion and nearly all in deletion at most thresholds, so areas depend on how the map's values are
distributed. ``kept`` says how many pixels each threshold kept; compare methods with it in view.

The paper gives neither the thresholds nor the colour: both are ours to state.

Shape legend: n images, B batch, H, W input size, h, w map grid, N classes, T thresholds, b images asked
at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from konkyo.evaluation.parts import parts
from konkyo.evaluation.passes import Logits
from konkyo.evaluation.sources import enlarged

Float64 = npt.NDArray[np.float64]

THRESHOLDS = tuple(step / 20 for step in range(21))


class Hits(NamedTuple):
    """Whether each image is recognised at each threshold, on the CPU.

    Attributes:
        insertion: (B, T) bool, with the pixels at or above each threshold.
        deletion: (B, T) bool, with the pixels below.
        kept: (B, T) float64 share of the pixels that insertion keeps; deletion keeps the rest.
        flat: (B,) bool, whose maps are flat.
    """

    insertion: Tensor
    deletion: Tensor
    kept: Tensor
    flat: Tensor


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
        return area(self.insertion, self.thresholds)

    @property
    def deletion_area(self) -> float:
        """Area under the curve over the range of the thresholds, so in [0, 1]; lower is better."""
        return area(self.deletion, self.thresholds)

    @property
    def score(self) -> float:
        """Insertion area less deletion area, in [-1, 1]; higher is better."""
        return self.insertion_area - self.deletion_area


def area(curve: Float64, thresholds: Float64) -> float:
    """Area under a curve (T,) by trapezoids, over the range of the thresholds."""
    return float(np.trapezoid(curve, thresholds) / (thresholds[-1] - thresholds[0]))


@torch.no_grad()
def threshold_hits(
    logits_of: Logits,
    pixels: Tensor,
    truth: Tensor,
    maps: Tensor,
    *,
    fill: Sequence[int],
    thresholds: Sequence[float] = THRESHOLDS,
    at_once: int = 16,
) -> Hits:
    """Classify every image with its attended part only, and without it, at every threshold.

    Each map is enlarged bilinearly to the image and then scaled, lowest to highest, to [0, 1], in
    this order so that every map has pixels at both ends. A flat map has no lowest and highest; it
    points nowhere, so all its pixels count as 0: insertion keeps them at threshold 0 alone, and
    deletion at all others.

    Args:
        logits_of: the classifier, pixels (b, H, W, 3) uint8 to logits (b, N); asked 2 T times about
            each image.
        pixels: (B, H, W, 3) uint8.
        truth: true classes (B,).
        maps: (B, h, w), finite.
        fill: red, green and blue, 0 to 255, of the pixels taken away; the mean colour of the
            training data leaves the least trace.
        thresholds: (T,), at least 2, rising, within [0, 1].
        at_once: images at once; changes the time and the memory, not the result.

    Raises:
        ValueError: no images, not as many labels or maps, a map that is not finite, thresholds that
            do not rise within [0, 1].
    """
    if not len(pixels) == len(truth) == len(maps) or not len(pixels):
        raise ValueError(f"{len(pixels)} images, {len(truth)} labels, {len(maps)} maps")
    if not maps.isfinite().all():
        raise ValueError("a map is not finite")
    steps = _checked(thresholds)
    attention, flat = _scaled(maps, (pixels.shape[1], pixels.shape[2]))
    colour = torch.tensor(tuple(fill), dtype=torch.uint8, device=pixels.device)
    levels = torch.tensor(steps, device=pixels.device)
    hits = torch.empty(2, len(pixels) * len(steps), dtype=torch.bool, device=pixels.device)
    for found, inserting in zip(hits, (True, False), strict=True):
        for part in parts(len(found), at_once):
            numbers = torch.arange(part.start, part.stop, device=pixels.device)
            image = numbers // len(steps)
            above = attention[image] >= levels[numbers % len(steps), None, None]  # (b, H, W)
            shown = pixels[image].where((above == inserting)[..., None], colour)
            found[part] = logits_of(shown).argmax(dim=1) == truth[image]
    kept = torch.stack([(attention >= level).double().mean(dim=(1, 2)) for level in levels], dim=1)
    insertion, deletion = hits.view(2, len(pixels), len(steps)).cpu()
    return Hits(insertion, deletion, kept.cpu(), flat.cpu())


def threshold_insertion_deletion(
    logits_of: Logits,
    images: Tensor,
    labels: Tensor,
    maps: Tensor,
    *,
    fill: Sequence[int],
    thresholds: Sequence[float] = THRESHOLDS,
    batch_size: int = 64,
) -> InsertionDeletion:
    """The curves of a set of images; see ``threshold_hits``.

    Args:
        logits_of: the classifier, pixels (b, H, W, 3) uint8 to logits (b, N).
        images: (n, H, W, 3) uint8.
        labels: true classes (n,).
        maps: (n, h, w), finite.
        fill: see ``threshold_hits``.
        thresholds: likewise.
        batch_size: images at once; changes the time and the memory, not the result.

    Raises:
        ValueError: see ``threshold_hits``.
    """
    if not len(images) == len(labels) == len(maps) or not len(images):
        raise ValueError(f"{len(images)} images, {len(labels)} labels, {len(maps)} maps")
    each = [
        threshold_hits(
            logits_of, images[part], labels[part], maps[part], fill=fill, thresholds=thresholds,
            at_once=batch_size,
        )
        for part in parts(len(images), batch_size)
    ]  # fmt: skip
    insertion, deletion, kept, flat = (torch.cat(column) for column in zip(*each, strict=True))
    return InsertionDeletion(
        _checked(thresholds),
        insertion.double().mean(dim=0).numpy(),
        deletion.double().mean(dim=0).numpy(),
        kept.mean(dim=0).numpy(),
        len(images),
        int(flat.sum()),
    )


def _checked(thresholds: Sequence[float]) -> Float64:
    steps = np.asarray(thresholds, dtype=np.float64)
    if len(steps) < 2 or not (np.diff(steps) > 0).all() or steps[0] < 0 or steps[-1] > 1:
        raise ValueError("thresholds are at least 2, rising, within [0, 1]")
    return steps


def stretched(maps: Tensor) -> Tensor:
    """Maps (B, h, w), each scaled from its lowest and highest value to 0 and 1; a flat one is 0."""
    lowest, highest = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    return (maps - lowest) / (highest - lowest).where(highest > lowest, 1)


def _scaled(maps: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Maps (B, h, w) -> (B, H, W) float64 in [0, 1], and which of them are flat (B,)."""
    flat = maps.amin(dim=(1, 2)) == maps.amax(dim=(1, 2))
    whole = stretched(enlarged(maps.double()[None], size)[0])
    return whole.masked_fill(flat[:, None, None], 0), flat
