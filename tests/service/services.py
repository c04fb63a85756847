"""The application running without a socket, and callers who talk to it."""

from __future__ import annotations

import asyncio
import atexit
import io
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from fastapi import FastAPI
from faults import FaultyEngine
from PIL import Image

from konkyo.models.bundle import Bundle
from konkyo.service.app import create_app
from konkyo.service.engines import EngineFactory
from konkyo.service.engines.base import UInt8
from konkyo.service.model import Model
from konkyo.service.settings import ZOO, Settings


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
            float(sample.value)
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


NAME = "gcm-cifar10"
PREDICT, EXPLAIN = f"/v1/models/{NAME}:predict", f"/v1/models/{NAME}:explain"
PNG = {"content-type": "image/png"}


def png(image: UInt8) -> bytes:
    """The image as a file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    return buffer.getvalue()


IMAGES = list(pictures(20))
FILES = [png(image) for image in IMAGES]


@cache
def one_model() -> Path:
    """A repository with one of the bundles that ship, so that counts are those of one model."""
    folder = Path(tempfile.mkdtemp(prefix="konkyo-"))
    atexit.register(shutil.rmtree, folder)
    (folder / "gcm-cifar10").symlink_to(ZOO / "gcm-cifar10")
    return folder


def zoo_settings(**changes: Any) -> Settings:
    """One thread on the CPU, and a shipped bundle unless told otherwise."""
    given = {"threads": 1, "device": "cpu", "repository": one_model(), "parallel_loads": 1, **changes}
    return Settings(**given)  # one load at a time, so that engines come in order


def copy_bundle(bundle: Path, repository: Path, version: str = "1") -> Path:
    """A bundle as another version, its card saying so; returns its folder."""
    folder = repository / bundle.parent.name / version
    shutil.copytree(bundle, folder)
    card = json.loads((folder / "card.json").read_text())
    card["version"] = version
    (folder / "card.json").write_text(json.dumps(card))
    return folder


@cache
def attention_models() -> Path:
    """A repository for the fake engine: cards of a network with one attention map, and one with three."""
    folder = Path(tempfile.mkdtemp(prefix="konkyo-"))
    atexit.register(shutil.rmtree, folder)
    for name, scales in (("one", 1), ("three", 3)):
        shutil.copytree(ZOO / "gcm-cifar10" / "1", folder / name / "1")
        file = folder / name / "1" / "card.json"
        card = json.loads(file.read_text())
        card["name"] = name
        card["explanation"] = {
            "method": "attention",
            "map_kind": "attention_map",
            "class_specific": False,
            "range": [0.25, 0.75],
            "takes_attention": True,
            "scales": scales,
        }
        del card["methods"]
        file.write_text(json.dumps(card))
    return folder


def grey(number: int) -> float:
    """What the fake engine gives as the logit of class 0."""
    return float(IMAGES[number].mean() / 255)


def ask(
    service: Service, number: int, path: str = EXPLAIN, **parameters: Any
) -> asyncio.Task[httpx.Response]:
    """Post image ``number`` in the background."""
    return asyncio.create_task(
        service.client.post(path, content=FILES[number], headers=PNG, params={"top_k": 10, **parameters})
    )


def right(response: httpx.Response, number: int) -> bool:
    """Whether it is the answer to image ``number``."""
    body = response.json()
    first = next(entry["logit"] for entry in body["top_k"] if entry["index"] == 0)
    return response.status_code == 200 and abs(first - grey(number)) < 1e-5


async def hold(service: Service, path: str = EXPLAIN) -> asyncio.Task[httpx.Response]:
    """Occupy the engine with image 0."""
    assert service.model.state == "ready", service.model.failure
    service.engine.gate.shut()
    task = ask(service, 0, path)
    await service.engine.gate.entered()
    return task
