"""What the tests of the service inject: engines that wait at a gate or fail, and a clock set by hand."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

from konkyo.models.bundle import Bundle
from konkyo.service.engines.base import Float32, Int64, Outputs, UInt8
from konkyo.service.engines.fake import FakeEngine

PATIENCE = 20
"""Seconds after which a test gives up; no test that passes waits for it."""


class Gate:
    """Where an engine waits while the test arranges the queue; open at first."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()
        self._entered = threading.Semaphore(0)

    def shut(self) -> None:
        """Let nobody through from now on."""
        self._open.clear()
        while self._entered.acquire(blocking=False):
            pass

    def open(self) -> None:
        """Let all through."""
        self._open.set()

    def pass_through(self) -> None:
        """For the engine, in its thread."""
        self._entered.release()
        if not self._open.wait(PATIENCE):
            raise TimeoutError("the test left the gate shut")

    async def entered(self) -> None:
        """Until the engine stands at the shut gate."""
        assert await asyncio.to_thread(self._entered.acquire, timeout=PATIENCE)


Fault = Callable[[UInt8, Outputs], Outputs]
"""Turns what the engine would answer into something else, or raises."""


class FaultyEngine(FakeEngine):
    """The fake engine behind a gate, and with a fault if ``fault`` is set."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self.gate = Gate()
        self.fault: Fault | None = None
        self.batches: list[UInt8] = []
        self.closed = False

    def close(self) -> None:
        self.closed = True

    def run(self, images: UInt8, targets: Int64, attention: Float32 | None = None) -> Outputs:
        self.gate.pass_through()
        self.batches.append(images)
        outputs = super().run(images, targets, attention)
        return self.fault(images, outputs) if self.fault else outputs

    def saw(self, image: UInt8) -> bool:
        """Whether the image was in any batch."""
        return any((image == batch).all(axis=(1, 2, 3)).any() for batch in self.batches)


def broken(images: UInt8, outputs: Outputs) -> Outputs:
    """A fault: nothing works."""
    raise RuntimeError("injected")


class Clock:
    """The running loop's time, which stands still but where the test moves it: nothing is too slow for it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._now = self._loop.time()
        self._loop.time = self.now  # type: ignore[method-assign]

    def now(self) -> float:
        return self._now

    async def advance(self, seconds: float) -> None:
        """Move on, and let the timers that are due fire."""
        self._now += seconds
        for _ in range(3):
            await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until the condition holds."""
    give_up = time.monotonic() + PATIENCE  # the loop's own time may stand still
    while not condition():
        assert time.monotonic() < give_up
        await asyncio.sleep(0)
