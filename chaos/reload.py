"""New versions, broken ones and changed files of a model while it is asked: every answer is one version's."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from chaos import files
from chaos.client import Connection, request_bytes
from chaos.known import known
from chaos.scenario import Context, Scenario
from chaos.servers import SMALL, Server, server, status
from konkyo.models.bundle import CARD
from konkyo.service.settings import ZOO

OTHER = "gcm-clipped-cifar10"
"""Another network of the same classes, so that an answer tells which it came from."""

CALLERS = 6
PATIENCE = 60.0
POLL_SECONDS = 0.3
TOLERANCE = 1e-3


class Callers:
    """Ask all the time, and check each answer against the network of the version that it names."""

    def __init__(self, running: Server) -> None:
        self.asked: Counter[str] = Counter()
        self.faults: list[str] = []
        self.networks: dict[str, str] = {}
        """Which network each version is, by the digest in its answers."""
        self.stop = asyncio.Event()
        self._running = running
        self._known = {model: known(model, 20) for model in (SMALL, OTHER)}

    async def ask(self) -> None:
        """One caller, until ``stop``."""
        connection, number = Connection(self._running.address), 0
        while not self.stop.is_set():
            number += 1
            one = number % 20
            verb = "explain?top_k=10&map=none" if number % 2 else "predict?top_k=10"
            request = request_bytes(
                self._running.address, "POST", f"/v1/models/{SMALL}:{verb}", self._known[SMALL][one].data,
                {"Content-Type": "image/jpeg"},
            )  # fmt: skip
            try:
                answer = await connection.ask(request)
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                self.faults.append(repr(error))
                continue
            if answer.status != 200:
                self.faults.append(f"{answer.status} {answer.body[:200]!r}")
                continue
            body = answer.json()
            self.asked[body["model"]["version"]] += 1
            given = [entry["logit"] for entry in sorted(body["top_k"], key=lambda entry: entry["index"])]
            of = {
                model for model, images in self._known.items()
                if np.abs(np.asarray(given) - images[one].logits).max() < TOLERANCE
            }  # fmt: skip
            expected = self.networks.setdefault(body["model"]["digest"], min(of, default="none"))
            if of != {expected}:
                self.faults.append(f"version {body['model']['version']} answered as {of or 'no network'}")
        connection.close()


def run(context: Context) -> None:
    """So many rounds of: a new version, a broken one, a version removed."""
    repository = context.folder / "repository"
    publish(repository, SMALL, 1)
    settings = {"repository": repository, "repository_watch": "poll", "repository_poll_seconds": POLL_SECONDS}
    with server(context.folder, **settings, max_versions=2, shutdown_seconds=5) as running:
        uvloop.run(_rounds(context, running, repository))
        context.hold(running.get("/readyz")[0] == 200, "not ready afterwards")


async def _rounds(context: Context, running: Server, repository: Path) -> None:
    callers = Callers(running)
    tasks = [asyncio.create_task(callers.ask()) for _ in range(CALLERS)]
    rounds, resident = context.pick(3, 20), []
    try:
        for number in range(rounds):
            new, broken = 2 * number + 2, 2 * number + 3
            await asyncio.to_thread(publish, repository, OTHER if number % 2 == 0 else SMALL, new)
            await _until(running, "the new version answers", default=str(new))
            await asyncio.to_thread(publish, repository, SMALL, broken, damaged=True)
            await _until(running, "the broken one is named", default=str(new), failed=str(broken))
            await asyncio.to_thread(shutil.rmtree, repository / SMALL / str(broken))
            if number:
                await asyncio.to_thread(shutil.rmtree, repository / SMALL / str(new - 2))
            resident.append(status(running.pid, "VmRSS") / files.MEBIBYTE)
    finally:
        callers.stop.set()
        await asyncio.gather(*tasks)
        context.figures |= {
            "rounds": len(resident),
            "requests": callers.asked.total(),
            "versions_that_answered": len(callers.asked),
            "failed": len(callers.faults),
            "broken_named": len(resident),
            "resident_mib_first_last": [round(value) for value in (resident[:1] + resident[-1:])],
        }
    context.hold(not callers.faults, f"{len(callers.faults)} failed, such as {callers.faults[:3]}")
    context.hold(len(callers.asked) == rounds + 1, f"versions that answered: {dict(callers.asked)}")


async def _until(running: Server, what: str, *, default: str, failed: str | None = None) -> None:
    """Until the service says that this version answers by default, and that this one could not be loaded."""
    async with asyncio.timeout(PATIENCE):
        while True:
            _, listed = await asyncio.to_thread(running.get, "/v1/models")
            [model] = listed["models"]
            told = " ".join(model["problems"])
            if model["default"] == default and (failed is None or f"{SMALL}/{failed}" in told):
                return
            await asyncio.sleep(0.05)


def publish(repository: Path, network: str, version: int, *, damaged: bool = False) -> None:
    """Write a bundle beside the repository and move it in whole, as a version of the small model."""
    making = repository.parent / "making"
    shutil.copytree(ZOO / network / "1", making)
    card: dict[str, Any] = json.loads((making / CARD).read_text())
    card |= {"name": SMALL, "version": str(version)}
    (making / CARD).write_text(json.dumps(card))
    if damaged:
        weights = making / "model.onnx"
        weights.write_bytes(weights.read_bytes()[:-100])
    (repository / SMALL).mkdir(parents=True, exist_ok=True)
    making.rename(repository / SMALL / str(version))


SCENARIO = Scenario(
    "new, broken and removed versions under load",
    "no answer but 200, each of one version's network; the broken never answer, and are named",
    run,
)
