"""How long it takes from the start of the process until everything is ready, and what that consists of."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from konkyo.service.metrics import Metrics
from konkyo.service.model import Model

logger = logging.getLogger(__name__)


class Startup:
    """Made when the application is; the parts follow each other.

    Attributes:
        seconds: by part: ``imports`` (interpreter, imports and settings, where the system tells when the
            process was started), ``application``, ``models``; and ``total``, once all is done.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.seconds: dict[str, float] = {}
        self._metrics = metrics
        self._last = time.perf_counter()
        age = process_age()
        if age is not None:
            self._note("imports", age)

    def done(self, part: str) -> None:
        """A part has ended, and the next begins."""
        now = time.perf_counter()
        self._note(part, now - self._last)
        self._last = now

    def ready(self, models: Sequence[Model]) -> None:
        """The last part, the models, has ended: say it."""
        self.done("models")
        parts = _listed(self.seconds)
        total = sum(self.seconds.values())
        self._note("total", total)
        work: dict[str, float] = {}
        for model in models:
            for part, value in model.load_seconds.items():
                work[part] = work.get(part, 0) + value
        failed = sum(model.state == "failed" for model in models)
        logger.info(
            "loading ended after %.2f s (%s): %d models ready, %d failed; of all models together: %s",
            *(total, parts, len(models) - failed, failed, _listed(work) or "nothing"),
        )

    def _note(self, part: str, seconds: float) -> None:
        self.seconds[part] = seconds
        self._metrics.startup_seconds.labels(part=part).set(seconds)


def _listed(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{part} {value:.2f}" for part, value in seconds.items())


def process_age() -> float | None:
    """Seconds since this process was started, in hundredths; None where the system does not tell.

    ``/proc/self/stat``, field 22 (proc(5)): ticks from the start of the system to that of the process.
    """
    try:
        fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return None
