"""What the GPU says of itself."""

from __future__ import annotations

import pynvml


def gpu_memory_used() -> float:
    """Bytes in use on the first GPU, by all processes; NaN where the driver does not say."""
    return _memory("used")


def gpu_memory_total() -> float:
    """Bytes of the first GPU; NaN where the driver does not say."""
    return _memory("total")


def _memory(which: str) -> float:
    try:
        pynvml.nvmlInit()
        info = pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0))
        return float(getattr(info, which))
    except pynvml.NVMLError:
        return float("nan")
