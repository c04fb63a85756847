"""One served model: a verified bundle, its engine, its queues, and the proof that it works."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from konkyo.errors import BundleError, NotReady, UnknownClass
from konkyo.imaging import Decoded, Geometry, UInt8
from konkyo.models.bundle import Bundle, read_bundle
from konkyo.models.neurons import Neurons, read_neurons
from konkyo.service.batcher import Batcher
from konkyo.service.canary import Canary, to_input
from konkyo.service.engines import EngineFactory, make_engine, make_torch_engine
from konkyo.service.engines.base import Engine, GradientEngine
from konkyo.service.gpu import gpu_memory_used
from konkyo.service.gradients import LazyEngine
from konkyo.service.methods import Methods
from konkyo.service.metrics import Metrics
from konkyo.service.queues import Queues
from konkyo.service.settings import Settings

State = Literal["loading", "ready", "failed"]

CANARY_SECONDS = 30
"""How long the canary may take: a probe of an engine that hangs must not hang with it."""


class Model:
    """One version of one model, from ``loading`` to ``ready`` or ``failed``.

    Args:
        path: folder of the bundle, ``.../NAME/VERSION``.
        make_engine: builds the engine of the verified bundle.
    """

    def __init__(
        self, path: Path, settings: Settings, metrics: Metrics, make_engine: EngineFactory = make_engine
    ) -> None:
        self.name, self.version = path.parent.name, path.name
        self.labels = {"model": self.name, "version": self.version}
        """Labels of this model's metrics."""
        self.state: State = "loading"
        self.failure: str | None = None
        self._path = path
        self._settings = settings
        self._metrics = metrics
        self._make_engine = make_engine
        self._bundle: Bundle | None = None
        self._engine: Engine | None = None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"engine-{self.name}")
        self._lazy: LazyEngine | None = None
        self._methods: Methods | None = None
        self._started: Queues | None = None
        self.neurons: Neurons | None = None
        """Names of the units, where the bundle has them."""
        self._index: dict[str, int] = {}
        self._closed = False

    @property
    def bundle(self) -> Bundle:
        """The verified bundle. Raises ``NotReady`` while there is none."""
        if self._bundle is None:
            raise self._not_ready()
        return self._bundle

    @property
    def engine(self) -> Engine:
        """The engine. Raises ``NotReady`` while there is none."""
        if self._engine is None:
            raise self._not_ready()
        return self._engine

    @property
    def methods(self) -> Methods:
        """The explanations it can give. Raises ``NotReady`` while that is not known."""
        if self._methods is None:
            raise self._not_ready()
        return self._methods

    def batcher(self, kind: str) -> Batcher:
        """The queue of a kind: ``predict``, or ``Method.queue``.

        Raises:
            NotReady: the model is not ready.
        """
        if self.state != "ready":
            raise self._not_ready()
        return self._queues.find(kind)

    @property
    def _queues(self) -> Queues:
        assert self._started is not None
        return self._started

    def class_index(self, target: str | int) -> int:
        """Index of a class given by name or index; the name wins where a label looks like a number.

        Raises:
            UnknownClass: the model has no such class.
        """
        index = self._index.get(str(target))
        if index is None:
            try:
                index = int(target)
            except ValueError:
                index = -1
        if not 0 <= index < len(self._index):
            raise UnknownClass(
                f"{self.name} has no class {target!r}", target=target, classes=list(self._index)
            )
        return index

    def prepare(self, decoded: Decoded) -> tuple[UInt8, Geometry]:
        """Bring an image to the network's input, as the card says."""
        return to_input(self.bundle.card, decoded)

    async def load(self) -> None:
        """Verify, load, warm up and run the canary. A failure is kept in ``failure``, not raised."""
        started = time.perf_counter()
        loop = asyncio.get_running_loop()
        try:
            self._bundle = await loop.run_in_executor(self._executor, self._read)
            self.neurons = read_neurons(self._bundle)
            self._index = {label: index for index, label in enumerate(self._bundle.card.labels)}
            self._engine = await loop.run_in_executor(
                self._executor, self._make_engine, self._bundle, self._settings
            )
            await loop.run_in_executor(self._executor, self._engine.warm_up)
            if self._engine.device == "cuda":
                self._metrics.gpu_memory.set_function(gpu_memory_used)
            self._start(self._engine, self._bundle)
            await self.run_canary()
            self.state = "ready"
        except Exception as error:
            self.state, self.failure = "failed", str(error)
        self._metrics.model_load_seconds.labels(**self.labels).set(time.perf_counter() - started)
        self._metrics.model_ready.labels(**self.labels).set(self.state == "ready")

    async def run_canary(self) -> None:
        """Send the bundle's canary through both queues, so that either can show that it has recovered.

        Raises:
            BundleError: the logits are not those in the card, or the map is not finite or constant.
            KonkyoError: the queue or the engine failed.
        """
        canary = Canary(self.bundle)
        deadline = asyncio.get_running_loop().time() + CANARY_SECONDS
        answer = await self._queues.find("explain").submit(canary.pixels, (-1,), deadline=deadline)
        predicted = await self._queues.find("predict").submit(canary.pixels, deadline=deadline)
        canary.check_map(answer.maps)
        if self.engine.faithful:
            canary.check_logits(answer.logits)
            canary.check_logits(predicted.logits)

    @property
    def dead(self) -> bool:
        """Whether a queue has stopped for good; only a new process helps."""
        return self.state == "ready" and not self._queues.alive

    def problems(self) -> list[str]:
        """What keeps this model from being ready; empty if nothing does."""
        found = self._queues.problems() if self.state == "ready" else [self.failure or self.state]
        return [f"{self.name}/{self.version}: {problem}" for problem in found]

    async def close(self) -> None:
        """Finish what was accepted, then release the engine; one that hangs is left to the process's end."""
        if self._closed:
            return
        self._closed = True
        if self._started is not None:
            await self._started.close(self._settings.shutdown_seconds)
        released = asyncio.get_running_loop().run_in_executor(self._executor, self._release)
        _, hung = await asyncio.wait([released], timeout=self._settings.shutdown_seconds)
        self._executor.shutdown(wait=not hung, cancel_futures=True)

    def _release(self) -> None:
        """In the engine's thread, and so after whatever it still does."""
        for engine in (self._engine, self._lazy):
            if engine is not None:
                engine.close()
        self._engine = self._lazy = None

    def _read(self) -> Bundle:
        bundle = read_bundle(self._path)
        if (bundle.card.name, bundle.card.version) != (self.name, self.version):
            raise BundleError(
                f"{self._path}: the card is of {bundle.card.name}/{bundle.card.version}; "
                "the folders must have those names"
            )
        return bundle

    def _start(self, engine: Engine, bundle: Bundle) -> None:
        self._methods = Methods(bundle, self._settings, engine)
        gradients: GradientEngine
        if isinstance(engine, GradientEngine):
            gradients = engine
        else:
            gradients = self._lazy = LazyEngine(
                partial(_load_torch, bundle, self._settings),
                f"{self.name}/{self.version}",
                self._metrics.gradient_load_seconds.labels(**self.labels).set,
            )
        self._started = Queues(
            engine, gradients, self._methods, self._settings, self._metrics, self.labels, self._executor
        )

    def _not_ready(self) -> NotReady:
        said = "is loading"
        if self.state == "failed":
            said = f"could not be loaded; GET /v1/models/{self.name}/versions/{self.version} says why"
        return NotReady(f"model {self.name}/{self.version} {said}", **self.labels, state=self.state)


def _load_torch(bundle: Bundle, settings: Settings) -> GradientEngine:
    """The bundle in torch, which must answer the canary as the card says."""
    engine = make_torch_engine(bundle, settings)
    canary = Canary(bundle)
    canary.check_logits(engine.run(canary.pixels[None], np.empty((1, 0), np.int64)).logits[0])
    return engine
