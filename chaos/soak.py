"""Everybody at once for as long as is wished: what the server holds must not grow."""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import shutil
import signal
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop

from chaos import files
from chaos.callers import EVERYBODY, Crowd, keep_asking
from chaos.known import known
from chaos.reload import publish
from chaos.scenario import Context, Scenario
from chaos.servers import PATIENCE, SMALL, Server, descriptors, server, status

WARM_UP = 0.3
"""Share of the time that is not looked at: caches fill, threads start, the allocator finds its size."""

BLOCKS = 20
SAMPLE_SECONDS = 1.0
GROWTH = 0.05
"""Of the resident memory over the time that is looked at, that it must not surely exceed."""

SHORT_GROWTH = 0.5
"""In a short run, most of which the allocator still finds its size."""

RELOAD_SECONDS = 10.0
TASKS = 25
"""Of a server that does nothing: queues, watchers, connections that are kept alive."""

T_95 = 2.101
"""Student's t of 18 degrees of freedom, two-sided."""


def run(context: Context) -> None:
    """Warm up, watch, let everybody go, and look at what is left."""
    repository = context.folder / "repository"
    publish(repository, SMALL, 1)
    os.environ["WATCHED"] = str(context.folder / "told.json")
    settings: dict[str, Any] = {
        "repository": repository, "repository_watch": "poll", "repository_poll_seconds": 1, "max_versions": 1,
        "job_ttl_seconds": 10, "job_results": 16, "job_capacity": 4, "body_timeout_seconds": 5,
        "audit_log": context.folder / "audit.jsonl", "shutdown_seconds": 5,
    }  # fmt: skip
    with server(context.folder, ("-m", "chaos.watched"), **settings) as running:
        samples, crowd = uvloop.run(_soak(context, running, repository))
        _judge(context, samples, crowd)
        _judge_the_rest(context, samples[0], _quiet(running))
        context.hold(running.get("/readyz")[0] == 200, "not ready afterwards")


async def _soak(context: Context, running: Server, repository: Path) -> tuple[list[dict[str, float]], Crowd]:
    crowd = Crowd(running.address, known(SMALL, 40), random.Random(context.seed))
    stop, started = asyncio.Event(), time.monotonic()
    tasks = [asyncio.create_task(keep_asking(crowd, caller, stop)) for caller in EVERYBODY * 2]
    tasks.append(asyncio.create_task(_reload(repository, stop)))
    samples: list[dict[str, float]] = []
    while (elapsed := time.monotonic() - started) < 60 * context.soak_minutes:
        await asyncio.sleep(SAMPLE_SECONDS)
        samples.append({"seconds": elapsed, **await asyncio.to_thread(_look, running)})
    stop.set()
    await asyncio.wait(tasks, timeout=PATIENCE)
    for task in tasks:
        task.cancel()
    return samples, crowd


async def _reload(repository: Path, stop: asyncio.Event) -> None:
    """A new version of the same network now and then; the one before goes."""
    number = 1
    while not stop.is_set():
        await asyncio.sleep(RELOAD_SECONDS)
        number += 1
        await asyncio.to_thread(publish, repository, SMALL, number)
        await asyncio.sleep(RELOAD_SECONDS)
        await asyncio.to_thread(shutil.rmtree, repository / SMALL / str(number - 1))


def _look(running: Server) -> dict[str, float]:
    return {
        "resident_mib": status(running.pid, "VmRSS") / files.MEBIBYTE,
        "threads": status(running.pid, "Threads"),
        "descriptors": descriptors(running.pid),
    }


def _told(running: Server) -> dict[str, int]:
    """What the process itself says."""
    file = Path(os.environ["WATCHED"])
    file.unlink(missing_ok=True)
    running.send(signal.SIGUSR1)
    give_up = time.monotonic() + PATIENCE
    while not file.exists() and time.monotonic() < give_up:
        time.sleep(0.05)
    told: dict[str, int] = json.loads(file.read_text())
    return told


def _quiet(running: Server) -> dict[str, float]:
    """What is left once everybody has gone and the results of jobs have expired."""
    give_up = time.monotonic() + PATIENCE
    while True:
        left: dict[str, float] = {**_look(running), **_told(running)}
        if (left["held_bytes"] == 0 and left["tasks"] < TASKS) or time.monotonic() > give_up:
            return left
        time.sleep(1)


def _judge(context: Context, samples: Sequence[dict[str, float]], crowd: Crowd) -> None:
    watched = [one for one in samples if one["seconds"] > WARM_UP * samples[-1]["seconds"]]
    seconds = watched[-1]["seconds"] - watched[0]["seconds"]
    slope, error = _slope(watched, "resident_mib")
    mean = statistics.fmean(one["resident_mib"] for one in watched)
    grown, sure = slope * seconds, (slope - error) * seconds
    context.figures |= {
        "minutes": round(samples[-1]["seconds"] / 60, 1),
        "requests": dict(crowd.done),
        "faults": len(crowd.faults),
        "resident_mib_mean": round(mean, 1),
        "grown_mib_in_the_time_watched": round(grown, 2),
        "slope_mib_an_hour": f"{3600 * slope:.2f} ± {3600 * error:.2f} (95 %)",
        "threads_least_most": [
            min(one["threads"] for one in watched),
            max(one["threads"] for one in watched),
        ],
        "descriptors_most": max(one["descriptors"] for one in watched),
    }
    context.hold(not crowd.faults, f"{len(crowd.faults)} faults, such as {crowd.faults[:3]}")
    share = SHORT_GROWTH if context.short else GROWTH
    context.hold(sure < share * mean, f"resident memory grows: {grown:.1f} MiB in {seconds:.0f} s")
    threads = [one["threads"] for one in watched]
    context.hold(max(threads) <= threads[0] + 12, f"threads: {threads[0]} to {max(threads)}")


def _judge_the_rest(context: Context, first: dict[str, float], after: dict[str, float]) -> None:
    context.figures["left_when_quiet"] = {name: round(value) for name, value in after.items()}
    context.hold(after["held_bytes"] == 0, f"memory is counted as held by nobody: {after}")
    context.hold(after["tasks"] < TASKS, f"tasks are left: {after}")
    context.hold(after["descriptors"] <= first["descriptors"] + 10, f"descriptors are left: {after}")


def _slope(samples: Sequence[dict[str, float]], name: str) -> tuple[float, float]:
    """Least squares over the means of blocks, nearly independent: a second, and half the 95 % interval."""
    size = max(1, len(samples) // BLOCKS)
    blocks = [samples[place : place + size] for place in range(0, size * BLOCKS, size)]
    x = [statistics.fmean(one["seconds"] for one in block) for block in blocks if block]
    y = [statistics.fmean(one[name] for one in block) for block in blocks if block]
    slope, intercept = statistics.linear_regression(x, y)
    spread = sum((one - statistics.fmean(x)) ** 2 for one in x)
    rest = sum((b - intercept - slope * a) ** 2 for a, b in zip(x, y, strict=True)) / (len(x) - 2)
    return slope, T_95 * math.sqrt(rest / spread)


SCENARIO = Scenario(
    "soak: everybody at once",
    f"no fault; resident memory not surely growing by {GROWTH:.0%}; no task, file or held byte left behind",
    run,
)
