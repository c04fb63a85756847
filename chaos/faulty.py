"""A server whose engine fails where the first pixel of an image, or a file, tells it to.

``python -m chaos.faulty serve`` is called like ``konkyo serve``; FAULTS names the folder of the files.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np

from konkyo.models.bundle import Bundle
from konkyo.service.engines.base import Float32, Int64, Outputs, UInt8
from konkyo.service.engines.fake import FakeEngine
from konkyo.service.server import serve
from konkyo.service.settings import Settings

MARK = (255, 0)
"""Red and green of the first pixel of a poisoned image; blue is the number of its poison."""

POISONS = ("exception", "memory", "bad_alloc", "short", "long", "nan_logits", "nan_map", "stop_iteration")
LARGEST_BATCH = 4
"""That fits into the memory, where the file ``small`` is there."""


class FaultyEngine(FakeEngine):
    """The fake engine, and whatever goes wrong with real ones."""

    def run(self, images: UInt8, targets: Int64, attention: Float32 | None = None) -> Outputs:
        """See ``Engine.run``."""
        folder = Path(os.environ["FAULTS"])
        if (folder / "broken").exists():
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if (folder / "small").exists() and len(images) > LARGEST_BATCH:
            raise MemoryError(f"no room for a batch of {len(images)}")
        while (folder / "hang").exists():
            time.sleep(0.01)
        outputs = super().run(images, targets, attention)
        for position, image in enumerate(images):
            if tuple(image[0, 0, :2]) == MARK:
                outputs = _poisoned(POISONS[image[0, 0, 2] % len(POISONS)], position, outputs)
        return outputs


def _poisoned(poison: str, position: int, outputs: Outputs) -> Outputs:
    logits, maps = outputs.logits.copy(), outputs.maps.copy()
    match poison:
        case "exception":
            raise RuntimeError("injected")
        case "memory":
            raise MemoryError("injected")
        case "bad_alloc":
            raise RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc")
        case "stop_iteration":
            raise StopIteration
        case "short":
            return Outputs(logits[:-1], maps)
        case "long":
            return Outputs(logits, np.concatenate([maps, maps]))
        case "nan_logits":
            logits[position] = np.nan
        case "nan_map":
            maps[position] = np.nan
    return Outputs(logits, maps)


def make_faulty(bundle: Bundle, settings: Settings) -> FaultyEngine:
    """For ``serve``."""
    return FaultyEngine(bundle)


if __name__ == "__main__":
    sys.exit(serve(Settings(), make_engine=make_faulty))
