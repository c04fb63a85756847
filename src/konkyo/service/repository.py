"""The models under a folder, by name and version."""

from __future__ import annotations

import logging

from konkyo.errors import KonkyoError, UnknownModel, UnknownVersion
from konkyo.models.bundle import CARD
from konkyo.service.engines import EngineFactory, make_engine
from konkyo.service.metrics import Metrics
from konkyo.service.model import Model
from konkyo.service.settings import Settings

logger = logging.getLogger(__name__)


class Repository:
    """Every ``MODEL/VERSION/card.json`` under the folder in the settings."""

    def __init__(
        self, settings: Settings, metrics: Metrics, make_engine: EngineFactory = make_engine
    ) -> None:
        self._folder = settings.repository
        self._models: dict[str, dict[str, Model]] = {}
        cards = self._folder.glob(f"*/*/{CARD}")
        folders = sorted(
            (card.parent for card in cards), key=lambda path: (path.parent.name, len(path.name), path.name)
        )
        for path in folders:  # versions are numbers: by length, then by digits
            self._models.setdefault(path.parent.name, {})[path.name] = Model(
                path, settings, metrics, make_engine
            )

    def names(self) -> list[str]:
        """Names of all models, sorted."""
        return list(self._models)

    def models(self) -> list[Model]:
        """Every version of every model."""
        return [model for versions in self._models.values() for model in versions.values()]

    def versions(self, name: str) -> dict[str, Model]:
        """Versions of a model, oldest first.

        Raises:
            UnknownModel: there is none of this name.
        """
        try:
            return self._models[name]
        except KeyError:
            raise UnknownModel(f"there is no model {name!r}", models=self.names()) from None

    def find(self, name: str, version: str | None = None) -> Model:
        """A model; without a version the newest that is ready, else the newest.

        Raises:
            UnknownModel, UnknownVersion: there is none.
        """
        versions = self.versions(name)
        if version is None:
            newest_first = list(versions.values())[::-1]
            return next((model for model in newest_first if model.state == "ready"), newest_first[0])
        try:
            return versions[version]
        except KeyError:
            raise UnknownVersion(f"{name} has no version {version!r}", versions=list(versions)) from None

    async def load(self) -> None:
        """Load every model, one after the other; one that fails leaves the rest alone."""
        for model in self.models():
            await model.load()
            if model.failure:
                logger.error("%s/%s is not served: %s", model.name, model.version, model.failure)
            else:
                logger.info("%s/%s is ready", model.name, model.version)

    def problems(self) -> list[str]:
        """What keeps the service from being ready; empty if nothing does."""
        if not self._models:
            return [f"there is no bundle under {self._folder}"]
        return [problem for model in self.models() for problem in model.problems()]

    async def probe(self) -> None:
        """Let every model whose queue fails show whether it has recovered, by its canary."""
        for model in self.models():
            if model.state == "ready" and model.problems():
                try:
                    await model.run_canary()
                except KonkyoError as error:
                    logger.warning("%s/%s: the canary failed: %s", model.name, model.version, error)

    async def close(self) -> None:
        """Finish what was accepted and release every model."""
        for model in self.models():
            await model.close()
