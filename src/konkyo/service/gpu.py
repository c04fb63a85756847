"""What the GPU says of itself."""

from __future__ import annotations

import pynvml


def gpu_memory_used() -> float:
    """Bytes in use on the first GPU, by all processes; NaN where the driver does not say."""
    try:
        pynvml.nvmlInit()
        return float(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0)).used)
    except pynvml.NVMLError:
        return float("nan")
