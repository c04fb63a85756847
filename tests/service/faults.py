"""What the tests of the service inject: engines that wait at a gate, a clock set by hand, and a
caller who sends and hears ASGI messages one by one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from fastapi import FastAPI

from konkyo.models.bundle import Bundle
from konkyo.service.app import create_app
from konkyo.service.engines import EngineFactory
from konkyo.service.engines.base import Int64, Outputs, UInt8
from konkyo.service.engines.fake import FakeEngine
from konkyo.service.model import Model
from konkyo.service.settings import Settings

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

    def run(self, images: UInt8, targets: Int64) -> Outputs:
        self.gate.pass_through()
        self.batches.append(images)
        outputs = super().run(images, targets)
        return self.fault(images, outputs) if self.fault else outputs

    def saw(self, image: UInt8) -> bool:
        """Whether the image was in any batch."""
        return any((image == batch).all(axis=(1, 2, 3)).any() for batch in self.batches)


def broken(images: UInt8, outputs: Outputs) -> Outputs:
    """A fault: nothing works."""
    raise RuntimeError("injected")


class Clock:
    """The running loop's time: real, plus what the test adds; or still."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._real = self._loop.time
        self._ahead = 0.0
        self._loop.time = lambda: self._real() + self._ahead  # type: ignore[method-assign]

    def now(self) -> float:
        return self._loop.time()

    def stop(self) -> None:
        """No timer fires any more."""
        now = self.now()
        self._loop.time = lambda: now  # type: ignore[method-assign]

    async def advance(self, seconds: float) -> None:
        """Move on, and let the timers that are due fire."""
        self._ahead += seconds
        for _ in range(3):
            await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until the condition holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what is awaited has no event of its own
            await asyncio.sleep(0)


@dataclass
class Service:
    """A running application without a socket.

    Attributes:
        engines: of each model, once it is loaded, in the order of loading.
        client: speaks HTTP to it.
    """

    app: FastAPI
    client: httpx.AsyncClient
    engines: list[FaultyEngine] = field(default_factory=list)

    @property
    def engine(self) -> FaultyEngine:
        return self.engines[0]

    @property
    def state(self) -> Any:
        return self.app.state.konkyo

    @property
    def model(self) -> Model:
        return self.state.repository.models()[0]  # type: ignore[no-any-return]

    def depth(self, kind: str) -> int:
        return self.model.batcher(kind).depth  # type: ignore[arg-type]

    def count(self, metric: str, **labels: str) -> float:
        """Value of a sample, summed over the labels that are not given; ``metric`` without the prefix."""
        return sum(
            sample.value
            for family in self.state.metrics.registry.collect()
            for sample in family.samples
            if sample.name == f"konkyo_{metric}" and labels.items() <= sample.labels.items()
        )

    async def loaded(self) -> None:
        """Until every model is ready or has failed."""
        loading = [task for task in asyncio.all_tasks() if task.get_name() == "loading"]
        await asyncio.gather(*loading)


@asynccontextmanager
async def serving(
    settings: Settings, *, make_engine: EngineFactory | None = None, wait: bool = True
) -> AsyncIterator[Service]:
    """The application with faulty engines, or those of ``make_engine``, while the block runs."""
    engines: list[FaultyEngine] = []

    def faulty(bundle: Bundle, settings: Settings) -> FaultyEngine:
        engines.append(FaultyEngine(bundle))
        return engines[-1]

    app = create_app(settings, make_engine=make_engine or faulty)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://konkyo", timeout=None) as client,
    ):
        service = Service(app, client, engines)
        try:
            if wait:
                await service.loaded()
            yield service
        finally:
            for engine in engines:  # nobody may stand at a gate when the application closes
                engine.gate.open()


class Caller:
    """A client at the door of an application: sends ASGI messages when told, and may leave."""

    def __init__(
        self, app: FastAPI, path: str, *, headers: Sequence[tuple[str, str]] = (), query: str = ""
    ) -> None:
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._sent: list[dict[str, Any]] = []
        self.received_bytes = 0
        """Body bytes the application has taken."""
        self.reading = asyncio.Event()
        """Set while the application waits for more."""
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        self.done = asyncio.create_task(self._call(app, scope))

    def send(self, body: bytes = b"", *, more: bool = False) -> None:
        """A piece of the body; the last unless there is ``more``."""
        self._messages.put_nowait({"type": "http.request", "body": body, "more_body": more})

    def leave(self) -> None:
        """Close the connection."""
        self._messages.put_nowait({"type": "http.disconnect"})

    @property
    def status(self) -> int | None:
        """Of the answer, once it has come."""
        return next((message["status"] for message in self._sent if "status" in message), None)

    @property
    def body(self) -> bytes:
        """Of the answer."""
        return b"".join(message.get("body", b"") for message in self._sent)

    async def _call(self, app: FastAPI, scope: dict[str, Any]) -> None:
        async def receive() -> dict[str, Any]:
            self.reading.set()
            message = await self._messages.get()
            self.reading.clear()
            self.received_bytes += len(message.get("body", b""))
            return message

        async def send(message: Any) -> None:
            self._sent.append(message)

        await app(scope, receive, send)


def pictures(count: int, seed: int = 0) -> Iterator[UInt8]:
    """Distinct smooth (32, 32, 3) images."""
    generator = np.random.default_rng(seed)
    ramp = np.linspace(0, 1, 32)
    for _ in range(count):
        corners = generator.uniform(0, 255, (2, 2, 3))
        rows = corners[0] + ramp[:, None, None] * (corners[1] - corners[0])  # (32, 2, 3)
        image = rows[:, :1] + ramp[None, :, None] * (rows[:, 1:] - rows[:, :1])
        yield np.clip(image + generator.normal(0, 12, (32, 32, 3)), 0, 255).astype(np.uint8)


def zoo_settings(**changes: Any) -> Settings:
    """Settings for tests: no environment, one thread, the bundles that ship."""
    return Settings(**{"threads": 1, "device": "cpu", **changes})


def copy_bundle(bundle: Path, repository: Path, version: str = "1") -> Path:
    """A bundle as another version, its card saying so; returns its folder."""
    import json
    import shutil

    folder = repository / bundle.parent.name / version
    shutil.copytree(bundle, folder)
    card = json.loads((folder / "card.json").read_text())
    card["version"] = version
    (folder / "card.json").write_text(json.dumps(card))
    return folder
