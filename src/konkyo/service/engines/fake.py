"""A fake that needs no runtime: for tests, and for building clients on a laptop.

Its answers depend on the image and the targets in a way a test can recompute.
"""

from __future__ import annotations

import numpy as np

from konkyo.imaging import UInt8
from konkyo.models.bundle import Bundle
from konkyo.service.engines.base import Float32, Int64, Outputs


class FakeEngine:
    """``logits[j]`` = mean of the image in [0, 1] times j + 1; the map of j = grey image − j / N.

    The grey image is the mean over the channels in [0, 1], so every image has its own answer and
    the predicted class is the last. Where maps are not class-specific, that of scale s is the grey
    image / (s + 1); cells that are edited replace it, and the logits are those of the first map.
    """

    name = "fake"
    device = "cpu"
    faithful = False
    differentiates = False

    def __init__(self, bundle: Bundle) -> None:
        self._classes = len(bundle.card.labels)
        self._explanation = bundle.card.explanation

    def run(self, images: UInt8, targets: Int64, attention: Float32 | None = None) -> Outputs:
        """See ``Engine.run``."""
        grey = images.mean(axis=3, dtype=np.float32) / 255  # (B, H, W)
        if not self._explanation.class_specific:
            scales = np.arange(1, self._explanation.scales + 1, dtype=np.float32)
            maps = grey[:, None] / scales[:, None, None]  # (B, S, H, W)
            if attention is not None:
                maps = _edited(maps, attention[:, None])
            return Outputs(self._logits(maps[:, 0]), maps)
        logits = self._logits(grey)
        resolved = np.where(targets < 0, logits.argmax(axis=1)[:, None], targets)  # (B, K)
        shift = resolved.astype(np.float32) / self._classes
        return Outputs(logits, grey[:, None] - shift[:, :, None, None])

    def warm_up(self) -> None:
        """Nothing to warm."""

    def close(self) -> None:
        """Nothing to release."""

    def _logits(self, grey: Float32) -> Float32:
        mean = grey.mean(axis=(1, 2))[:, None]
        return np.asarray(mean * np.arange(1, self._classes + 1, dtype=np.float32), np.float32)


def _edited(maps: Float32, edit: Float32) -> Float32:
    """The edit's cells where they are not negative, by area: (B, S, H, W), (B, 1, h', w') -> (B, S, H, W)."""
    rows = _shares(maps.shape[2], edit.shape[2])
    columns = _shares(maps.shape[3], edit.shape[3]).T
    given = (edit >= 0).astype(np.float32)
    return np.asarray(maps * (1 - rows @ given @ columns) + rows @ (edit * given) @ columns, np.float32)


def _shares(cells: int, count: int) -> Float32:
    """How much of each of ``cells`` lies in each of ``count``, both filling a side: (cells, count)."""
    low, high = np.arange(cells)[:, None] * count, np.arange(count) * cells  # in 1 / (cells count)
    shared = np.minimum(low + count, high + cells) - np.maximum(low, high)
    return np.asarray(shared.clip(min=0) / count, np.float32)
