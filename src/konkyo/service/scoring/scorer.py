"""The images of one shard through the pipeline: read ``Scorer.run``."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from konkyo.errors import BodyTooLarge, ImageError, InferenceFailed, KonkyoError, Overloaded, Unavailable
from konkyo.service.budget import MemoryBudget
from konkyo.service.jobs import Job
from konkyo.service.model import Model
from konkyo.service.perturbing import Perturbing
from konkyo.service.pipeline import Pipeline
from konkyo.service.question import Plan, Question, make_plan
from konkyo.service.schemas import PredictOptions
from konkyo.service.scoring.part import Part
from konkyo.service.scoring.pictures import write_pictures
from konkyo.service.settings import Settings

logger = logging.getLogger(__name__)

Line = dict[str, Any]

LISTED = 64
"""Names taken at a time from the listing, which runs in a thread."""

SAID_EVERY = 10.0
"""Seconds between two lines of the log."""

OF_A_REQUEST = ("id", "timing_ms", "batch_size")
"""What of an answer says nothing about the image."""


@dataclass
class Count:
    """What one run has done: images with a line, and of those the failed."""

    images: int = 0
    failed: int = 0


class Scorer:
    """Asks a model about many images, and writes a line for each.

    Args:
        model: loaded.
        options: the same for every image.
        root: folder of the images.
        out: folder of the results.

    Raises:
        KonkyoError: the model cannot be asked so.
    """

    def __init__(
        self,
        model: Model,
        options: PredictOptions,
        settings: Settings,
        pipeline: Pipeline,
        perturbing: Perturbing,
        budget: MemoryBudget,
        root: Path,
        out: Path,
    ) -> None:
        self._model = model
        self._options = options
        self._settings = settings
        self._pipeline = pipeline
        self._perturbing = perturbing
        self._budget = budget
        self._root = root
        self._out = out
        plan = make_plan(model, Question("", b"", options))
        self._long = plan.method is not None and plan.method.long
        self._width = _width(plan, settings)
        self._asking = 0
        self._freed = asyncio.Event()
        self.count = Count()

    async def run(self, names: Iterator[str], part: Part, stop: asyncio.Event) -> bool:
        """Give every image its line, in the order of the names; returns whether all have it.

        Twice as many images are under way as one batch takes, so that the next is decoded while one is
        computed. Once ``stop`` is set no other begins, and those under way get their lines.

        Raises:
            KonkyoError: the model answers nobody any more.
            OSError: the results cannot be written.
        """
        under_way: deque[asyncio.Task[Line]] = deque()
        said, complete = time.monotonic(), True
        try:
            async for name in _listed(names):
                if stop.is_set():
                    complete = False
                    break
                under_way.append(asyncio.create_task(self._line(name)))
                if len(under_way) == self._width:
                    self._add(part, await under_way.popleft())
                if time.monotonic() - said > SAID_EVERY:
                    said = time.monotonic()
                    logger.info("%s images, %s failed", self.count.images, self.count.failed)
            while under_way:
                self._add(part, await under_way.popleft())
            return complete
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    def _add(self, part: Part, line: Line) -> None:
        part.append(line)
        self.count.images += 1
        self.count.failed += "error" in line

    async def _line(self, name: str) -> Line:
        """What became of an image; an error of its own is part of that."""
        line: Line = {"image": name, "sha256": None}
        try:
            body = await self._ask_when_there_is_room(name, line)
            if "explanation" in body:
                write = asyncio.to_thread(write_pictures, self._out, name, body["explanation"])
                body["explanation"] = await write
            return line | {key: value for key, value in body.items() if key not in OF_A_REQUEST}
        except Unavailable:
            raise
        except KonkyoError as error:
            if isinstance(error, InferenceFailed):
                await self._model.run_canary()  # raises where it is the engine that is broken
            model = {"name": self._model.name, "version": self._model.version}
            return line | {"model": {**model, "digest": self._model.bundle.digest}} | error.body()

    async def _ask_when_there_is_room(self, name: str, line: Line) -> dict[str, Any]:
        """The answer. An image that is refused for want of memory waits until another is done."""
        while True:
            data, line["sha256"] = await asyncio.to_thread(self._read, name)
            try:
                with self._taking_room(), self._budget.hold(len(data)):
                    return await self._ask(Question(name, data, self._options))
            except Overloaded:
                if not self._asking:  # it had all there is
                    raise
            await self._freed.wait()

    @contextmanager
    def _taking_room(self) -> Iterator[None]:
        """Tell those who wait once the room is free again; who was refused frees none."""
        self._asking += 1
        refused = False
        try:
            yield
        except Overloaded:
            refused = True
            raise
        finally:
            self._asking -= 1
            if not refused or not self._asking:
                self._freed.set()
                self._freed = asyncio.Event()

    async def _ask(self, question: Question) -> dict[str, Any]:
        if self._long:
            work = self._perturbing.work(self._model, question)
            return await work(Job(self._model.labels, str(getattr(self._options, "method", None))))
        return (await self._pipeline.answer(self._model, question)).body

    def _read(self, name: str) -> tuple[bytes, str]:
        """The bytes of a file and their SHA-256, in hexadecimal digits.

        Raises:
            BodyTooLarge: more bytes than the service would read.
            ImageError: it cannot be read.
        """
        limit = self._settings.max_body_bytes
        if name.endswith("/"):
            raise ImageError("this folder cannot be listed")
        try:
            with (self._root / name).open("rb") as file:
                data = file.read(limit + 1)
        except OSError as error:
            raise ImageError(f"the file cannot be read: {error.strerror}") from None
        if len(data) > limit:
            raise BodyTooLarge(f"the file has over {limit} bytes", limit_bytes=limit)
        return data, hashlib.sha256(data).hexdigest()


async def _listed(names: Iterator[str]) -> AsyncIterator[str]:
    while some := await asyncio.to_thread(lambda: list(islice(names, LISTED))):
        for name in some:
            yield name


def _width(plan: Plan, settings: Settings) -> int:
    """Images under way at once."""
    if plan.method is not None and plan.method.long:
        return settings.workers
    differentiates = plan.method is not None and plan.method.differentiates
    batch = settings.gradient_batch if differentiates else settings.max_batch
    return min(2 * batch + settings.workers, settings.queue_capacity)
