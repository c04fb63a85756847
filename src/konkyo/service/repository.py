"""The models under one folder or several, by name and version; they come and go while the service runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from konkyo.errors import KonkyoError, LoadFailed, RepositoryApiDisabled, UnknownModel
from konkyo.service.changes import Changes
from konkyo.service.engines import EngineFactory, make_engine
from konkyo.service.folders import Found, look
from konkyo.service.index import IndexEntry, make_index
from konkyo.service.metrics import Metrics
from konkyo.service.model import Model
from konkyo.service.settings import Settings
from konkyo.service.versions import Versions

logger = logging.getLogger(__name__)

SETTLE_SECONDS = 1.0
"""Files are on their way until they have stayed the same for so long."""


class Repository:
    """Every ``MODEL/VERSION/card.json`` under the folders in the settings.

    Raises:
        OSError: a folder cannot be read.
    """

    def __init__(
        self, settings: Settings, metrics: Metrics, make_engine: EngineFactory = make_engine
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._make_engine = make_engine
        self._gate = asyncio.Semaphore(settings.parallel_loads)
        self._contents = look(settings.repository)
        self._clashes = set(self._contents.conflicts)
        self._settling: dict[str, tuple[object, float]] = {}
        self._changes = Changes()
        self._known: dict[str, Versions] = {}
        self._loaded = False
        for name, found in self._contents.models.items():
            versions = self._versions_of(name)
            versions.announce(found)
            versions.required = bool(versions)

    def names(self) -> list[str]:
        """Names of all models, sorted."""
        return sorted(name for name, versions in self._known.items() if versions)

    def models(self) -> list[Model]:
        """Every version of every model."""
        return [model for name in self.names() for model in self._known[name]]

    def versions(self, name: str) -> dict[str, Model]:
        """Versions of a model, oldest first.

        Raises:
            UnknownModel: there is none of this name.
        """
        return {model.version: model for model in self._of(name)}

    def find(self, name: str, version: str | None = None) -> Model:
        """A model; without a version the newest that is ready, else the newest.

        Raises:
            UnknownModel, UnknownVersion: there is none.
        """
        return self._of(name).find(version)

    @contextmanager
    def use(self, name: str, version: str | None = None) -> Iterator[Model]:
        """A model, as ``find`` gives it, which is not unloaded while the block runs.

        Raises:
            UnknownModel, UnknownVersion: there is none.
        """
        model = self.find(name, version)
        with model.hold():
            yield model

    async def start(self) -> None:
        """Load what was there at the start, several at a time; one that fails leaves the rest alone."""
        for message in self._contents.conflicts.values():
            logger.error("%s", message)
        changes = [self._load(name, found) for name, found in self._contents.models.items()]
        await asyncio.gather(*changes, return_exceptions=True)
        self._loaded = True

    async def load(self, name: str) -> None:
        """Look at the folder of a model again, and serve what is there; return when that is ready.

        Raises:
            RepositoryApiDisabled: models are not loaded by request here.
            UnknownModel: there is no bundle of this name.
            LoadFailed: a version could not be loaded.
            Draining: the service is shutting down.
        """
        self._refuse_requests()
        try:
            await self._look()
        except OSError as error:
            raise LoadFailed(f"the repository cannot be read: {error}", failures={}) from None
        found = self._contents.models.get(name, {})
        if not any(version.complete for version in found.values()):
            raise UnknownModel(self._nothing(f" of {name!r}"), models=self.names())
        versions = self._versions_of(name)
        versions.parked = False
        await self._changes.finished(name, self._load(name, found, again=True))
        failures = dict(versions.failures)
        if failures:
            reasons = "; ".join(f"version {version}: {reason}" for version, reason in failures.items())
            raise LoadFailed(f"{name} could not be loaded: {reasons}", failures=failures)

    async def unload(self, name: str) -> None:
        """Unload all versions of a model, until it is loaded by request; return when they are closed.

        Who uses it finishes first. A load that is under way is given up.

        Raises:
            RepositoryApiDisabled: models are not unloaded by request here.
            UnknownModel: there is none of this name.
            Draining: the service is shutting down.
        """
        self._refuse_requests()
        versions = self._of(name)
        versions.parked = True
        await self._changes.finished(name, self._changes.unload(name, versions.unload()))

    async def index(self) -> list[IndexEntry]:
        """Every version that is served, is being unloaded, or lies in a folder, by name and version."""
        with suppress(OSError):
            await self._look()
        return make_index(self._contents.models, self._known)

    async def refresh(self) -> bool:
        """Look at the folders, and begin to serve what has changed and settled since.

        Returns:
            Whether something has still to settle.
        """
        try:
            await self._look()
        except OSError as error:  # no reason to unload anything
            logger.warning("the repository cannot be read: %s", error)
            return False
        unsettled = False
        for name in self._contents.models.keys() | self._known.keys():
            versions, found = self._versions_of(name), self._contents.models.get(name, {})
            if versions.parked or found == versions.applied or name in self._changes.loading:
                continue
            if self._settled(name, found):
                self._load(name, found)
            else:
                unsettled = True
        return unsettled

    def problems(self) -> list[str]:
        """What keeps the service from being ready; empty if nothing does.

        Every model that was there at the start must work in one of its versions. What came later, or is
        gone, does not count.
        """
        found = [
            message for name, message in sorted(self._contents.conflicts.items()) if name in self._clashes
        ]
        if not self.names():
            return [*found, "no model is loaded" if self._contents.models else self._nothing()]
        for name in self.names():
            versions = self._known[name]
            works = any(model.state == "ready" for model in versions)
            for model in versions:
                if (
                    model.state == "ready"
                    or (versions.required and not works)
                    or (model.state == "loading" and not self._loaded)
                ):
                    found.extend(model.problems())
        return found

    def failures(self, name: str) -> list[str]:
        """What is wrong with the files of a model, whether or not it is served all the same.

        Raises:
            UnknownModel: there is none of this name.
        """
        found = [f"{version}: {reason}" for version, reason in self._of(name).failures.items()]
        conflict = self._contents.conflicts.get(name)
        return found if conflict is None else [*found, conflict]

    async def probe(self) -> None:
        """Let every model whose queue fails show whether it has recovered, by its canary."""
        for model in self.models():
            if model.state == "ready" and model.problems():
                try:
                    await model.run_canary()
                except KonkyoError as error:
                    logger.warning("%s/%s: the canary failed: %s", model.name, model.version, error)

    async def close(self) -> None:
        """Give up what is being loaded, finish what was accepted and release every model."""
        await self._changes.close()
        await asyncio.gather(*(versions.close() for versions in self._known.values()))

    def _of(self, name: str) -> Versions:
        versions = self._known.get(name)
        if versions:
            return versions
        if versions is not None and versions.parked:
            raise UnknownModel(f"the model {name!r} was unloaded", models=self.names())
        raise UnknownModel(f"there is no model {name!r}", models=self.names())

    def _versions_of(self, name: str) -> Versions:
        """Of a model, and none as long as it is new."""
        if name not in self._known:
            self._known[name] = Versions(
                name, self._make, self._gate, self._metrics, self._settings.max_versions
            )
        return self._known[name]

    def _make(self, found: Found) -> Model:
        return Model(found.path, self._settings, self._metrics, self._make_engine)

    def _nothing(self, of: str = "") -> str:
        return f"there is no bundle{of} under {', '.join(map(str, self._settings.repository))}"

    async def _look(self) -> None:
        """Raises ``OSError`` where a folder cannot be read."""
        contents = await asyncio.to_thread(look, self._settings.repository)
        for name in contents.conflicts.keys() - self._contents.conflicts.keys():
            logger.error("%s", contents.conflicts[name])
        self._clashes &= contents.conflicts.keys()
        self._contents = contents

    def _settled(self, name: str, found: object) -> bool:
        now = asyncio.get_running_loop().time()
        before, since = self._settling.get(name, (None, now))
        if before != found:
            self._settling[name] = found, now
            return False
        if now - since < SETTLE_SECONDS:
            return False
        del self._settling[name]
        return True

    def _load(self, name: str, found: Mapping[str, Found], *, again: bool = False) -> asyncio.Task[None]:
        """Begin to serve what was found."""
        return self._changes.load(name, self._versions_of(name).update(found, again=again))

    def _refuse_requests(self) -> None:
        if not self._settings.repository_api:
            raise RepositoryApiDisabled(
                "models are loaded and unloaded by request only with KONKYO_REPOSITORY_API=true"
            )
        if self._settings.processes > 1:
            raise RepositoryApiDisabled(
                "a request reaches one of several processes; let each watch the folders "
                "(KONKYO_REPOSITORY_WATCH=poll)"
            )
        self._changes.refuse_when_closed()
