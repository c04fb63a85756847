"""A fake that needs no runtime: for tests, and for building clients on a laptop.

Its answers depend on the image and the targets in a way a test can recompute.
"""

from __future__ import annotations

import numpy as np

from konkyo.imaging import UInt8
from konkyo.models.bundle import Bundle
from konkyo.service.engines.base import Int64, Outputs


class FakeEngine:
    """``logits[j]`` = mean of the image in [0, 1] times j + 1; the map of j = grey image − j / N.

    The grey image is the mean over the channels in [0, 1], so every image has its own answer and
    the predicted class is the last.
    """

    name = "fake"
    device = "cpu"
    faithful = False

    def __init__(self, bundle: Bundle) -> None:
        self._classes = len(bundle.card.labels)

    def run(self, images: UInt8, targets: Int64) -> Outputs:
        """See ``Engine.run``."""
        grey = images.mean(axis=3, dtype=np.float32) / 255  # (B, H, W)
        logits = grey.mean(axis=(1, 2))[:, None] * np.arange(1, self._classes + 1, dtype=np.float32)
        resolved = np.where(targets < 0, logits.argmax(axis=1)[:, None], targets)  # (B, K)
        shift = resolved.astype(np.float32) / self._classes
        return Outputs(logits, grey[:, None] - shift[:, :, None, None])

    def warm_up(self) -> None:
        """Nothing to warm."""

    def close(self) -> None:
        """Nothing to release."""
