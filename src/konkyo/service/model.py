"""One served model: a verified bundle, its engine, its queues, and the proof that it works."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from konkyo.errors import BundleError, NotReady, UnknownClass
from konkyo.imaging import Decoded, Geometry, UInt8
from konkyo.models.bundle import Bundle, read_bundle
from konkyo.models.neurons import Neurons, read_neurons
from konkyo.service.batcher import Batcher
from konkyo.service.canary import Canary, to_input
from konkyo.service.engines import EngineFactory, make_engine, make_torch_engine
from konkyo.service.engines.base import Engine, GradientEngine
from konkyo.service.folders import Stamp, stamp
from konkyo.service.gpu import gpu_memory_total, gpu_memory_used
from konkyo.service.gradients import LazyEngine
from konkyo.service.methods import Methods
from konkyo.service.metrics import Metrics
from konkyo.service.queues import Queues
from konkyo.service.settings import Settings
from konkyo.service.usage import Usage

T = TypeVar("T")
State = Literal["loading", "ready", "failed"]

logger = logging.getLogger(__name__)

CANARY_SECONDS = 30
"""How long the canary may take: a probe of an engine that hangs must not hang with it."""


class Model:
    """One version of one model, from ``loading`` to ``ready`` or ``failed``.

    It never changes: other files in the folder are another ``Model``.

    Args:
        path: folder of the bundle, ``.../NAME/VERSION``.
        make_engine: builds the engine of the verified bundle.

    Attributes:
        failure: why it could not be loaded; of one that is ready, why files that came later could not.
        begun: whether its loading has begun.
        load_seconds: what its loading consisted of, by part.
    """

    def __init__(
        self, path: Path, settings: Settings, metrics: Metrics, make_engine: EngineFactory = make_engine
    ) -> None:
        self.path = path
        self.name, self.version = path.parent.name, path.name
        self.labels = {"model": self.name, "version": self.version}
        """Labels of this model's metrics."""
        self.state: State = "loading"
        self.failure: str | None = None
        self.begun = False
        self.load_seconds: dict[str, float] = {}
        self._settings = settings
        self._metrics = metrics
        self._make_engine = make_engine
        self._bundle: Bundle | None = None
        self._canary: Canary | None = None
        self._engine: Engine | None = None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"engine-{self.name}")
        self._lazy: LazyEngine | None = None
        self._methods: Methods | None = None
        self._started: Queues | None = None
        self.neurons: Neurons | None = None
        """Names of the units, where the bundle has them."""
        self._index: dict[str, int] = {}
        self._usage = Usage()
        self._closing: asyncio.Task[None] | None = None

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

    def hold(self) -> AbstractContextManager[None]:
        """Keep it from being closed, by ``retire``, before the block ends."""
        return self._usage.hold()

    async def load(self) -> None:
        """Verify, load, warm up and run the canary.

        A failure is kept in ``failure``, not raised, and all that was taken for it is given back.
        """
        self.begun = True
        try:
            await self._load()
            self.state = "ready"
        except Exception as error:
            self.state, self.failure = "failed", str(error) or type(error).__name__
            await self.close()

    async def _load(self) -> None:
        with self._timing("read"):
            before, bundle = await self._in_thread(self._read)
        self._bundle = bundle
        with self._timing("session"):
            engine = await self._in_thread(self._build, bundle)
        with self._timing("warm_up"):
            await self._in_thread(engine.warm_up)
        if engine.device == "cuda":
            self._metrics.watch(self._metrics.gpu_memory, gpu_memory_used)
            self._metrics.watch(self._metrics.gpu_memory_total, gpu_memory_total)
        self._start(engine, bundle)
        with self._timing("canary"):
            await self.run_canary()
        if await self._in_thread(stamp, self.path) != before:  # the engine may have read other files
            raise BundleError(f"{self.path}: its files changed while they were being loaded")

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)

    @contextmanager
    def _timing(self, part: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.load_seconds[part] = time.perf_counter() - started

    def publish(self) -> None:
        """Show its metrics; it answers from now on."""
        self._metrics.model_ready.labels(**self.labels).set(1)
        self._metrics.model_load_seconds.labels(**self.labels).set(sum(self.load_seconds.values()))
        self._queues.publish()

    async def run_canary(self) -> None:
        """Send the bundle's canary through both queues, so that either can show that it has recovered.

        Raises:
            BundleError: the logits are not those in the card, or the map is not finite or constant.
            KonkyoError: the queue or the engine failed.
        """
        canary = self._canary
        assert canary is not None
        deadline = asyncio.get_running_loop().time() + CANARY_SECONDS
        answer = await self._queues.find("explain").submit(canary.pixels, (-1,), deadline=deadline)
        predicted = await self._queues.find("predict").submit(canary.pixels, deadline=deadline)
        canary.check_map(answer.maps)
        if self.engine.faithful:
            canary.check_logits(answer.logits)
            canary.check_logits(predicted.logits)

    @property
    def dead(self) -> str | None:
        """Why only a new process helps; None if nothing is so bad."""
        if self.state != "ready":
            return None
        if not self._queues.alive:
            return "a queue has stopped"
        return "the engine hangs in a batch" if self._queues.hang else None

    def problems(self) -> list[str]:
        """What keeps this model from being ready; empty if nothing does."""
        found = self._queues.problems() if self.state == "ready" else [self.failure or self.state]
        return [f"{self.name}/{self.version}: {problem}" for problem in found]

    async def retire(self) -> None:
        """Wait for those who use it, for a while, then close it."""
        if not await self._usage.ended(self._settings.shutdown_seconds):
            logger.warning("%s/%s is closed while it is in use", self.name, self.version)
        await self.close()

    async def close(self) -> None:
        """Finish what was accepted, then release the engine; one that hangs is left to the process's end.

        Once begun it goes on, whoever waits for it is cancelled.
        """
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
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

    def _read(self) -> tuple[Stamp, Bundle]:
        before = stamp(self.path)
        bundle = read_bundle(self.path)
        if (bundle.card.name, bundle.card.version) != (self.name, self.version):
            raise BundleError(
                f"{self.path}: the card is of {bundle.card.name}/{bundle.card.version}; "
                "the folders must have those names"
            )
        self.neurons = read_neurons(bundle)
        self._index = {label: index for index, label in enumerate(bundle.card.labels)}
        self._canary = Canary(bundle)
        return before, bundle

    def _build(self, bundle: Bundle) -> Engine:
        """Kept here, in the engine's thread: who waits for it may have been cancelled."""
        self._engine = self._make_engine(bundle, self._settings)
        return self._engine

    def _start(self, engine: Engine, bundle: Bundle) -> None:
        self._methods = Methods(bundle, self._settings, engine)
        gradients: GradientEngine
        if isinstance(engine, GradientEngine):
            gradients = engine
        else:
            gradients = self._lazy = LazyEngine(
                partial(_load_torch, bundle, self._settings),
                f"{self.name}/{self.version}",
                self._show_gradients,
            )
        self._started = Queues(
            engine, gradients, self._methods, self._settings, self._metrics, self.labels, self._executor
        )

    def _show_gradients(self, seconds: float) -> None:
        self._metrics.gradient_load_seconds.labels(**self.labels).set(seconds)

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
