"""One served model: a verified bundle, its engine, its queues, and the proof that it works."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from konkyo.errors import BundleError, NotReady, UnknownClass
from konkyo.imaging import Decoded, Geometry, UInt8, decode, open_image, prepare
from konkyo.models.bundle import Bundle, read_bundle
from konkyo.service.batcher import Batcher, Execution
from konkyo.service.engines import EngineFactory, make_engine
from konkyo.service.engines.base import Engine
from konkyo.service.gpu import gpu_memory_used
from konkyo.service.metrics import Metrics
from konkyo.service.settings import Settings

Kind = Literal["predict", "explain"]
KINDS: tuple[Kind, ...] = ("predict", "explain")
State = Literal["loading", "ready", "failed"]

CANARY_TOLERANCE = 0.02
"""Largest difference of the canary's logits from the card's, relative to their range: room for the
reduced precision of GPUs, none for wrong weights or a wrong normalisation."""

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
        self._batchers: dict[Kind, Batcher] = {}
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

    def batcher(self, kind: Kind) -> Batcher:
        """The queue for requests of a kind. Raises ``NotReady`` unless the model is ready."""
        if self.state != "ready":
            raise self._not_ready()
        return self._batchers[kind]

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
        spec = self.bundle.card.input
        return prepare(
            decoded,
            (spec.width, spec.height),
            mode=spec.resize_mode,
            crop_fraction=spec.crop_fraction,
            interpolation=spec.interpolation,
        )

    async def load(self) -> None:
        """Verify, load, warm up and run the canary. A failure is kept in ``failure``, not raised."""
        started = time.perf_counter()
        loop = asyncio.get_running_loop()
        try:
            self._bundle = await loop.run_in_executor(self._executor, self._read)
            self._index = {label: index for index, label in enumerate(self._bundle.card.labels)}
            self._engine = await loop.run_in_executor(
                self._executor, self._make_engine, self._bundle, self._settings
            )
            await loop.run_in_executor(self._executor, self._engine.warm_up)
            if self._engine.device == "cuda":
                self._metrics.gpu_memory.set_function(gpu_memory_used)
            self._start_batchers(self._engine, self._bundle)
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
        card = self.bundle.card
        data = (self.bundle.path / card.canary.file).read_bytes()
        pixels, _ = self.prepare(decode(open_image(data)))
        deadline = asyncio.get_running_loop().time() + CANARY_SECONDS
        answer = await self._batchers["explain"].submit(pixels, (-1,), deadline=deadline)
        await self._batchers["predict"].submit(pixels, deadline=deadline)
        if not np.isfinite(answer.maps).all() or np.ptp(answer.maps) == 0:
            raise BundleError(f"{self._path}: the map of the canary is constant or not finite")
        expected = np.asarray(card.canary.logits)
        error = np.abs(answer.logits - expected).max() / max(np.ptp(expected), 1e-6)
        if self.engine.faithful and error > CANARY_TOLERANCE:
            raise BundleError(
                f"{self._path}: the canary's logits differ from the card's by {error:.1%} of their range"
            )

    @property
    def dead(self) -> bool:
        """Whether a queue has stopped for good; only a new process helps."""
        return self.state == "ready" and not all(batcher.alive for batcher in self._batchers.values())

    def problems(self) -> list[str]:
        """What keeps this model from being ready; empty if nothing does."""
        if self.state != "ready":
            return [f"{self.name}/{self.version}: {self.failure or self.state}"]
        return [
            f"{self.name}/{self.version}: the {kind} queue {'fails' if batcher.alive else 'has stopped'}"
            for kind, batcher in self._batchers.items()
            if batcher.failing or not batcher.alive
        ]

    async def close(self) -> None:
        """Finish what was accepted, then release the engine; one that hangs is left to the process's end."""
        if self._closed:
            return
        self._closed = True
        for batcher in self._batchers.values():
            await batcher.close(self._settings.shutdown_seconds)
        released = asyncio.get_running_loop().run_in_executor(self._executor, self._release)
        _, hung = await asyncio.wait([released], timeout=self._settings.shutdown_seconds)
        self._executor.shutdown(wait=not hung, cancel_futures=True)

    def _release(self) -> None:
        """In the engine's thread, and so after whatever it still does."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _read(self) -> Bundle:
        bundle = read_bundle(self._path)
        if (bundle.card.name, bundle.card.version) != (self.name, self.version):
            raise BundleError(
                f"{self._path}: the card is of {bundle.card.name}/{bundle.card.version}; "
                "the folders must have those names"
            )
        return bundle

    def _start_batchers(self, engine: Engine, bundle: Bundle) -> None:
        lease = asyncio.Lock()
        for kind in KINDS:
            labels = {**self.labels, "kind": kind}
            batcher = Batcher(
                engine,
                max_batch=self._settings.max_batch,
                capacity=self._settings.queue_capacity,
                lease=lease,
                executor=self._executor,
                map_per_target=bundle.card.explanation.class_specific,
                on_execution=self._observer(labels),
            )
            batcher.start()
            self._batchers[kind] = batcher
            self._metrics.queue_capacity.labels(**labels).set(batcher.capacity)
            self._metrics.queue_depth.labels(**labels).set_function(partial(getattr, batcher, "depth"))

    def _observer(self, labels: dict[str, str]) -> Callable[[Execution], None]:
        metrics = self._metrics
        executions, inferences = metrics.executions.labels(**labels), metrics.inferences.labels(**labels)
        batch_size, forward = metrics.batch_size.labels(**labels), metrics.stage.labels(stage="forward")
        oom = metrics.oom.labels(**self.labels)

        def observe(execution: Execution) -> None:
            executions.inc()
            inferences.inc(execution.size)
            batch_size.observe(execution.size)
            forward.observe(execution.seconds)
            if execution.error is not None and _is_out_of_memory(execution.error):
                oom.inc()

        return observe

    def _not_ready(self) -> NotReady:
        return NotReady(f"model {self.name}/{self.version} is {self.state}", **self.labels, state=self.state)


def _is_out_of_memory(error: Exception) -> bool:
    text = f"{type(error).__name__} {error}".lower()
    return (
        isinstance(error, MemoryError)
        or "outofmemory" in text
        or "out of memory" in text
        or "bad_alloc" in text
    )
