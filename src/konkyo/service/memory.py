"""Memory that is free in the process, but not yet for others."""

from __future__ import annotations

import ctypes
from typing import Any


def trim() -> None:
    """Give what was freed back to the system, where the C library would keep it: glibc does."""
    library: Any = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)
