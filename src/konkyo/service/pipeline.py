"""The way of an image through the service, in one function: read ``Pipeline._answer``.

    bytes -> decode -> queue and forward pass -> render -> answer
    pixels ------------^

Whatever the protocol, each image goes this way, and each result passes ``Pipeline._finish`` once. Nothing
here knows HTTP.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import cv2
import numpy as np

from konkyo import rendering
from konkyo.errors import DeadlineUnreachable, QueueFull, TooMuchWork, UnsupportedMethod
from konkyo.imaging import UInt8, decoding_bytes, open_image
from konkyo.service import preparing
from konkyo.service.admission import Admission, cost
from konkyo.service.answers import ObserveMap, Prepared, classify, describe, explain, softmax
from konkyo.service.audit import Audit
from konkyo.service.batcher import Answer, Batcher
from konkyo.service.budget import MemoryBudget
from konkyo.service.engines.base import Float32
from konkyo.service.methods import Method
from konkyo.service.metrics import Metrics
from konkyo.service.model import Model
from konkyo.service.question import Plan, Question, make_plan
from konkyo.service.settings import Settings
from konkyo.service.tracing import current, span

T = TypeVar("T")

INLINE_PIXELS = 96 * 96
"""Images up to this size are decoded and rendered where they are: a hop to another thread would
take longer than the work."""

BYTES_A_PIXEL = 8
"""Bytes of a file whose header takes as long to read as a pixel to decode, at the worst."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of a question.

    Attributes:
        body: of the answer in JSON; of a raw question without maps and what is made of them.
        given: logits (N,) and maps (M, h, w) as they left the network.
        picture: the overlay, if a picture was asked for.
    """

    body: dict[str, Any]
    given: Answer
    picture: bytes | None = None


class Pipeline:
    """Decodes, asks a model, renders."""

    def __init__(
        self, settings: Settings, metrics: Metrics, budget: MemoryBudget, audit: Audit | None = None
    ) -> None:
        self.audit = audit or Audit(None, metrics)
        self.admission = Admission(settings, metrics)
        self._settings = settings
        self._metrics = metrics
        self._budget = budget
        cv2.setNumThreads(1)  # the workers are the parallelism; OpenCV's own threads only add hand-overs
        self._workers = ThreadPoolExecutor(settings.workers, thread_name_prefix="images")
        self._stages = {
            stage: metrics.stage.labels(stage=stage) for stage in ("decode", "preprocess", "render")
        }

    def close(self) -> None:
        """End the threads."""
        self._workers.shutdown(wait=True, cancel_futures=True)

    async def answer(self, model: Model, question: Question) -> Answered:
        """One image, one answer; counts how it ended.

        Raises:
            KonkyoError: whatever ``konkyo.errors`` names on the way of the data.
        """
        current().set("konkyo.model", model.name)
        current().set("konkyo.version", model.version)
        with self._metrics.counting(model.labels, question.verb):
            async with self.audit.recording(model, question) as record:
                answered = await self._answer(model, question)
                record.body = answered.body
        shed = question.verb == "explain" and answered.body["explanation"]["status"] == "shed"
        self._metrics.count(model.labels, question.verb, "shed" if shed else "success")
        return answered

    async def _answer(self, model: Model, question: Question) -> Answered:
        plan = make_plan(model, question)
        if plan.method is not None and plan.method.long:
            raise UnsupportedMethod(f"{plan.method.name} takes many passes and is no single answer")
        batcher = model.batcher(plan.queue)
        async with AsyncExitStack() as stack:
            try:
                batcher.check(question.deadline)  # a refusal after decoding would cost almost an answer
                seen = await stack.enter_async_context(self.prepare(model, question, plan))
            except (TooMuchWork, QueueFull, DeadlineUnreachable):
                if not self._sheds(question, plan):
                    raise
                plan, batcher = replace(plan, shed=True, targets=()), model.batcher("predict")
                batcher.check(question.deadline)
                seen = await stack.enter_async_context(self.prepare(model, question, plan))
            try:
                answers = await _submit(batcher, seen.pixels, plan.targets, question)
            except (QueueFull, DeadlineUnreachable):
                if not self._sheds(question, plan):
                    raise
                plan = replace(plan, shed=True, targets=())
                answers = await _submit(model.batcher("predict"), seen.pixels, (), question)
            with span("render"):
                return await self.render(model, question, plan, seen, answers)

    def _sheds(self, question: Question, plan: Plan) -> bool:
        """Whether the map may be given up: there is one to give up, and the answer is more than it."""
        return plan.maps > 0 and self._settings.shed and not question.picture and not question.raw

    @asynccontextmanager
    async def prepare(self, model: Model, question: Question, plan: Plan) -> AsyncIterator[Prepared]:
        """Decode an image within the limits, or take pixels as they are; what it takes is held meanwhile.

        Raises:
            Overloaded: too much is held already, or under way.
            ImageError: it is too large, or no image that is read.
        """
        started = time.perf_counter()
        if isinstance(question.data, np.ndarray):
            pixels = math.prod(question.data.shape[:2])
            work = cost(plan, question, 0, self._drawing_area(model, question, plan, pixels))
            memory = self._drawing_bytes(model, question, plan, pixels)
            with self.admission.answers.hold(work), self._budget.hold(memory):
                self._metrics.input_pixels.observe(pixels)
                yield preparing.as_it_is(question.data, started)
            return
        with ExitStack() as held:
            with span("decode"):
                reading = partial(open_image, max_pixels=self._settings.max_pixels)
                # A large file may be all header.
                opened = await self.offload(question.nbytes // BYTES_A_PIXEL, reading, question.data)
                pixels = opened.width * opened.height
                work = cost(plan, question, pixels, self._drawing_area(model, question, plan, pixels))
                held.enter_context(self.admission.answers.hold(work))
                self._metrics.input_bytes.observe(question.nbytes)
                self._metrics.input_pixels.observe(pixels)
                keep = plan.maps > 0 and preparing.needs_original(question)
                memory = decoding_bytes(opened) + 3 * pixels * keep
                memory += self._drawing_bytes(model, question, plan, pixels)
                held.enter_context(self._budget.hold(memory))  # all at once: refused before anything is done
                seen = await self.offload(pixels, preparing.decoded, model, opened, keep, started)
            self._stages["decode"].observe(seen.decode_seconds)
            self._stages["preprocess"].observe(seen.preprocess_seconds)
            yield seen

    async def render(
        self, model: Model, question: Question, plan: Plan, seen: Prepared, answers: Sequence[Answer]
    ) -> Answered:
        """The answer to a question.

        Args:
            answers: the one by which it is answered, and a second, to the same image without the caller's
                edit, where there was one.

        Raises:
            InvalidParameter: the picture is longer than its format allows.
        """
        computed = time.perf_counter()
        answer = answers[0]
        own = None if question.raw and question.attention is not None else answers[-1]
        body = describe(model, question, plan, answer, seen)
        parts = [body]
        if len(answers) > 1 and not question.picture:
            body["original"] = classify(model.bundle.card, answers[-1], question.options.top_k)
            parts.append(body["original"])
        if own is not None:
            self._observe(model, own)
        picture = None
        for part, given in zip(parts, answers, strict=False):
            if plan.method is not None and plan.shed:
                part["explanation"] = {"method": plan.method.name, "status": "shed", "target": None}
            elif plan.method is not None:
                observe = self._map_observer(model, plan.method) if given is own else None
                work = partial(explain, max_pixels=self._settings.max_render_pixels, observe=observe)
                area = self._drawing_area(model, question, plan, math.prod(seen.geometry.original))
                pixels = max(area * plan.maps, given.maps.size)
                part["explanation"], drawn = await self.offload(
                    pixels, work, model, question, plan, given, seen
                )
                picture = picture or drawn
        answered = Answered(body, answer, picture)
        self._finish(answered, model, question, plan, seen, time.perf_counter() - computed)
        return answered

    def _finish(
        self,
        answered: Answered,
        model: Model,
        question: Question,
        plan: Plan,
        seen: Prepared,
        rendering: float,
    ) -> None:
        """Times, in the body and in the metrics; every result comes by here once."""
        answer = answered.given
        names = model.labels.values()  # by their places: to look a metric up by names takes longer than it
        self._metrics.queue_seconds.labels(*names, plan.queue).observe(answer.queue_seconds)
        self._stages["render"].observe(rendering)
        seconds = {
            "decode": seen.decoded - seen.started,
            "queue": answer.queue_seconds,
            "forward": answer.forward_seconds,
            "explain": answer.explain_seconds,
            "render": rendering,
            "total": time.perf_counter() - seen.started,
        }
        phases = {
            "success": seconds["total"],
            "compute_input": seconds["decode"],
            "compute_infer": answer.forward_seconds + answer.explain_seconds,
            "compute_output": rendering,
        }
        for phase, value in phases.items():
            self._metrics.inference_seconds.labels(*names, phase).inc(value)
        self._metrics.last_inference.labels(*names).set_to_current_time()
        answered.body["timing_ms"] = {stage: value * 1e3 for stage, value in seconds.items()}

    def _drawing_area(self, model: Model, question: Question, plan: Plan, pixels: int) -> int:
        return preparing.drawing_area(model, question, plan, pixels, self._settings.max_render_pixels)

    def _drawing_bytes(self, model: Model, question: Question, plan: Plan, pixels: int) -> int:
        return preparing.drawing_bytes(model, plan, self._drawing_area(model, question, plan, pixels))

    async def offload(self, pixels: int, work: Callable[..., T], *arguments: Any) -> T:
        """Do work on so many pixels, in a thread unless it is little."""
        if pixels <= INLINE_PIXELS:
            return work(*arguments)
        run = copy_context().run  # what it logs is of this request
        return await asyncio.get_running_loop().run_in_executor(self._workers, run, work, *arguments)

    def _observe(self, model: Model, own: Answer) -> None:
        """Watch what the network makes of the data; a caller's edit is no part of that."""
        label = model.bundle.card.labels[int(own.logits.argmax())]
        names = model.labels.values()
        self._metrics.prediction_score.labels(*names).observe(float(softmax(own.logits).max()))
        self._metrics.predictions.labels(*names, label).inc()

    def _map_observer(self, model: Model, method: Method) -> ObserveMap:
        """Counts maps that show nothing; entropies are of the own method alone, so that they compare."""
        entropy = self._metrics.map_entropy.labels(**model.labels) if method.default else None

        def observe(map_: Float32, state: rendering.Status) -> None:
            if state != "ok":
                self._metrics.degenerate_maps.labels(method=method.name, reason=state).inc()
            if entropy is not None:
                entropy.observe(rendering.entropy(map_))

        return observe


async def _submit(
    batcher: Batcher, pixels: UInt8, targets: tuple[int, ...], question: Question
) -> list[Answer]:
    """The answer; with a caller's edit a second, the one without it, unless the question is raw.

    Both wait together, and so normally share a batch.

    Raises:
        KonkyoError: of the first that fails; the other is given up.
    """
    if question.attention is None or question.raw:
        edit = question.attention
        return [await batcher.submit(pixels, targets, attention=edit, deadline=question.deadline)]
    tasks = [
        asyncio.create_task(batcher.submit(pixels, targets, attention=edit, deadline=question.deadline))
        for edit in (question.attention, None)
    ]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
