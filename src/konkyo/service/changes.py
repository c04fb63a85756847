"""Changes of the models that are under way: each a task, which no caller who goes takes with him."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine

from konkyo.errors import Draining, LoadFailed

logger = logging.getLogger(__name__)


class Changes:
    """The loads and unloads of one repository."""

    def __init__(self) -> None:
        self._loads: dict[asyncio.Task[None], str] = {}
        self._unloads: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def loading(self) -> frozenset[str]:
        """Models that are being loaded."""
        return frozenset(self._loads.values())

    def load(self, name: str, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Begin to load a model."""
        task = self._begin(name, work)
        self._loads[task] = name
        task.add_done_callback(self._loads.pop)
        return task

    def unload(self, name: str, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Begin to unload a model, and give up what is loaded of it."""
        for load, loading in self._loads.items():
            if loading == name:
                load.cancel()
        task = self._begin(name, work)
        self._unloads.add(task)
        task.add_done_callback(self._unloads.discard)
        return task

    async def finished(self, name: str, change: asyncio.Task[None]) -> None:
        """Wait for a change.

        Raises:
            LoadFailed: it was given up, as the model was unloaded meanwhile.
            Draining: it was given up by ``close``.
        """
        try:
            await asyncio.shield(change)
        except asyncio.CancelledError:
            if not change.cancelled():
                raise
            self.refuse_when_closed()
            raise LoadFailed(f"{name} was unloaded while it was being loaded", failures={}) from None

    def refuse_when_closed(self) -> None:
        """Raises ``Draining`` after ``close``."""
        if self._closed:
            raise Draining("the service is shutting down")

    async def close(self) -> None:
        """Give up all."""
        self._closed = True
        tasks = [*self._loads, *self._unloads]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, name: str, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=f"repository-{name}")
        task.add_done_callback(_say_if_failed)
        return task


def _say_if_failed(change: asyncio.Task[None]) -> None:
    if not change.cancelled() and (error := change.exception()) is not None:
        logger.error("%s failed", change.get_name(), exc_info=error)
