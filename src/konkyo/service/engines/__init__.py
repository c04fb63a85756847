"""Runtimes by name; each is imported only when it is chosen."""

from __future__ import annotations

from collections.abc import Callable

from konkyo.errors import BundleError
from konkyo.models.bundle import ONNX, Bundle
from konkyo.service.engines.base import Engine
from konkyo.service.settings import Settings

EngineFactory = Callable[[Bundle, Settings], Engine]


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
    try:
        from konkyo.service.engines.torch import TorchEngine
    except ModuleNotFoundError as error:
        raise BundleError(f"the torch engine needs konkyo[torch]: {error}") from error
    return TorchEngine(bundle, device=settings.device, threads=settings.threads)
