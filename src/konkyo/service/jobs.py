"""Work that outlives a request: started by one, watched or polled by others, and cancellable.

Whoever starts a job waits until it has begun: what is wrong with the request is found until then, and
is the answer to it. From then on it is ``queued`` until its first batch has come back, ``running``, and in
the end ``done``, ``failed`` or ``cancelled``. How many work at once, how many results are kept and for how
long is bounded by the settings; a result that is kept counts against the memory budget.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any, Literal

from pydantic_core import to_json

from konkyo.errors import Draining, KonkyoError, TooManyJobs, UnknownJob
from konkyo.service.budget import MemoryBudget
from konkyo.service.metrics import Metrics
from konkyo.service.settings import Settings
from konkyo.service.tracing import span_apart

logger = logging.getLogger(__name__)

State = Literal["queued", "running", "done", "failed", "cancelled"]
Body = dict[str, Any]
Work = Callable[["Job"], Coroutine[Any, Any, Body]]
"""Does the job, telling it of its progress, and returns the body of the answer."""

KIND = "perturb"
"""Kind of these requests, in the metrics and of their queue."""


class Job:
    """One piece of work.

    Attributes:
        id: 128 random bits; who knows it may read the result.
        model: name and version, as in metrics.
        method: the explanation's name.
        total: images that go through the network; 0 before it has begun.
        done: of them.
        interim: the explanation by what is done, where that was asked for.
        result: body of the answer, once ``done``.
        error: what went wrong, once ``failed``.
    """

    def __init__(self, model: dict[str, str], method: str) -> None:
        self.id = secrets.token_hex(16)
        self.model = model
        self.method = method
        self.total = 0
        self.done = 0
        self.interim: Body | None = None
        self.state: State = "queued"
        self.result: Body | None = None
        self.error: KonkyoError | None = None
        self._changed = asyncio.Event()

    @property
    def ended(self) -> bool:
        """Whether nothing changes any more."""
        return self.state not in ("queued", "running")

    def begin(self, total: int) -> None:
        """Tell that nothing is wrong with the request, and how many images it takes."""
        self.total = total
        self._tell()

    def progress(self, done: int, interim: Body | None = None) -> None:
        """Tell how many images are done."""
        self.state, self.done, self.interim = "running", done, interim
        self._tell()

    def end(self, state: State, *, result: Body | None = None, error: KonkyoError | None = None) -> None:
        """Tell how it ended."""
        self.state, self.result, self.error, self.interim = state, result, error, None
        self._tell()

    async def begun(self) -> None:
        """Until it has begun, or ended without."""
        while not self.total and not self.ended:
            await self._changed.wait()

    async def watch(self, patience: float) -> AsyncIterator[bool]:
        """True now and after every change up to the end, False whenever ``patience`` seconds bring none.

        Who is slow to ask misses what was overtaken, never the end.
        """
        changed = True
        while True:
            event, ended = self._changed, self.ended
            yield changed or ended
            if ended:
                return
            try:
                async with asyncio.timeout(patience):
                    await event.wait()
                changed = True
            except TimeoutError:
                changed = False

    def body(self) -> Body:
        """The job as JSON."""
        return {
            "id": self.id,
            "model": self.model["model"],
            "version": self.model["version"],
            "method": self.method,
            "state": self.state,
            "progress": {"done": self.done, "total": self.total},
            "result": self.result,
            "error": self.error.body()["error"] if self.error else None,
        }

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class Jobs:
    """The jobs of one application."""

    def __init__(self, settings: Settings, metrics: Metrics, budget: MemoryBudget) -> None:
        self._settings = settings
        self._metrics = metrics
        self._budget = budget
        self._working: dict[Job, asyncio.Task[Body]] = {}
        self._known: dict[str, Job] = {}
        self._kept: dict[str, tuple[int, asyncio.TimerHandle]] = {}  # oldest first: bytes, and the expiry
        self._closing = False
        metrics.watch(metrics.jobs, lambda: len(self._working))

    async def start(self, job: Job, work: Work, *, keep: bool) -> None:
        """Begin a job, and wait until it has begun.

        Args:
            job: not begun yet.
            work: what to do; calls ``job.begin`` once nothing is wrong with the request.
            keep: whether it can be found by its id, and for how long its result.

        Raises:
            TooManyJobs, Draining: refused; nothing was done.
            KonkyoError: it could not begin.
        """
        with self._metrics.counting(job.model, KIND):
            self._refuse()
        task = asyncio.get_running_loop().create_task(_traced(job, work), name=f"job-{job.id}")
        self._working[job] = task
        if keep:
            self._known[job.id] = job
        task.add_done_callback(partial(self._end, job))
        try:
            await job.begun()
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not job.total:
            raise job.error or Draining("the service is shutting down")

    def find(self, identity: str) -> Job:
        """A job by its id. Raises ``UnknownJob``."""
        try:
            return self._known[identity]
        except KeyError:
            raise UnknownJob("there is no such job, or its result has expired") from None

    async def cancel(self, job: Job) -> None:
        """Stop what is at work before its next batch; forget what has ended."""
        task = self._working.get(job)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        elif job.id in self._kept:
            self._forget(job.id)

    async def close(self) -> None:
        """Cancel everything: nobody can ask for a result any more."""
        self._closing = True
        for task in self._working.values():
            task.cancel()
        await asyncio.gather(*self._working.values(), return_exceptions=True)
        for identity in list(self._kept):
            self._forget(identity)

    def _refuse(self) -> None:
        capacity = self._settings.job_capacity
        if self._closing:
            raise Draining("the service is shutting down")
        if len(self._working) >= capacity:
            raise TooManyJobs(f"{capacity} long explanations are at work already", capacity=capacity)

    def _end(self, job: Job, task: asyncio.Task[Body]) -> None:
        del self._working[job]
        if not job.total:  # it never began; its error is the answer to the request
            self._known.pop(job.id, None)
        kept, size = job.id in self._known, 0
        try:
            with self._metrics.counting(job.model, KIND):
                result = task.result()
                if kept:
                    needed = len(to_json(result, inf_nan_mode="null"))
                    self._budget.take(needed)
                    size = needed
        except asyncio.CancelledError:
            job.end("cancelled")
        except KonkyoError as error:
            job.end("failed", error=error)
        except Exception:
            logger.exception("job %s failed", job.id)
            job.end("failed", error=KonkyoError("an unexpected error; the log has it"))
        else:
            self._metrics.count(job.model, KIND, "success")
            job.end("done", result=result)
        if kept:
            lifetime = self._settings.job_ttl_seconds
            timer = asyncio.get_running_loop().call_later(lifetime, self._forget, job.id)
            self._kept[job.id] = size, timer
            if len(self._kept) > self._settings.job_results:
                self._forget(next(iter(self._kept)))

    def _forget(self, identity: str) -> None:
        size, timer = self._kept.pop(identity)
        timer.cancel()
        self._budget.release(size)
        del self._known[identity]


async def _traced(job: Job, work: Work) -> Body:
    """Do the work in a trace of its own, which may be longer than that of the request."""
    attributes = {f"konkyo.{name}": value for name, value in job.model.items()}
    with span_apart("job", {**attributes, "konkyo.method": job.method}):  # not its id, which opens its result
        return await work(job)
