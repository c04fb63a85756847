"""Explanations by many predictions, as work for a job: read ``Perturbing._explain``.

    bytes -> decode -> (perturb -> queue and forward pass -> add up) x batches -> render -> answer

The images go through a queue of their own, a batch at a time, so that whoever waits for a prediction
waits for one of them at most; several jobs take turns.
"""

from __future__ import annotations

import asyncio
import math
import time
from functools import partial
from weakref import WeakKeyDictionary

import numpy as np

from konkyo.errors import DeadlineExceeded, InvalidParameter
from konkyo.imaging import UInt8
from konkyo.perturbation import methods
from konkyo.perturbation.base import Perturbation
from konkyo.service.answers import Prepared, explain
from konkyo.service.batcher import Answer, Batcher
from konkyo.service.budget import MemoryBudget
from konkyo.service.jobs import Body, Job, Work
from konkyo.service.long_options import LongOptions
from konkyo.service.model import Model
from konkyo.service.pipeline import Pipeline
from konkyo.service.question import Plan, Question, make_plan
from konkyo.service.settings import Settings
from konkyo.service.tracing import span, span_together

MAKING_BYTES, SUM_BYTES = 48, 8
"""Bytes a pixel of the input: of the image, what is under it and a mask in float32 while perturbed
images are made; and of each sum."""


class Perturbing:
    """Asks a model about many versions of an image, and makes one answer of it."""

    def __init__(self, settings: Settings, budget: MemoryBudget, pipeline: Pipeline) -> None:
        self._settings = settings
        self._budget = budget
        self._pipeline = pipeline
        self._turns: WeakKeyDictionary[Batcher, asyncio.Lock] = WeakKeyDictionary()

    def work(self, model: Model, question: Question) -> Work:
        """What a job has to do for a question, whose options are ``LongOptions``.

        It raises ``DeadlineExceeded``, and whatever ``konkyo.errors`` names on the way of the data.
        """

        async def run(job: Job) -> Body:
            with model.hold():  # a job outlives the request that holds the model
                async with self._pipeline.audit.recording(model, question) as record:
                    record.body = await self._within_deadline(job, model, question)
                    return record.body

        return run

    async def _within_deadline(self, job: Job, model: Model, question: Question) -> Body:
        try:
            async with asyncio.timeout_at(question.deadline):
                return await self._explain(job, model, question)
        except TimeoutError:
            raise DeadlineExceeded("the deadline passed before the explanation was complete") from None

    async def _explain(self, job: Job, model: Model, question: Question) -> Body:
        options, card = question.options, model.bundle.card
        assert isinstance(options, LongOptions)
        plan = make_plan(model, question)
        batcher = model.batcher(plan.queue)
        kind = methods()[job.method]
        parameters = options.parameters(kind.parameters)
        images = 1 + kind.count((card.input.height, card.input.width), parameters)
        if images > self._settings.max_perturbations:
            raise InvalidParameter(
                f"{job.method} would send {images} images through the network; "
                f"the limit is {self._settings.max_perturbations}",
                images=images, limit=self._settings.max_perturbations,
            )  # fmt: skip
        size = min(self._settings.perturbation_batch, self._settings.queue_capacity)
        pixels = card.input.height * card.input.width
        memory = pixels * (MAKING_BYTES + 3 * size + SUM_BYTES * (len(plan.targets) + 1))
        long = self._pipeline.admission.long
        with long.hold_parts(images) as parts, self._budget.hold(question.nbytes + memory):
            async with self._pipeline.prepare(model, question, plan) as seen:
                explanation = kind(seen.pixels, plan.targets, parameters)
                job.begin(explanation.total)
                steps = _Steps(self._pipeline, batcher, self._turn(batcher), explanation, size)
                while explanation.done < explanation.total:
                    parts.done(await steps.next())
                    interim = None
                    if options.interim and explanation.done < explanation.total:
                        interim = await self._interim(model, question, plan, seen, steps.answer())
                    job.progress(explanation.done, interim)
                with span("render"):
                    return (await self._pipeline.render(model, question, plan, seen, [steps.answer()])).body

    async def _interim(
        self, model: Model, question: Question, plan: Plan, seen: Prepared, answer: Answer
    ) -> Body:
        work = partial(explain, max_pixels=self._settings.max_render_pixels)
        pixels = math.prod(seen.geometry.original) * plan.maps
        explanation, _ = await self._pipeline.offload(pixels, work, model, question, plan, answer, seen)
        return explanation

    def _turn(self, batcher: Batcher) -> asyncio.Lock:
        return self._turns.setdefault(batcher, asyncio.Lock())


class _Steps:
    """One explanation, batch by batch, with the times that takes in seconds."""

    def __init__(
        self, pipeline: Pipeline, batcher: Batcher, turn: asyncio.Lock, explanation: Perturbation, size: int
    ) -> None:
        self._pipeline = pipeline
        self._batcher = batcher
        self._turn = turn
        self._explanation = explanation
        self._size = size
        self._work = size * math.prod(explanation.image.shape[:2])
        self._queue_seconds = self._forward_seconds = self._explain_seconds = 0.0

    async def next(self) -> int:
        """Ask about the next batch; returns how many images it had."""
        offload, began = self._pipeline.offload, time.perf_counter()
        images = await offload(self._work, self._explanation.take, self._size)
        made = time.perf_counter()
        async with self._turn:
            with span_together("step", {"konkyo.batch.size": len(images)}):
                given = await _submit(self._batcher, images)
        answered = time.perf_counter()
        logits = np.stack([answer.logits for answer in given])
        await offload(self._work, self._explanation.feed, logits)
        self._queue_seconds += max(answer.queue_seconds for answer in given)
        self._forward_seconds += sum(answer.forward_seconds / answer.batch_size for answer in given)
        self._explain_seconds += made - began + time.perf_counter() - answered
        return len(images)

    def answer(self) -> Answer:
        """By what is done, as if one pass had given it."""
        explanation = self._explanation
        assert explanation.logits is not None
        return Answer(
            np.asarray(explanation.logits, np.float32),
            explanation.maps,
            min(self._size, explanation.total),
            self._queue_seconds,
            self._forward_seconds,
            self._explain_seconds,
        )


async def _submit(batcher: Batcher, images: UInt8) -> list[Answer]:
    """The answers to images that wait together, and so share a batch.

    Raises:
        KonkyoError: of the first that fails; the others are given up.
    """
    tasks = [asyncio.create_task(batcher.submit(image)) for image in images]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
