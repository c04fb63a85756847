"""The queues of one model, by kind.

    predict, explain, perturb   share the engine: one lease, one thread
    a method that takes a gradient: a queue each, which share another lease and another thread

So a prediction waits for a batch that is under way at its engine, and never for a gradient. Where the
model's own explanation takes one, ``explain`` is a queue of the second sort.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from konkyo.errors import Draining, NotReady
from konkyo.service.batcher import Batcher, Execution, Runner, Stage
from konkyo.service.engines.base import Engine, GradientEngine
from konkyo.service.gradients import ByMethod
from konkyo.service.methods import Methods
from konkyo.service.metrics import Metrics
from konkyo.service.settings import Settings

CANARIED = ("predict", "explain")
"""The kinds a canary goes through, and so those that decide over readiness."""


@dataclass(frozen=True)
class _Lane:
    """A thread in which the batches of several queues run, one at a time.

    Attributes:
        stage: what the time of its batches is spent on.
        max_maps: images times targets in one of them.
    """

    thread: ThreadPoolExecutor
    stage: Stage
    max_maps: int | None = None
    lease: asyncio.Lock = field(default_factory=asyncio.Lock)
    queues: list[Batcher] = field(default_factory=list)

    @property
    def hangs(self) -> bool:
        """Whether a batch of any of its queues hangs: the others wait for it."""
        return any(queue.hangs for queue in self.queues)


class Queues:
    """The queues of one model.

    Args:
        engine: predicts, and gives the model's own explanation.
        gradients: gives those that take a gradient.
        methods: what the model can do.
        labels: of the model's metrics.
        thread: where the engine runs.
    """

    def __init__(
        self,
        engine: Engine,
        gradients: GradientEngine,
        methods: Methods,
        settings: Settings,
        metrics: Metrics,
        labels: dict[str, str],
        thread: ThreadPoolExecutor,
    ) -> None:
        self._gradients = gradients
        self._methods = methods
        self._settings = settings
        self._metrics = metrics
        self._labels = labels
        self._passes = _Lane(thread, "forward")
        gradient_thread = ThreadPoolExecutor(1, thread_name_prefix=f"gradients-{labels['model']}")
        self._differentiation = _Lane(gradient_thread, "explain", max_maps=settings.gradient_batch)
        self._queues: dict[str, Batcher] = {}
        self._lanes: dict[str, _Lane] = {}
        self._closed = False
        self._published = False
        self._start("predict", engine, self._passes, settings.max_batch)
        self._start("perturb", engine, self._passes, settings.perturbation_batch)
        own = methods.default
        if own.differentiates:
            self._start_method("explain", own.name)
        else:
            self._start("explain", engine, self._passes, settings.max_batch)

    def find(self, kind: str) -> Batcher:
        """The queue of a kind; one of a method is made when it is first asked for.

        Raises:
            Draining: it would have to be made, and the queues are closed.
            NotReady: what runs its batches hangs.
            UnsupportedMethod: there is no such kind.
        """
        if kind not in self._queues:
            method = self._methods.find(kind)
            if self._closed:
                raise Draining("the model is being closed")
            self._start_method(kind, method.name)
        if self._lanes[kind].hangs:
            raise NotReady(f"a batch has been at work for over {self._settings.hang_seconds:g} s")
        return self._queues[kind]

    @property
    def alive(self) -> bool:
        """Whether every queue is served."""
        return all(queue.alive for queue in self._queues.values())

    @property
    def hang(self) -> bool:
        """Whether a batch hangs that others than those who asked for its method have to wait for."""
        return any(self._lanes[kind].hangs for kind in CANARIED)

    def problems(self) -> list[str]:
        """What is wrong with them; a method that fails is wrong only for those who ask for it."""
        found = ["the engine hangs in a batch"] if self.hang else []
        return found + [
            f"the {kind} queue {'fails' if queue.alive else 'has stopped'}"
            for kind, queue in self._queues.items()
            if not queue.alive or (queue.failing and kind in CANARIED)
        ]

    def publish(self) -> None:
        """Show depth and capacity of the queues, also of those that are made later.

        Two versions of one bundle have the same labels: the one that answers shows its own.
        """
        self._published = True
        for kind, queue in self._queues.items():
            self._show(kind, queue)

    async def close(self, patience: float) -> None:
        """Finish what was accepted, and end the thread of the gradients.

        Args:
            patience: seconds to wait for each; a thread that hangs is left to the process's end.
        """
        self._closed = True
        await asyncio.gather(*(queue.close(patience) for queue in self._queues.values()))
        thread = self._differentiation.thread
        idle = asyncio.get_running_loop().run_in_executor(thread, lambda: None)
        _, hung = await asyncio.wait([idle], timeout=patience)
        thread.shutdown(wait=not hung, cancel_futures=True)

    def _start_method(self, kind: str, method: str) -> None:
        runner = ByMethod(self._gradients, method)
        self._start(kind, runner, self._differentiation, self._settings.gradient_batch)

    def _start(self, kind: str, runner: Runner, lane: _Lane, max_batch: int) -> None:
        explains = kind not in ("predict", "perturb")
        method = self._methods.default if kind == "explain" or not explains else self._methods.find(kind)
        labels = {**self._labels, "kind": kind}
        queue = Batcher(
            runner,
            max_batch=max_batch,
            max_maps=lane.max_maps,
            capacity=self._settings.queue_capacity,
            lease=lane.lease,
            executor=lane.thread,
            map_per_target=method.class_specific,
            stage=lane.stage,
            attributes={f"konkyo.{name}": value for name, value in labels.items()},
            hang_seconds=self._settings.hang_seconds,
            on_execution=self._observer(labels, lane.stage),
        )
        queue.start()
        lane.queues.append(queue)
        self._queues[kind], self._lanes[kind] = queue, lane
        if self._published:
            self._show(kind, queue)

    def _show(self, kind: str, queue: Batcher) -> None:
        labels = {**self._labels, "kind": kind}
        self._metrics.queue_capacity.labels(**labels).set(queue.capacity)
        self._metrics.watch(self._metrics.queue_depth, partial(getattr, queue, "depth"), **labels)

    def _observer(self, labels: dict[str, str], stage: Stage) -> Callable[[Execution], None]:
        metrics = self._metrics
        executions, inferences = metrics.executions.labels(**labels), metrics.inferences.labels(**labels)
        batch_size, seconds = metrics.batch_size.labels(**labels), metrics.stage.labels(stage=stage)
        oom, errors = metrics.oom.labels(**self._labels), metrics.execution_errors.labels(**labels)

        def observe(execution: Execution) -> None:
            size = {**self._labels, "size": str(execution.size)}
            metrics.batches.labels(**size).inc()
            metrics.batch_seconds.labels(**size).inc(execution.seconds)
            executions.inc()
            inferences.inc(execution.size)
            batch_size.observe(execution.size)
            seconds.observe(execution.seconds)
            if execution.error is not None:
                errors.inc()
                if _is_out_of_memory(execution.error):
                    oom.inc()

        return observe


def _is_out_of_memory(error: Exception) -> bool:
    text = f"{type(error).__name__} {error}".lower()
    return (
        isinstance(error, MemoryError)
        or "outofmemory" in text
        or "out of memory" in text
        or "failed to allocate memory" in text  # ONNX Runtime's own words
        or "bad_alloc" in text
    )
