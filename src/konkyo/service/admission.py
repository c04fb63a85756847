"""How much work is let in at once, in forward passes; known before an image is decoded.

The memory of a request is bounded elsewhere (``budget``), and so is how many wait (``batcher``). Both are
silent about how long it takes: thirty-three passes for a gradient by 32 classes is one place in a queue, and
a photograph of fifty megapixels to be drawn over is no place at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from konkyo.errors import TooMuchWork
from konkyo.service.budget import Budget
from konkyo.service.metrics import Metrics
from konkyo.service.question import Plan, Question
from konkyo.service.settings import Settings

PIXELS_A_PASS = 1_000_000
"""Pixels whose decoding, or drawing, takes about as long as a small network's forward pass, on one CPU."""

MEMORY_SECONDS = 30.0
"""Of work behind an estimate of how fast it goes; what is older counts for less and less."""


def cost(plan: Plan, question: Question, pixels: int, drawn: int) -> int:
    """What an answer takes, in forward passes of one image.

    One pass gives the classes and, where it comes out of the graph, the map. A gradient takes as much again
    for each class. An edited map is answered beside the network's own. A long explanation costs nothing here:
    its images are counted apart.

    Args:
        pixels: of the image, as its header says; 0 where nothing is decoded.
        drawn: pixels of each picture.
    """
    passes = 1
    if plan.method is not None and not plan.shed:
        if plan.method.long:
            return 0
        passes += len(plan.targets) * plan.method.differentiates
        passes += question.attention is not None and not question.raw
    return passes + (pixels + drawn * plan.maps) // PIXELS_A_PASS


class Work(Budget):
    """Work that is let in, and how fast it gets done.

    Something larger than the limit is let in alone: it is the setting that is small, and the caller could
    wait for ever.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._since = 0.0
        self._seconds = 0.0
        self._done = 0.0

    @contextmanager
    def hold(self, amount: int) -> Iterator[None]:
        """Hold an amount for the length of the block; it is done where the block ends in order.

        Nothing is let in always, and measures nothing: it may go on for minutes beside an idle server.

        Raises:
            TooMuchWork: that would pass the limit.
        """
        if not amount:
            yield
            return
        with super().hold(amount):
            yield
            self.tell_done(amount)

    @contextmanager
    def hold_parts(self, amount: int) -> Iterator[Parts]:
        """The same for work that is done in parts. Raises ``TooMuchWork``."""
        self.take(amount)
        parts = Parts(self, amount)
        try:
            yield parts
        finally:
            self.release(parts.left)

    def take(self, amount: int) -> None:
        """Hold an amount until ``release``. Raises ``TooMuchWork`` if that would pass the limit."""
        super().take(amount)
        if self.held == amount:  # idle until now
            self._since = asyncio.get_running_loop().time()

    def tell_done(self, amount: int) -> None:
        """Learn how fast work gets done, while there is some."""
        now = asyncio.get_running_loop().time()
        self._seconds += now - self._since
        self._since = now
        self._done += amount
        if self._seconds > MEMORY_SECONDS:
            self._seconds, self._done = self._seconds / 2, self._done / 2

    def wait(self, amount: int) -> float | None:
        """Seconds until so much is done, None where nothing has been measured."""
        return amount * self._seconds / self._done if self._done else None

    def _fits(self, amount: int) -> bool:
        return not self.held or super()._fits(amount)

    def _refusal(self, amount: int) -> TooMuchWork:
        excess = min(self.held, self.held + amount - self.limit)
        return TooMuchWork(
            f"this takes {amount} forward passes, and {self.held} are under way; the limit is {self.limit}",
            wait=self.wait(excess), cost=amount, held=self.held, limit=self.limit,
        )  # fmt: skip


class Parts:
    """Work that is done in parts: each gives its place back."""

    def __init__(self, work: Work, amount: int) -> None:
        self.left = amount
        self._work = work

    def done(self, amount: int) -> None:
        """So much more of it is done."""
        self._work.tell_done(amount)
        self._work.release(amount)
        self.left -= amount


class Admission:
    """The work of one application.

    Long explanations have an account of their own: they go on for minutes and give way to everybody else
    after each batch, so that what they have left to do says nothing about how long an answer takes.

    Attributes:
        answers: forward passes of what is being answered, and its pixels.
        long: images that long explanations have still to send through a network.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.answers = Work(settings.work_capacity)
        self.long = Work(settings.long_work_capacity)
        for kind, work in (("answer", self.answers), ("long", self.long)):
            metrics.work_capacity.labels(kind=kind).set(work.limit)
            metrics.watch(metrics.work, partial(getattr, work, "held"), kind=kind)
