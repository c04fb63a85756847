"""Dynamic batching without a timer.

As soon as the engine is free it takes whatever waits, up to the largest batch: an idle server
never waits for company, a busy one fills its batches by itself.

Promises, each held by a test:

- every caller gets its own answer, or one error, exactly once;
- a full queue refuses at once, and a place is free again as soon as its caller leaves;
- who could not be answered before his deadline, as far as batches were measured, is refused at once;
- who has cancelled or is overdue costs no compute;
- edited maps of one batch are of one size, and its images times its targets are bounded where that is
  what takes the memory; who does not fit waits for a next batch, the first in the queue never does;
- a failing batch is retried in halves, so that a poisoned item fails alone;
- outputs of the wrong length are never delivered;
- closing finishes what was accepted, and leaves nobody waiting.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Executor
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from konkyo.errors import (
    DeadlineExceeded,
    DeadlineUnreachable,
    Draining,
    InferenceFailed,
    KonkyoError,
    NotReady,
    QueueFull,
)
from konkyo.imaging import UInt8
from konkyo.service import tracing
from konkyo.service.engines.base import Float32, Int64, Outputs
from konkyo.service.pace import Pace

MAX_CELLS = 4 * 1024**2
"""Cells of the edited maps of a batch, 16 MiB; larger ones make smaller batches."""


Stage = Literal["forward", "explain"]


class Runner(Protocol):
    """Whatever answers a batch, such as an ``Engine``."""

    def run(self, images: UInt8, targets: Int64, attention: Float32 | None = None) -> Outputs:
        """See ``Engine.run``."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """What one item gets: logits (N,), maps (M, h, w), and how it got there (times in seconds).

    Where the maps come out of the forward pass, all of its batch's time is ``forward_seconds``; where
    they take a gradient, the two cannot be told apart, and all is ``explain_seconds``.
    """

    logits: Float32
    maps: Float32
    batch_size: int
    queue_seconds: float
    forward_seconds: float = 0.0
    explain_seconds: float = 0.0


@dataclass(eq=False, slots=True)
class _Item:
    image: UInt8
    targets: Sequence[int]
    attention: Float32 | None
    deadline: float | None
    future: asyncio.Future[Answer]
    arrived: float
    span: tracing.Span


@dataclass(frozen=True, slots=True)
class Execution:
    """One forward pass, for the metrics."""

    size: int
    seconds: float
    error: Exception | None = None


class Batcher:
    """The queue in front of an engine, for requests of one kind.

    Args:
        engine: runs in ``executor``.
        max_batch: images in one forward pass.
        max_maps: images times targets in one, where each holds memory; one image may have more.
        capacity: requests that may wait.
        lease: held while the engine runs; batchers that share an engine share it, so that neither
            takes its batch before the engine is free for it.
        executor: where the engine runs.
        map_per_target: M = K, as for class-specific explanations.
        stage: what its time is spent on.
        attributes: of its batches in traces.
        hang_seconds: a batch that takes longer hangs.
        on_execution: called after every forward pass.
    """

    def __init__(
        self,
        engine: Runner,
        *,
        max_batch: int,
        max_maps: int | None = None,
        capacity: int,
        lease: asyncio.Lock,
        executor: Executor,
        map_per_target: bool = True,
        stage: Stage = "forward",
        attributes: tracing.Attributes = tracing.NO_ATTRIBUTES,
        hang_seconds: float = math.inf,
        on_execution: Callable[[Execution], None] = lambda execution: None,
    ) -> None:
        self._engine = engine
        self._max_batch = max_batch
        self._max_maps = max_maps
        self.capacity = capacity
        self._lease = lease
        self._executor = executor
        self._map_per_target = map_per_target
        self._stage = stage
        self._attributes = attributes
        self._hang_seconds = hang_seconds
        self._began: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_execution = on_execution
        self._pace = Pace(max_batch)
        self._waiting: dict[_Item, None] = {}  # a queue from which any item can leave at once
        self._running: list[_Item] = []
        self._arrived = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self.failing = False
        """Whether the last forward pass of a single item failed."""

    def start(self) -> None:
        """Begin to serve; call from the event loop."""
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._serve(), name="batcher")

    @property
    def alive(self) -> bool:
        """Whether somebody takes from the queue."""
        return self._task is not None and not self._task.done()

    @property
    def hangs(self) -> bool:
        """Whether a batch has been at work for too long; it may yet end. Can be asked from any thread."""
        began, loop = self._began, self._loop
        return began is not None and loop is not None and loop.time() - began > self._hang_seconds

    @property
    def depth(self) -> int:
        """Requests waiting now."""
        return len(self._waiting)

    def check(self, deadline: float | None = None) -> None:
        """Whether one more is taken now, to be asked before it costs anything.

        Raises:
            QueueFull, DeadlineUnreachable, DeadlineExceeded, NotReady, Draining: it is not.
        """
        now = asyncio.get_running_loop().time()
        if self._closing:
            raise Draining("the model is being closed")
        if not self.alive:
            raise NotReady("the queue of this model has stopped")
        if deadline is not None and deadline <= now:
            raise DeadlineExceeded("the deadline passed before the request was queued")
        if len(self._waiting) >= self.capacity:
            wait = self._pace.wait(len(self._waiting))
            raise QueueFull(f"{self.capacity} requests wait already", wait=wait, capacity=self.capacity)
        if deadline is not None and self._waiting:  # with nobody ahead, the deadline itself will tell
            self._refuse_if_late(deadline - now)

    async def submit(
        self,
        image: UInt8,
        targets: Sequence[int] = (),
        *,
        attention: Float32 | None = None,
        deadline: float | None = None,
    ) -> Answer:
        """Wait for the answer to one image.

        Args:
            image: (H, W, 3) uint8, of the model's input size.
            targets: class indices, −1 for the predicted class; empty asks for no map.
            attention: an edit (h', w') of the map, negative where the network's own value stays.
            deadline: in the event loop's time.

        Raises:
            QueueFull, DeadlineUnreachable, NotReady, Draining: refused at once; nothing was done.
            DeadlineExceeded: the deadline came before the answer.
            InferenceFailed: the engine failed on this item.
        """
        self.check(deadline)
        loop = asyncio.get_running_loop()
        span = tracing.current().queued()
        item = _Item(image, targets, attention, deadline, loop.create_future(), loop.time(), span)
        self._waiting[item] = None
        self._arrived.set()
        try:
            if deadline is None:
                return await item.future
            async with asyncio.timeout_at(deadline):
                return await item.future
        except TimeoutError:
            raise DeadlineExceeded("the deadline passed before the answer was there") from None
        finally:
            self._waiting.pop(item, None)
            span.end(sys.exception())

    async def close(self, patience: float | None = None) -> None:
        """Take nothing new, finish what was accepted, stop.

        Args:
            patience: seconds to wait for that; who still waits then gets ``Draining``.
        """
        self._closing = True
        if self._task is None:
            return
        pending = [item.future for item in (*self._waiting, *self._running)]
        if pending and self.alive:
            await asyncio.wait(pending, timeout=patience)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _serve(self) -> None:
        try:
            while True:
                await self._arrived.wait()
                async with self._lease:
                    self._running = self._take()
                    if self._running:
                        await self._run(self._running)
                    self._running = []
        finally:
            for item in (*self._running, *self._waiting):
                _fail(
                    item,
                    Draining("the model is being closed") if self._closing else NotReady("the queue stopped"),
                )
            self._waiting.clear()

    def _take(self) -> list[_Item]:
        now = asyncio.get_running_loop().time()
        batch: list[_Item] = []
        leaving: list[_Item] = []
        edit: Float32 | None = None
        width = 1
        for item in self._waiting:
            if len(batch) == self._max_batch:
                break
            if item.deadline is not None and item.deadline <= now:
                _fail(item, DeadlineExceeded("the deadline passed in the queue"))
            elif not item.future.done():
                common = item.attention if edit is None else edit
                widest = max(width, len(item.targets))
                if not _fits(item, common, len(batch) + 1) or self._too_many(widest, len(batch) + 1):
                    continue
                edit, width = common, widest
                batch.append(item)
            leaving.append(item)
        for item in leaving:
            del self._waiting[item]
        if not self._waiting:
            self._arrived.clear()
        return batch

    def _refuse_if_late(self, seconds: float) -> None:
        waiting = len(self._waiting)
        wait = self._pace.wait(waiting + 1)
        if wait > seconds:
            raise DeadlineUnreachable(
                f"{waiting} requests wait already: the answer would take {wait * 1e3:.0f} ms, "
                f"and the deadline is in {seconds * 1e3:.0f} ms",
                wait=wait - seconds,
                waiting=waiting,
            )

    def _too_many(self, width: int, size: int) -> bool:
        return self._max_maps is not None and size > 1 and width * size > self._max_maps

    async def _run(self, batch: list[_Item]) -> None:
        loop = asyncio.get_running_loop()
        taken = self._began = loop.time()
        attributes = {**self._attributes, "konkyo.batch.size": len(batch)}
        span = tracing.batched([item.span for item in batch], self._stage, attributes)
        try:
            outputs, seconds = await loop.run_in_executor(self._executor, self._forward, batch)
        except Exception as error:
            self._began = None
            span.end(error)
            await self._isolate(batch, error)
            return
        span.end()
        self._began = None
        self.failing = False
        self._pace.add(len(batch), seconds)
        self._on_execution(Execution(len(batch), seconds))
        for position, item in enumerate(batch):
            if not item.future.done():
                logits, maps = outputs.logits[position], outputs.maps[position]
                if self._map_per_target:  # a batch is as wide as its widest item
                    maps = maps[: len(item.targets)]
                if not np.isfinite(logits).all():
                    _fail(item, InferenceFailed("the network gave logits that are not finite"))
                    continue
                times = {"queue_seconds": taken - item.arrived, f"{self._stage}_seconds": seconds}
                item.future.set_result(Answer(logits, maps, len(batch), **times))

    async def _isolate(self, batch: list[_Item], error: Exception) -> None:
        """Retry a failed batch in halves; a single item that fails is the culprit."""
        self._on_execution(Execution(len(batch), 0.0, error))
        if len(batch) == 1:
            self.failing = True
            _fail(batch[0], _as_failure(error))
            return
        middle = len(batch) // 2
        for half in (batch[:middle], batch[middle:]):
            alive = [item for item in half if not item.future.done()]
            if alive:
                await self._run(alive)

    def _forward(self, batch: list[_Item]) -> tuple[Outputs, float]:
        """In the executor: stack, run, check."""
        images = np.stack([item.image for item in batch])
        width = max(len(item.targets) for item in batch)
        targets = np.full((len(batch), width), -1, np.int64)
        for row, item in zip(targets, batch, strict=True):
            row[: len(item.targets)] = item.targets
        attention = _stack_edits(batch)
        started = time.perf_counter()
        try:
            outputs = self._engine.run(images, targets, attention)
        except (StopIteration, CancelledError) as error:  # in a future these mean something else
            raise _as_failure(error) from error
        seconds = time.perf_counter() - started
        if len(outputs.logits) != len(batch) or len(outputs.maps) != len(batch):
            raise InferenceFailed(
                f"the engine answered {len(outputs.logits)} logits and {len(outputs.maps)} maps "
                f"for {len(batch)} images"
            )
        return outputs, seconds


def _fits(item: _Item, edit: Float32 | None, size: int) -> bool:
    """Whether an item may join a batch with this edited map and so become one of ``size``."""
    if edit is None or size == 1:
        return True
    if item.attention is not None and item.attention.shape != edit.shape:
        return False
    return edit.size * size <= MAX_CELLS


def _stack_edits(batch: list[_Item]) -> Float32 | None:
    """The edited maps as one (B, h', w'), −1 for who brings none; None if nobody does."""
    shape = next((item.attention.shape for item in batch if item.attention is not None), None)
    if shape is None:
        return None
    stacked = np.full((len(batch), *shape), -1, np.float32)
    for cells, item in zip(stacked, batch, strict=True):
        if item.attention is not None:
            cells[:] = item.attention
    return stacked


def _fail(item: _Item, error: KonkyoError) -> None:
    if not item.future.done():
        item.future.set_exception(error)


def _as_failure(error: Exception) -> KonkyoError:
    if isinstance(error, KonkyoError):
        return error
    failure = InferenceFailed(f"the engine failed on this image: {type(error).__name__}")
    failure.__cause__ = error
    return failure
