"""A bundle under evaluation: its network in torch, on a device, with every method of its explanation.

Shape legend: B batch, D input channels, H, W input size, N classes, K targets, M maps, h, w grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch
from torch import Tensor

from konkyo.models.bundle import Bundle
from konkyo.models.classifier import Classifier
from konkyo.models.explained import Explained
from konkyo.models.loading import load_explained

T = TypeVar("T")

ON_CPU = 16
"""Images at once on a CPU: its convolutions are quickest for whole multiples of 16, and the features of
larger batches leave its cache for memory that is mapped anew in every layer."""
PIXELS_ON_GPU = 2**24
"""Pixels of the images at once elsewhere; at most ``MOST_ON_GPU`` images."""
MOST_ON_GPU = 1024


class Candidate:
    """A network as measures ask it: batches in, tensors on the device out, no gradients kept.

    Args:
        bundle: where it comes from.
        explained: its network with its own explanation.
        device: of torch, such as ``cpu`` or ``cuda``.

    Attributes:
        classifier: network and normalisation, in eval mode.
    """

    def __init__(self, bundle: Bundle, explained: Explained, device: str | torch.device = "cpu") -> None:
        self.bundle = bundle
        self.card = bundle.card
        self.device = torch.device(device)
        explained = explained.eval().requires_grad_(False).to(self.device)
        self.classifier = explained.classifier.to(memory_format=torch.channels_last)
        self._methods = {explained.explanation.name: explained}
        self._made: dict[Hashable, Any] = {}

    @classmethod
    def load(cls, bundle: Bundle, device: str | torch.device = "cpu") -> Candidate:
        """Read the weights of a bundle.

        Raises:
            BundleError: there are none in safetensors, or they do not fit.
        """
        return cls(bundle, load_explained(bundle), device)

    @property
    def name(self) -> str:
        """As in the report: ``gcm-cifar10/1``."""
        return f"{self.card.name}/{self.card.version}"

    @property
    def size(self) -> tuple[int, int]:
        """H and W of the input."""
        return self.card.input.height, self.card.input.width

    @property
    def at_once(self) -> int:
        """Images to ask it about at once: what is quick, and fits."""
        return largest_batch(self.device, self.size)

    def explained(self, method: str) -> Explained:
        """The network with a method, built once.

        Raises:
            KeyError: there is no such method.
            TypeError, ValueError: this network cannot be explained so.
        """
        if method not in self._methods:
            self._methods[method] = Explained(self.classifier, method).eval()
        return self._methods[method]

    @torch.no_grad()
    def logits(self, pixels: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 -> (B, N) float32."""
        logits: Tensor = self.classifier(pixels.to(self.device))
        return logits.float()

    @torch.no_grad()
    def logits_of_normalised(self, image: Tensor) -> Tensor:
        """What normalisation gives (B, D, H, W) -> (B, N) float32, for perturbations in that space."""
        logits: Tensor = self.classifier.network(image.to(self.device, memory_format=torch.channels_last))
        return logits.float()

    @torch.no_grad()
    def maps(self, method: str, pixels: Tensor, targets: Tensor) -> Tensor:
        """(B, H, W, 3) uint8, targets (B, K) with −1 for the predicted class -> (B, M, h, w) raw and signed.

        Raises:
            KeyError, TypeError, ValueError: see ``explained``.
        """
        maps: Tensor = self.explained(method)(pixels.to(self.device), targets.to(self.device))[1]
        return maps

    def with_classifier(self, classifier: Classifier) -> Candidate:
        """The same with another network, such as a changed copy of its own (``copy.deepcopy``)."""
        twin = Candidate.__new__(Candidate)
        twin.bundle, twin.card, twin.device = self.bundle, self.card, self.device
        twin.classifier = classifier.eval()
        twin._methods, twin._made = {}, {}
        return twin

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What several measures and methods share, such as a changed copy of the network: made once."""
        if key not in self._made:
            self._made[key] = make()
        found: T = self._made[key]
        return found


def largest_batch(device: torch.device, size: tuple[int, int]) -> int:
    """The most images of H, W to take at once on a device."""
    if device.type == "cpu":
        return ON_CPU
    return images_within(PIXELS_ON_GPU, size, MOST_ON_GPU)


def images_within(pixels: int, size: tuple[int, int], most: int) -> int:
    """How many images of H, W have so many pixels together: at least 1, at most ``most``."""
    return min(max(pixels // math.prod(size), 1), most)
