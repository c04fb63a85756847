"""Where maps come from: every method of a model, perturbations, and baselines that know nothing of it.

A baseline is a method that must be beaten: a map that points no better than the middle of the picture
says nothing about the model.

Names, as in ``--methods``:

- a method of the model's card, such as ``gradcam``; ``attention:1`` picks one of several scales, of which
  else the last, the deepest, counts;
- ``contribution``, for models whose map is a class weight map: its product with the image;
- ``occlusion`` and ``rise``, which ask for many predictions;
- ``random``, ``centre`` and ``edges``, the baselines.

Shape legend: B batch, H, W input size, K targets, M maps, h, w grid.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.passes import for_many_passes
from konkyo.imaging import UInt8
from konkyo.models.card import ModelCard
from konkyo.perturbation import explain
from konkyo.perturbation import methods as perturbations
from konkyo.perturbation.base import Float32

Importance = Literal["positive", "absolute"]


class Source(ABC):
    """A way to get a map for each of K classes of an image.

    Attributes:
        name: as in ``--methods``.
        importance: what of a signed map says how much a place matters: its positive part, or its size.
        class_specific: whether the maps of two classes differ.
        baseline: whether it never asks the model.
    """

    importance: Importance = "positive"
    class_specific: bool = True
    baseline: bool = False

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def maps(self, candidate: Candidate, pixels: Tensor, targets: Tensor) -> Tensor:
        """(B, H, W, 3) uint8, (B, K) int64, −1 for the predicted class -> (B, K, h, w) raw and signed.

        A map depends on its image and class alone, not on what else is in the batch, as far as the
        runtime allows.
        """

    def important(self, maps: Tensor) -> Tensor:
        """How much each place matters, not negative: of the shape of ``maps``."""
        return maps.clamp(min=0) if self.importance == "positive" else maps.abs()


class MethodSource(Source):
    """An explanation of the model's network.

    Args:
        name: as in ``--methods``.
        method: of ``models/explain``.
        scale: of several maps which, from 0; None: the last.
        importance: see ``Source``.
        class_specific: see ``Source``.
    """

    def __init__(
        self, name: str, method: str, scale: int | None, importance: Importance, *, class_specific: bool
    ) -> None:
        super().__init__(name)
        self.method, self.scale = method, scale
        self.importance, self.class_specific = importance, class_specific

    def maps(self, candidate: Candidate, pixels: Tensor, targets: Tensor) -> Tensor:
        """See ``Source.maps``."""
        maps = candidate.maps(self.method, pixels, targets)
        if self.class_specific:
            return maps
        one = maps[:, -1 if self.scale is None else self.scale, None]
        return one.expand(-1, targets.shape[1], -1, -1)


class Contribution(MethodSource):
    """Class contribution maps: the class weight map times the image's mean over its channels (GCM)."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "gcm", None, "positive", class_specific=True)

    def maps(self, candidate: Candidate, pixels: Tensor, targets: Tensor) -> Tensor:
        """See ``Source.maps``."""
        weights = super().maps(candidate, pixels, targets)
        grey = candidate.classifier.normalise(pixels.to(candidate.device)).mean(dim=1, keepdim=True)
        return weights * grey


class PerturbationSource(Source):
    """Occlusion or RISE, an image at a time, of the predictions of ``for_many_passes``.

    Args:
        name: of the method.
        parameters: of the method, where they are not its defaults.
    """

    def __init__(self, name: str, **parameters: Any) -> None:
        super().__init__(name)
        self._parameters = parameters

    def maps(self, candidate: Candidate, pixels: Tensor, targets: Tensor) -> Tensor:
        """See ``Source.maps``."""

        def predict(images: UInt8) -> Float32:
            return quick.logits(torch.from_numpy(images)).cpu().numpy()

        quick = for_many_passes(candidate)
        found = [
            explain(predict, image, of_image, method=self.name, batch_size=quick.at_once, **self._parameters)
            for image, of_image in zip(pixels.cpu().numpy(), targets.tolist(), strict=True)
        ]
        return torch.from_numpy(np.stack(found)).to(candidate.device)


class Baseline(Source):
    """A map that asks no model."""

    baseline = True
    class_specific = False

    def maps(self, candidate: Candidate, pixels: Tensor, targets: Tensor) -> Tensor:
        """See ``Source.maps``."""
        found = np.stack([self.map(image) for image in pixels.cpu().numpy()])
        one = torch.from_numpy(found).to(candidate.device)[:, None]
        return one.expand(-1, targets.shape[1], -1, -1)

    @abstractmethod
    def map(self, image: UInt8) -> Float32:
        """(H, W, 3) -> (H, W)."""


class Random(Baseline):
    """Independent numbers in [0, 1) on a grid of 7x7, the same for the same image; smooth as maps are."""

    GRID: ClassVar[int] = 7

    def map(self, image: UInt8) -> Float32:
        """See ``Baseline.map``."""
        generator = np.random.default_rng(zlib.crc32(image.tobytes()))
        grid = generator.random((self.GRID, self.GRID), np.float32)
        size = image.shape[1], image.shape[0]
        return np.asarray(cv2.resize(grid, size, interpolation=cv2.INTER_LINEAR), np.float32)


class Centre(Baseline):
    """A Gaussian in the middle, its deviation a quarter of each side: photographers centre their subject."""

    def map(self, image: UInt8) -> Float32:
        """See ``Baseline.map``."""
        down, across = (((np.arange(side) + 0.5) / side - 0.5) / 0.25 for side in image.shape[:2])
        return np.asarray(np.exp(-0.5 * (down[:, None] ** 2 + across[None] ** 2)), np.float32)


class Edges(Baseline):
    """Where the grey image changes, by Sobel filters; many maps are no more (Adebayo et al., 2018)."""

    def map(self, image: UInt8) -> Float32:
        """See ``Baseline.map``."""
        grey = image.astype(np.float32).mean(axis=2)
        down, across = cv2.Sobel(grey, cv2.CV_32F, 0, 1), cv2.Sobel(grey, cv2.CV_32F, 1, 0)
        return np.asarray(np.hypot(down, across), np.float32)


BASELINES: dict[str, type[Baseline]] = {"random": Random, "centre": Centre, "edges": Edges}


def source_names(card: ModelCard) -> list[str]:
    """Every name that ``find_source`` knows for a model, but those with a scale."""
    own = [item.method for item in card.methods if item.map_kind != "neuron_importance"]
    weights = any(item.map_kind == "class_weight_map" for item in card.methods)
    return [*own, *(["contribution"] if weights else []), *BASELINES]


def find_source(name: str, candidate: Candidate) -> Source:
    """The source of a name, for a model.

    Raises:
        ValueError: this model has no such method, or no such scale.
    """
    if name in BASELINES:
        return BASELINES[name](name)
    if name == "contribution" and "contribution" in source_names(candidate.card):
        return Contribution(name)
    method, _, scale = name.partition(":")
    known = {item.method: item for item in candidate.card.methods if item.map_kind != "neuron_importance"}
    if method not in known:
        raise ValueError(
            f"{candidate.name} has no method {name!r}; there are: {', '.join(source_names(candidate.card))}"
        )
    if method in perturbations():
        return PerturbationSource(method)
    spec = known[method]
    number = None
    if scale:
        scales = candidate.explained(method).explanation.scales
        if spec.class_specific or not scale.isdigit() or not 1 <= int(scale) <= scales:
            raise ValueError(f"{name}: the maps of {method} have the scales 1 to {scales}")
        number = int(scale) - 1
    importance: Importance = "absolute" if spec.map_kind == "input_gradient" else "positive"
    return MethodSource(name, method, number, importance, class_specific=spec.class_specific)


def enlarged(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps on the input, bilinear: (B, K, h, w) -> (B, K, H, W)."""
    if not maps.shape[1] or maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)
