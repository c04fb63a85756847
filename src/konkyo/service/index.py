"""What a repository has, served or not: the index of the Open Inference Protocol's repository extension."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from konkyo.service.folders import Found
from konkyo.service.model import Model
from konkyo.service.versions import Versions

State = Literal["ready", "loading", "unloading", "unavailable"]


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A version; ``reason`` says why it is not ready, or not ready in its newest files."""

    name: str
    version: str
    state: State
    reason: str = ""


def make_index(found: Mapping[str, Mapping[str, Found]], served: Mapping[str, Versions]) -> list[IndexEntry]:
    """What lies in the folders, is being unloaded, or is served; by name and version."""
    entries = {
        (name, version): IndexEntry(name, version, "unavailable", "not loaded")
        for name, versions in found.items()
        for version, folder in versions.items()
        if folder.complete
    }
    for name, versions in served.items():
        for model in versions.leaving:
            entries[name, model.version] = IndexEntry(name, model.version, "unloading", "in use")
        for model in versions:
            entries[name, model.version] = _entry(model)
    return [entries[key] for key in sorted(entries, key=lambda key: (key[0], len(key[1]), key[1]))]


def _entry(model: Model) -> IndexEntry:
    state: State = "unavailable" if model.state == "failed" else model.state
    return IndexEntry(model.name, model.version, state, model.failure or "")
