"""The canary of a bundle: an image whose answer is known, to prove that an engine works."""

from __future__ import annotations

import numpy as np

from konkyo.errors import BundleError
from konkyo.imaging import Decoded, Geometry, UInt8, decode, open_image, prepare
from konkyo.models.bundle import Bundle
from konkyo.models.card import ModelCard
from konkyo.service.engines.base import Float32

TOLERANCE = 0.02
"""Largest difference of the logits from the card's, relative to their range: room for the reduced
precision of GPUs, none for wrong weights or a wrong normalisation."""


def to_input(card: ModelCard, decoded: Decoded) -> tuple[UInt8, Geometry]:
    """Bring an image to the network's input, as the card says."""
    spec = card.input
    return prepare(
        decoded,
        (spec.width, spec.height),
        mode=spec.resize_mode,
        crop_fraction=spec.crop_fraction,
        interpolation=spec.interpolation,
    )


class Canary:
    """The canary of one bundle.

    Attributes:
        pixels: what the network sees, (H, W, 3) uint8.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        data = (bundle.path / bundle.card.canary.file).read_bytes()
        pixels, _ = to_input(bundle.card, decode(open_image(data)))
        self.pixels = pixels.copy()  # Pillow's own may not be written to, which torch minds

    def check_logits(self, logits: Float32) -> None:
        """Raises ``BundleError`` where the logits (N,) are not those in the card."""
        expected = np.asarray(self._bundle.card.canary.logits)
        error = np.abs(logits - expected).max() / max(np.ptp(expected), 1e-6)
        if error > TOLERANCE:
            raise BundleError(
                f"{self._bundle.path}: the canary's logits differ from the card's "
                f"by {error:.1%} of their range"
            )

    def check_map(self, maps: Float32) -> None:
        """Raises ``BundleError`` where the maps (M, h, w) show nothing."""
        if not np.isfinite(maps).all() or np.ptp(maps) == 0:
            raise BundleError(f"{self._bundle.path}: the map of the canary is constant or not finite")
