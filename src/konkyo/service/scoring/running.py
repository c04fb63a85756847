"""One run of ``konkyo score``: from its orders to its exit code."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from konkyo.errors import BundleError
from konkyo.service.budget import MemoryBudget
from konkyo.service.engines import EngineFactory, make_engine
from konkyo.service.logs import configure
from konkyo.service.metrics import Metrics
from konkyo.service.model import Model
from konkyo.service.perturbing import Perturbing
from konkyo.service.pipeline import Pipeline
from konkyo.service.schemas import ExplainOptions
from konkyo.service.scoring.folder import Folder
from konkyo.service.scoring.orders import Orders
from konkyo.service.scoring.part import Part, write_file
from konkyo.service.scoring.scorer import Count, Scorer
from konkyo.service.settings import Settings

logger = logging.getLogger(__name__)

INTERRUPTED = 75
"""Exit code after a signal: start it again, as ``EX_TEMPFAIL`` of sysexits says."""

ORDERS = "scoring.json"
"""File in the folder of the results that says what was ordered."""


@dataclass(frozen=True)
class Summary:
    """How a run ended. ``before``: images that had their line already. ``links``, ``others``: passed over."""

    part: Path
    count: Count
    before: int
    links: int
    others: int
    seconds: float
    interrupted: bool

    @property
    def exit_code(self) -> int:
        """0, or ``INTERRUPTED``."""
        return INTERRUPTED if self.interrupted else 0

    def __str__(self) -> str:
        rate = self.count.images / self.seconds if self.seconds else 0.0
        said = f"{self.count.images:,} images, {self.count.failed:,} failed, {rate:.1f} images/s"
        if self.before:
            said += f"; {self.before:,} were done before"
        if self.links or self.others:
            said += f"; passed over: {self.links:,} links, {self.others:,} other files"
        end = "interrupted; start it again to go on" if self.interrupted else str(self.part)
        return f"{said}; {end}"


def run(orders: Orders, settings: Settings, *, make_engine: EngineFactory = make_engine) -> Summary:
    """Score a shard until it is done or SIGTERM or SIGINT comes; a second signal ends the process.

    Args:
        make_engine: builds the engine; for engines of your own, and for faults in tests.

    Raises:
        KonkyoError: the bundle cannot be served, or not be asked so, or its engine fails on everything.
        ValueError: the folder of the results holds those of other orders.
        OSError: the images cannot be listed, or the results not be written.
    """
    configure(settings)
    patient = settings.model_copy(update={"shed": False})  # nobody waits, so no map is given up
    return asyncio.run(_run(orders, patient, make_engine))


async def _run(orders: Orders, settings: Settings, make_engine: EngineFactory) -> Summary:
    stop = _stop_on_signals()
    folder = Folder(orders.images)
    budget, metrics = MemoryBudget(settings.max_buffered_bytes), Metrics()
    async with (
        _loaded(Model(orders.bundle, settings, metrics, make_engine)) as model,
        _pipeline(settings, metrics, budget) as pipeline,
    ):
        perturbing = Perturbing(settings, budget, pipeline)
        scorer = Scorer(
            model, orders.options, settings, pipeline, perturbing, budget, folder.root, orders.out
        )  # fmt: skip
        orders.out.mkdir(parents=True, exist_ok=True)
        _agree(orders.out / ORDERS, _identity(orders, model))
        with Part(orders.out, orders.shard, orders.shards) as part:
            logger.info("%s images of this shard are done already", f"{len(part.done):,}")
            before, started = len(part.done), time.perf_counter()
            names = (name for name in folder.shard(orders.shard, orders.shards) if name not in part.done)
            complete = await scorer.run(names, part, stop)
            if complete:
                part.complete()
            seconds = time.perf_counter() - started
    return Summary(part.path, scorer.count, before, folder.links, folder.others, seconds, not complete)


def _stop_on_signals() -> asyncio.Event:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def handle() -> None:
        logger.info("a signal: finishing what is under way")
        stop.set()
        for number in (signal.SIGTERM, signal.SIGINT):  # a second one does as signals do
            loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, handle)
    return stop


@asynccontextmanager
async def _loaded(model: Model) -> AsyncIterator[Model]:
    """The model, ready while the block runs. Raises ``BundleError``: it cannot be."""
    try:
        await model.load()
        if model.state != "ready":
            raise BundleError(f"{model.name}/{model.version} cannot be loaded: {model.failure}")
        yield model
    finally:
        await model.close()


@asynccontextmanager
async def _pipeline(settings: Settings, metrics: Metrics, budget: MemoryBudget) -> AsyncIterator[Pipeline]:
    pipeline = Pipeline(settings, metrics, budget)
    try:
        yield pipeline
    finally:
        pipeline.close()


def _identity(orders: Orders, model: Model) -> dict[str, Any]:
    """What all lines of a folder of results must have in common, as JSON."""
    return {
        "model": {"name": model.name, "version": model.version, "digest": model.bundle.digest},
        "verb": "explain" if isinstance(orders.options, ExplainOptions) else "predict",
        "options": orders.options.model_dump(mode="json"),
        "shards": orders.shards,
    }


def _agree(file: Path, identity: dict[str, Any]) -> None:
    """Note the orders, or compare them with those that are noted.

    Raises:
        ValueError: they are others; the lines would not belong together.
    """
    if not file.exists():
        # Shards begin at the same time, on several machines; what they write is the same.
        write_file(file, json.dumps(identity, indent=2).encode() + b"\n", writer=f".{secrets.token_hex(8)}")
    noted = json.loads(file.read_text(encoding="utf-8"))
    for key, value in identity.items():
        if noted.get(key) != value:
            raise ValueError(
                f"{file.parent} holds results by another {key}: {json.dumps(noted.get(key))} instead of "
                f"{json.dumps(value)}; choose another folder"
            )
