"""Runtimes by name; each is imported only when it is chosen."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING

from konkyo.errors import BundleError
from konkyo.models.bundle import ONNX, WEIGHTS, Bundle
from konkyo.service.engines.base import Engine
from konkyo.service.settings import Settings

if TYPE_CHECKING:
    from konkyo.service.engines.torch import TorchEngine

EngineFactory = Callable[[Bundle, Settings], Engine]

_TORCH = ("torch", "timm", "safetensors")
"""What the torch engine imports beyond the base install."""


def make_engine(bundle: Bundle, settings: Settings) -> Engine:
    """The runtime the settings ask for, holding the bundle's model.

    Raises:
        BundleError: the runtime cannot load this bundle, or is not installed.
    """
    name = settings.engine
    if name == "auto":
        name = "onnx" if bundle.file(ONNX) else "torch"
    if name == "fake":
        from konkyo.service.engines.fake import FakeEngine

        return FakeEngine(bundle)
    if name == "onnx":
        from konkyo.service.engines.onnx import OnnxEngine

        return OnnxEngine(bundle, device=settings.device, threads=settings.threads)
    return make_torch_engine(bundle, settings)


def make_torch_engine(bundle: Bundle, settings: Settings) -> TorchEngine:
    """The bundle's weights in torch.

    Raises:
        BundleError: torch is not installed, or cannot load this bundle.
    """
    try:
        from konkyo.service.engines.torch import TorchEngine
    except ModuleNotFoundError as error:
        raise BundleError(f"the torch engine needs konkyo[torch]: {error}") from error
    return TorchEngine(bundle, device=settings.device, threads=settings.threads)


def why_no_torch(bundle: Bundle, settings: Settings) -> str | None:
    """Why torch cannot run this bundle here, None if it can; nothing is imported to find out."""
    if settings.engine in ("onnx", "fake"):
        return f"this server runs {settings.engine} only (engine={settings.engine})"
    if bundle.file(WEIGHTS) is None:
        return f"needs {WEIGHTS}, which the bundle has not"
    if any(importlib.util.find_spec(package) is None for package in _TORCH):
        return "needs torch: install konkyo[torch]"
    return None
