"""Small studies in a database, whose entries have names that could not come about by chance."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from konkyo.study.database import Database
from konkyo.study.records import Entry, Item
from konkyo.study.store import Store

ENTRIES = tuple(
    Entry(f"{animal}-network", f"release-{number}", f"sha256:{number * 64}", f"{animal}-attribution")
    for number, animal in zip("789", ("quokka", "axolotl", "pangolin"), strict=True)
)
SECRETS = [word for entry in ENTRIES for word in (entry.model, entry.version, entry.digest, entry.method)]
"""What must never reach a browser; and their parts, which are no words of ours."""

TITLE, INSTRUCTION = "Where would you look?", "Order the maps, the best first."


def png(seed: int) -> bytes:
    """A file of 6x4 pixels, different for every seed."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def fill(store: Store, images: int = 4, entries: Sequence[Entry] = ENTRIES) -> str:
    """A study of images of the classes cat and dog in turn; returns its id."""
    study = store.begin(TITLE, INSTRUCTION, {"target": "true"}, entries)
    for number in range(1, images + 1):
        seed = 100 * number
        maps = [png(seed + index) for index in range(1, len(entries) + 1)]
        label = ("dog", "cat")[number % 2]
        store.add(study, number, Item(f"{label}/{number}.jpg", label, png(seed), maps, (6, 4)))
    store.complete(study)
    return study


@dataclass
class Made:
    """A study in a database, and the tokens of its subjects."""

    url: str
    study: str
    tokens: list[str]


def make(url: str | Path, subjects: int = 2, images: int = 4) -> Made:
    """A study in a database, which is made where it is missing."""
    database = Database(str(url), create=True)
    try:
        store = Store(database)
        study = fill(store, images)
        return Made(str(url), study, store.invite(study, subjects))
    finally:
        database.close()
