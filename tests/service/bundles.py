"""Bundles that tests write, change and damage while they are served."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path

from faults import Clock
from services import NAME, Service, copy_bundle

from konkyo.models.bundle import CARD, ONNX
from konkyo.service.repository import SETTLE_SECONDS
from konkyo.service.settings import ZOO

SHIPPED = ZOO / NAME / "1"


def add(repository: Path, version: str, bundle: Path = SHIPPED) -> Path:
    """A copy of a bundle as a version; returns its folder."""
    return copy_bundle(bundle, repository, version)


def rewrite(folder: Path, **changes: object) -> str:
    """Another card in its place, which is another bundle; returns its digest."""
    card = json.loads((folder / CARD).read_text()) | changes
    text = json.dumps(card, indent=len((folder / CARD).read_text().splitlines()) % 2 + 1)
    (folder / CARD).write_text(text)
    return digest(folder)


def digest(folder: Path) -> str:
    return f"sha256:{hashlib.sha256((folder / CARD).read_bytes()).hexdigest()}"


def damage(folder: Path) -> None:
    (folder / ONNX).write_bytes(b"half a gra")


def repair(folder: Path) -> None:
    (folder / ONNX).write_bytes((SHIPPED / ONNX).read_bytes())


async def noticed(service: Service, clock: Clock) -> None:
    """Until what has changed in the folders has been seen, has settled, and is served or has failed."""
    repository = service.state.repository
    await repository.refresh()
    await clock.advance(SETTLE_SECONDS)
    await repository.refresh()
    await changed(service)


async def changed(service: Service) -> None:
    """Until no change is under way."""

    def changes() -> list[asyncio.Task[object]]:
        return [task for task in asyncio.all_tasks() if task.get_name().startswith("repository-")]

    while tasks := changes():
        await asyncio.wait(tasks)
