"""The way of an image through the service, in one function: read ``Pipeline._answer``.

    bytes -> decode -> queue and forward pass -> render -> answer

Nothing here knows HTTP.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import cv2
import numpy as np
from PIL import Image

from konkyo.errors import QueueFull, UnsupportedMethod
from konkyo.imaging import UInt8, decode, open_image
from konkyo.service import rendering
from konkyo.service.answers import ObserveMap, Prepared, classify, describe, explain, softmax
from konkyo.service.batcher import Answer, Batcher
from konkyo.service.budget import MemoryBudget
from konkyo.service.engines.base import Float32
from konkyo.service.methods import Method
from konkyo.service.metrics import Metrics
from konkyo.service.model import Model
from konkyo.service.question import Plan, Question, make_plan
from konkyo.service.schemas import ExplainOptions
from konkyo.service.settings import Settings

T = TypeVar("T")

INLINE_PIXELS = 96 * 96
"""Images up to this size are decoded and rendered where they are: a hop to another thread would
take longer than the work."""

PICTURE_BYTES = 32
"""Bytes a pixel while a picture is drawn: a map, colours and a product in float32, and the file."""

AT_INPUT_SIZE = ("class_weight_map", "input_gradient", "score_drop", "saliency_map")
"""Kinds of maps as fine as the input, which take memory before any picture is drawn."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The JSON body of an answer, and the overlay if a picture was asked for."""

    body: dict[str, Any]
    picture: bytes | None = None


class Pipeline:
    """Decodes, asks a model, renders."""

    def __init__(self, settings: Settings, metrics: Metrics, budget: MemoryBudget) -> None:
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
        with self._metrics.counting(model.labels, question.verb):
            answered = await self._answer(model, question)
        shed = question.verb == "explain" and answered.body["explanation"]["status"] == "shed"
        self._metrics.count(model.labels, question.verb, "shed" if shed else "success")
        return answered

    async def _answer(self, model: Model, question: Question) -> Answered:
        plan = make_plan(model, question)
        if plan.method is not None and plan.method.long:
            raise UnsupportedMethod(f"{plan.method.name} takes many passes and is no single answer")
        batcher = model.batcher(plan.queue)
        async with self.prepare(model, question, plan) as seen:
            try:
                answers = await _submit(batcher, seen.pixels, plan.targets, question)
            except QueueFull:
                if question.verb == "predict" or not self._settings.shed or question.picture:
                    raise
                plan = replace(plan, shed=True)
                answers = await _submit(model.batcher("predict"), seen.pixels, (), question)
            return await self.render(model, question, plan, seen, answers)

    @asynccontextmanager
    async def prepare(self, model: Model, question: Question, plan: Plan) -> AsyncIterator[Prepared]:
        """Decode an image within the limits; what it takes is held while the block runs.

        Raises:
            Overloaded: too much is held already.
            ImageError: it is too large, or no image that is read.
        """
        started = time.perf_counter()
        opened = open_image(question.data, max_pixels=self._settings.max_pixels)
        pixels = opened.width * opened.height
        self._metrics.input_bytes.observe(len(question.data))
        self._metrics.input_pixels.observe(pixels)
        cost = 3 * pixels + self._drawing(model, question, plan, pixels)
        with self._budget.hold(cost):  # all at once: refused before anything is done
            seen = await self.offload(pixels, _decode, model, opened, _needs_original(question), started)
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
        answer, own = answers[0], answers[-1]
        body = describe(model, question, plan, answer, seen)
        parts = [body]
        if len(answers) > 1 and not question.picture:
            body["original"] = classify(model.bundle.card, own, question.options.top_k)
            parts.append(body["original"])
        self._observe(model, own)
        picture = None
        for part, given in zip(parts, answers, strict=False):
            if plan.method is not None and plan.shed:
                part["explanation"] = {"method": plan.method.name, "status": "shed", "target": None}
            elif plan.method is not None:
                observe = self._map_observer(model, plan.method) if given is own else None
                work = partial(explain, max_pixels=self._settings.max_render_pixels, observe=observe)
                pixels = self._area(model, question, plan, math.prod(seen.geometry.original)) * plan.maps
                part["explanation"], drawn = await self.offload(
                    pixels, work, model, question, plan, given, seen
                )
                picture = picture or drawn
        self._finish(body, model, plan, seen, answer, time.perf_counter() - computed)
        return Answered(body, picture)

    def _finish(
        self, body: dict[str, Any], model: Model, plan: Plan, seen: Prepared, answer: Answer, rendering: float
    ) -> None:
        """Times, in the body and in the metrics."""
        self._metrics.queue_seconds.labels(**model.labels, kind=plan.queue).observe(answer.queue_seconds)
        self._stages["render"].observe(rendering)
        seconds = {
            "decode": seen.decoded - seen.started,
            "queue": answer.queue_seconds,
            "forward": answer.forward_seconds,
            "explain": answer.explain_seconds,
            "render": rendering,
            "total": time.perf_counter() - seen.started,
        }
        body["timing_ms"] = {stage: value * 1e3 for stage, value in seconds.items()}

    def _drawing(self, model: Model, question: Question, plan: Plan, pixels: int) -> int:
        """Bytes that the maps and their pictures take, of an image of so many pixels."""
        if plan.method is None:
            return 0
        spec = model.bundle.card.input
        fine = 4 * spec.width * spec.height if plan.method.map_kind in AT_INPUT_SIZE else 0
        area = self._area(model, question, plan, pixels)
        return fine * plan.maps + area * (PICTURE_BYTES + 3 * plan.maps) * plan.method.draws

    def _area(self, model: Model, question: Question, plan: Plan, pixels: int) -> int:
        """Pixels of each picture, and so the work and the memory of drawing it."""
        if plan.method is None or not plan.method.draws:
            return 0
        spec, options = model.bundle.card.input, question.options
        original = isinstance(options, ExplainOptions) and options.frame == "original"
        return max(spec.width * spec.height, min(pixels, self._settings.max_render_pixels) if original else 0)

    async def offload(self, pixels: int, work: Callable[..., T], *arguments: Any) -> T:
        """Do work on so many pixels, in a thread unless it is little."""
        if pixels <= INLINE_PIXELS:
            return work(*arguments)
        return await asyncio.get_running_loop().run_in_executor(self._workers, work, *arguments)

    def _observe(self, model: Model, own: Answer) -> None:
        """Watch what the network makes of the data; a caller's edit is no part of that."""
        label = model.bundle.card.labels[int(own.logits.argmax())]
        self._metrics.prediction_score.labels(**model.labels).observe(float(softmax(own.logits).max()))
        self._metrics.predictions.labels(**model.labels, label=label).inc()

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
    """The answer; with a caller's edit a second, the one without it.

    Both wait together, and so normally share a batch.

    Raises:
        KonkyoError: of the first that fails; the other is given up.
    """
    if question.attention is None:
        return [await batcher.submit(pixels, targets, deadline=question.deadline)]
    tasks = [
        asyncio.create_task(batcher.submit(pixels, targets, attention=edit, deadline=question.deadline))
        for edit in (question.attention, None)
    ]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _decode(model: Model, opened: Image.Image, keep_original: bool, started: float) -> Prepared:
    began = time.perf_counter()
    image = decode(opened)
    decoded = time.perf_counter()
    pixels, geometry = model.prepare(image)
    done = time.perf_counter()
    original = np.asarray(image.image) if keep_original else None
    return Prepared(pixels, geometry, original, started, done, decoded - began, done - decoded)


def _needs_original(question: Question) -> bool:
    options = question.options
    if not isinstance(options, ExplainOptions) or options.frame != "original":
        return False
    return question.picture is not None or options.overlay not in (None, "none")
