"""Explanations that take a gradient, beside a runtime that cannot differentiate."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from konkyo.errors import NotReady
from konkyo.imaging import UInt8
from konkyo.service.engines.base import Float32, GradientEngine, Int64, Outputs

logger = logging.getLogger(__name__)

RETRY_SECONDS = 30
"""After a failure the next attempt to load: one takes seconds, and every request would make it."""


class LazyEngine:
    """A gradient engine that is loaded when it is first asked, in the thread that asks.

    A failure is the answer to whoever asks within ``RETRY_SECONDS``; then it is tried again.

    Args:
        load: builds the engine, and raises whatever it raises.
        name: of the model, for messages.
        on_load: called with the seconds it took.
        clock: in seconds.
    """

    def __init__(
        self,
        load: Callable[[], GradientEngine],
        name: str,
        on_load: Callable[[float], None] = lambda seconds: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._name = name
        self._on_load = on_load
        self._clock = clock
        self._engine: GradientEngine | None = None
        self._failed: tuple[float, str] | None = None

    def explain(self, method: str, images: UInt8, targets: Int64) -> Outputs:
        """See ``GradientEngine.explain``. Raises ``NotReady`` while the engine cannot be loaded."""
        if self._engine is None:
            self._engine = self._try()
        return self._engine.explain(method, images, targets)

    def close(self) -> None:
        """Release the engine, if there is one."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _try(self) -> GradientEngine:
        started = self._clock()
        if self._failed is None or started - self._failed[0] >= RETRY_SECONDS:
            try:
                engine = self._load()
            except Exception as error:  # an import, a file or a device may fail in many ways
                self._failed = self._clock(), str(error) or type(error).__name__
                logger.warning("%s: torch cannot explain it: %s", self._name, error)
            else:
                self._failed = None
                self._on_load(self._clock() - started)
                logger.info("%s: torch explains it as well", self._name)
                return engine
        assert self._failed is not None
        raise NotReady(f"{self._name} cannot be explained by gradients now: {self._failed[1]}")


@dataclass(frozen=True, slots=True)
class ByMethod:
    """One method of an engine, for its queue."""

    engine: GradientEngine
    method: str

    def run(self, images: UInt8, targets: Int64, attention: Float32 | None = None) -> Outputs:
        """See ``Engine.run``; no method that takes a gradient takes an edit."""
        return self.engine.explain(self.method, images, targets)
