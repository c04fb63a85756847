"""The versions of one model: which answer, and how others take their place.

A version that comes is loaded beside those that answer, warmed up and asked about its canary; only then it
takes over, within one turn of the event loop. What it replaces is out of reach from then on, finishes for
those who use it, and is closed. A version that cannot be loaded changes nothing but what is said about it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping

from konkyo.errors import BundleError, UnknownVersion
from konkyo.models.bundle import read_bundle
from konkyo.service.folders import Found, Stamp, in_order
from konkyo.service.memory import trim
from konkyo.service.metrics import Metrics
from konkyo.service.model import Model

logger = logging.getLogger(__name__)


class Versions:
    """The versions of one model.

    Args:
        make: a model that is not loaded yet, of the folder of a version.
        gate: held while one is loaded.
        limit: how many are served, the newest that work; None: all.

    Attributes:
        failures: why the newest files of a version could not be loaded, by version.
        applied: what lay in the folder when it was last brought in line with it.
        required: it was there at the start, so that without it the service is not ready.
        parked: it was unloaded by request, and so does not come back by itself.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[Found], Model],
        gate: asyncio.Semaphore,
        metrics: Metrics,
        limit: int | None,
    ) -> None:
        self._name = name
        self._make = make
        self._gate = gate
        self._metrics = metrics
        self._limit = limit
        self._models: dict[str, Model] = {}  # oldest first
        self._tried: dict[str, Stamp] = {}
        self._leaving: dict[asyncio.Task[None], Model] = {}
        self._lock = asyncio.Lock()
        self.failures: dict[str, str] = {}
        self.applied: Mapping[str, Found] = {}
        self.required = False
        self.parked = False

    def __iter__(self) -> Iterator[Model]:
        """Those that answer, are loaded for the first time, or could not be; oldest first."""
        return iter(self._models.values())

    def __bool__(self) -> bool:
        return bool(self._models)

    @property
    def leaving(self) -> list[Model]:
        """Those that finish what they have begun, and are closed then."""
        return list(self._leaving.values())

    def find(self, version: str | None) -> Model:
        """A version; None is the newest that is ready, else the newest.

        Raises:
            UnknownVersion: there is none of this name.
        """
        if version is None:
            newest_first = list(self._models.values())[::-1]
            return next((model for model in newest_first if model.state == "ready"), newest_first[0])
        try:
            return self._models[version]
        except KeyError:
            raise UnknownVersion(
                f"{self._name} has no version {version!r}", versions=list(self._models)
            ) from None

    def announce(self, found: Mapping[str, Found]) -> None:
        """Show as loading what ``update`` will load first."""
        for version in _complete(found)[: self._limit]:
            self._put(self._make(found[version]))

    async def update(self, found: Mapping[str, Found], *, again: bool = False) -> None:
        """Serve what was found: load what is new or has changed, unload what is gone or over the limit.

        The newest come first; where they fail, older ones are tried. What is gone stays as long as nothing
        of what is there works.

        Args:
            again: try also what has failed and has not changed.
        """
        async with self._lock:
            waiting, working = _complete(found), 0
            limit = len(waiting) if self._limit is None else self._limit
            while waiting and working < limit:
                wave, waiting = waiting[: limit - working], waiting[limit - working :]
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(self._bring(found[version], again)) for version in wave]
                working += sum(task.result() for task in tasks)
            self._clear(found)
            self.applied = found

    async def unload(self) -> None:
        """Take all out of reach at once; return when those who used them are done, and they are closed."""
        async with self._lock:
            for version in list(self._models):
                self._retire(version)
            self.applied = {}
            leaving = list(self._leaving)
        if leaving:
            await asyncio.wait(leaving)

    async def close(self) -> None:
        """Finish what was accepted and release every version."""
        await asyncio.gather(*(model.close() for model in (*self._models.values(), *self.leaving)))
        await asyncio.gather(*self._leaving)

    async def _bring(self, found: Found, again: bool) -> bool:
        """Serve a version as it was found. Returns whether it, or what was served of it before, works."""
        version = found.path.name
        old = self._models.get(version)
        serving = old if old is not None and old.state == "ready" else None
        if self._tried.get(version) == found.stamp and not (again and version in self.failures):
            return serving is not None
        if serving is not None and await asyncio.to_thread(_is_same, serving, found):
            self._note(found, None)
            serving.failure = None
            return True
        fresh = old if old is not None and not old.begun else self._make(found)
        if serving is None:
            self._put(fresh)
        await self._load(fresh)
        self._note(found, fresh.failure)
        if fresh.state == "ready":
            self._take_over(fresh, serving)
            return True
        await asyncio.to_thread(trim)
        self._refuse(fresh, serving)
        return serving is not None

    async def _load(self, model: Model) -> None:
        try:
            async with self._gate:
                await model.load()
        except asyncio.CancelledError:
            self._close(model)
            raise

    def _note(self, found: Found, failure: str | None) -> None:
        version = found.path.name
        self._tried[version] = found.stamp
        if failure is None:
            self.failures.pop(version, None)
        else:
            self.failures[version] = failure

    def _put(self, model: Model) -> None:
        models = {**self._models, model.version: model}
        self._models = {version: models[version] for version in in_order(list(models))}

    def _take_over(self, fresh: Model, old: Model | None) -> None:
        self._metrics.forget(**fresh.labels)
        fresh.publish()
        self._put(fresh)
        if old is not None:
            self._close(old)
        digest, seconds = fresh.bundle.digest, sum(fresh.load_seconds.values())
        logger.info("%s/%s is ready in %.2f s: %s", fresh.name, fresh.version, seconds, digest)

    def _refuse(self, fresh: Model, serving: Model | None) -> None:
        self._metrics.model_load_failures.labels(**fresh.labels).inc()
        if serving is None:
            self._metrics.model_ready.labels(**fresh.labels).set(0)
            logger.error("%s/%s is not served: %s", fresh.name, fresh.version, fresh.failure)
            return
        serving.failure = f"newer files could not be loaded: {fresh.failure}"
        logger.error(
            "%s/%s goes on being served from older files: %s", fresh.name, fresh.version, fresh.failure
        )

    def _clear(self, found: Mapping[str, Found]) -> None:
        """Retire what is gone, and what newer versions leave no room for."""
        newest_first = list(self._models)[::-1]
        ready = [
            version for version in newest_first if version in found and self._models[version].state == "ready"
        ]
        kept = set(ready[: self._limit])
        for version, model in list(self._models.items()):
            if version in found:
                goes = model.state == "ready" and version not in kept
            else:
                goes = model.state != "ready" or bool(kept) or not found
            if goes:
                self._retire(version)

    def _retire(self, version: str) -> None:
        model = self._models.pop(version)
        self._tried.pop(version, None)
        self.failures.pop(version, None)
        if not self._models:
            self.required = False
        self._close(model)
        logger.info("%s/%s is unloaded", self._name, version)

    def _close(self, model: Model) -> None:
        task = asyncio.get_running_loop().create_task(self._finish(model), name=f"closing-{self._name}")
        self._leaving[task] = model
        task.add_done_callback(self._leaving.pop)

    async def _finish(self, model: Model) -> None:
        await model.retire()
        await asyncio.to_thread(trim)
        if model.version not in self._models:
            self._metrics.drop(**model.labels)


def _complete(found: Mapping[str, Found]) -> list[str]:
    """Newest first."""
    return [version for version in reversed(list(found)) if found[version].complete]


def _is_same(model: Model, found: Found) -> bool:
    """Whether the files are, for all that they were touched, those that are served."""
    try:
        return model.path == found.path and read_bundle(found.path).digest == model.bundle.digest
    except BundleError:
        return False
