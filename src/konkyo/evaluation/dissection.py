"""Network dissection: what the units of a layer stand for (Bau et al., CVPR 2017, section 2).

    M_k = [S_k >= T_k],  P(a_k > T_k) = 0.005             IoU_kc = sum |M_k & L_c| / sum |M_k | L_c|

over all images of a data set: a_k are the activations of unit k, S_k the same enlarged to the image,
L_c where concept c is. A unit is named after the concept of the largest IoU, if that is over 0.05.

What counts as the top is found exactly: a first pass keeps the largest 0.5 % of what it has seen, which
is all the memory it takes; a second pass counts. On a few images a unit's top is a few cells, which lie
in some concept by chance alone. How many names are owed to chance is counted beside: those that units
get from the masks of the image before.

Shape legend: B batch, C units, h, w grid of the layer, H, W input size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from konkyo.evaluation.concepts import Bool, ConceptImage, ConceptImages
from konkyo.evaluation.top import Top
from konkyo.models.card import InputSpec
from konkyo.models.classifier import Classifier
from konkyo.models.cut import Cut
from konkyo.models.explain.gradients import hook_of
from konkyo.models.neurons import NamedNeuron, Neurons

QUANTILE, THRESHOLD = 0.005, 0.05

Float64 = npt.NDArray[np.float64]

_UNITS = 128
"""Units enlarged at once; changes the memory, not the result."""


class Dissection(NamedTuple):
    """How well each unit fits each concept.

    Attributes:
        layer: whose output channels the units are.
        concepts: their names.
        iou: (C, concepts).
        chance: (C, concepts), with the masks of each image laid on the next one.
    """

    layer: str
    concepts: tuple[str, ...]
    iou: Float64
    chance: Float64

    def names(self, threshold: float = THRESHOLD) -> Neurons:
        """The units that fit a concept with an IoU over the threshold, under the one they fit best."""
        best = self.iou.argmax(axis=1).tolist()
        return Neurons(
            layer=self.layer,
            threshold=threshold,
            neurons={
                unit: NamedNeuron(concept=self.concepts[concept], iou=float(self.iou[unit, concept]))
                for unit, concept in enumerate(best)
                if self.iou[unit, concept] > threshold
            },
        )

    def by_chance(self, threshold: float = THRESHOLD) -> int:
        """Units that would have a name if the masks were of other images."""
        return int((self.chance.max(axis=1) > threshold).sum())


def dissect(
    classifier: Classifier,
    data: ConceptImages,
    spec: InputSpec,
    *,
    quantile: float = QUANTILE,
    batch_size: int = 16,
    progress: bool = False,
) -> Dissection:
    """Measure what the units of the layer stand for at which a network is explained.

    Args:
        classifier: in eval mode.
        data: photos and masks; they are read twice.
        spec: how they are brought to the network's input.
        quantile: share of a unit's activations that count as its top, in (0, 1).
        batch_size: images in a forward pass.
        progress: show it on stderr, where that is a terminal.

    Raises:
        TypeError: the network does not say at which layer it is explained.
        ValueError: a photo or mask cannot be read, or the quantile is no share.
    """
    if not 0 < quantile < 1:
        raise ValueError(f"a quantile lies between 0 and 1, not at {quantile:g}")
    units = _Units(classifier, data, spec, batch_size, progress)
    top: Top | None = None
    for activations, _ in units.batches("thresholds"):  # (B, C, h, w)
        top = top or Top(int(quantile * len(data) * activations[0, 0].numel()))
        top.add(activations.movedim(1, 0).flatten(1))
    assert top is not None, "a folder without images was refused"
    levels = top.levels()

    own, other = (_Overlaps(len(levels), len(data.concepts)) for _ in range(2))
    before = data.read(len(data) - 1, spec).masks
    for activations, images in units.batches("overlaps"):
        for grid, image in zip(activations, images, strict=True):
            active = _enlarged(grid, levels, image.pixels.shape[:2])
            own.add(active, image.masks)
            other.add(active, before)
            before = image.masks
    return Dissection(units.layer, data.concepts, own.iou(), other.iou())


class _Units:
    """The activations of the layer a network is explained at, image by image."""

    def __init__(
        self, classifier: Classifier, data: ConceptImages, spec: InputSpec, batch_size: int, progress: bool
    ) -> None:
        hook = hook_of(classifier.network, None)
        self.layer, self.layout = hook.layer, hook.layout
        self.classifier, self.trunk = classifier, Cut(hook.root, hook.layer).trunk
        self.data, self.spec, self.batch_size, self.progress = data, spec, batch_size, progress

    def batches(self, title: str) -> Iterator[tuple[Tensor, list[ConceptImage]]]:
        """Activations (B, C, h, w) float32 with the images, all in order."""
        # disable=None: none where stderr is no terminal
        hidden = None if self.progress else True
        with tqdm(total=len(self.data), desc=title, unit="image", leave=False, disable=hidden) as bar:
            for start in range(0, len(self.data), self.batch_size):
                positions = range(start, min(start + self.batch_size, len(self.data)))
                images = [self.data.read(position, self.spec) for position in positions]
                pixels = torch.from_numpy(np.stack([image.pixels for image in images]))
                with torch.no_grad():
                    features = self.trunk(self.classifier.normalise(pixels.to(self.classifier.mean.device)))[
                        0
                    ]
                yield self.layout.to_map(features).float(), images
                bar.update(len(images))


class _Overlaps:
    """Pixels where units are active, where concepts are, and where both, over images."""

    def __init__(self, units: int, concepts: int) -> None:
        self._shared = np.zeros((units, concepts))
        self._active = np.zeros((units, 1))
        self._covered = np.zeros(concepts)

    def add(self, active: Tensor, masks: Mapping[int, Bool]) -> None:
        """One image: where the units are active (C, H W) 0 or 1, and (H, W) of each concept in it."""
        self._active += active.sum(dim=1, keepdim=True).cpu().numpy()
        if masks:
            shown = list(masks)
            inside = torch.from_numpy(np.stack([masks[concept].ravel() for concept in shown], axis=1))
            self._shared[:, shown] += (active @ inside.to(active)).cpu().numpy()
            self._covered[shown] += inside.sum(dim=0).numpy()

    def iou(self) -> Float64:
        """(C, concepts); 0 of what is nowhere."""
        union = self._active + self._covered - self._shared
        return np.divide(self._shared, union, out=np.zeros_like(union), where=union > 0)


def _enlarged(grid: Tensor, levels: Tensor, size: tuple[int, ...]) -> Tensor:
    """Where units are active, 0 or 1: (C, h, w) and levels (C,) -> (C, H W)."""
    parts = []
    for start in range(0, len(grid), _UNITS):
        some = slice(start, start + _UNITS)
        enlarged = F.interpolate(grid[None, some], size=size, mode="bilinear", align_corners=False)[0]
        parts.append((enlarged >= levels[some, None, None]).flatten(1).to(grid))
    return torch.cat(parts)
