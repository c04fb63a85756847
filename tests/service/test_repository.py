"""Folders of bundles: what is found in them, and what is said about it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest
from bundles import SHIPPED, add, damage, noticed, rewrite
from faults import PATIENCE, Clock, FaultyEngine
from pydantic import ValidationError
from services import NAME, ask, right, serving, zoo_settings
from typer.testing import CliRunner

from konkyo.cli import app
from konkyo.models.bundle import CARD, Bundle
from konkyo.service.folders import look, stamp
from konkyo.service.index import IndexEntry
from konkyo.service.settings import ZOO, Settings


def add_as(repository: Path, name: str, version: str = "1") -> Path:
    """A shipped bundle under another name."""
    folder = Path(shutil.copytree(SHIPPED, repository / name / version))
    rewrite(folder, name=name, version=version)
    return folder


# Settings


def test_folders_come_from_the_variable_as_in_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert Settings().repository == (ZOO,)
    monkeypatch.setenv("KONKYO_REPOSITORY", f"{ZOO}{os.pathsep}{tmp_path}")
    assert Settings().repository == (ZOO, tmp_path)
    assert Settings(repository=tmp_path).repository == (tmp_path,)
    assert Settings(repository=[tmp_path, ZOO]).repository == (tmp_path, ZOO)
    monkeypatch.setenv("KONKYO_REPOSITORY", "")
    with pytest.raises(ValidationError, match="repository"):
        Settings()


def test_a_folder_that_is_not_there_ends_the_start(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    given = ["serve", "--repository", str(ZOO), "--repository", str(missing)]
    result = CliRunner().invoke(app, given)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"error: repository: Value error, there is no folder {missing}\n"


# Looking


def test_what_is_no_version_is_not_found(tmp_path: Path) -> None:
    for version in ("2", "10", "1"):
        add(tmp_path, version)
    add(tmp_path / "..2026", "3")
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / NAME / ".tmp").mkdir()
    (tmp_path / NAME / "4").mkdir()
    (tmp_path / NAME / "5").symlink_to("nowhere")
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "README").write_text("no model")
    for name in (b"no utf-8: \xff", b"two\nlines"):  # /metrics would fail with the first
        add(tmp_path, os.fsdecode(name))
        shutil.copytree(tmp_path / NAME / "1", tmp_path / os.fsdecode(name) / "1")
    contents = look([tmp_path])
    assert {name: list(found) for name, found in contents.models.items()} == {NAME: ["1", "2", "4", "10"]}
    complete = [version for version, found in contents.models[NAME].items() if found.complete]
    assert complete == ["1", "2", "10"]
    assert contents.models[NAME]["10"].path == tmp_path / NAME / "10"
    assert contents.conflicts == {}


def test_any_change_of_a_file_is_seen(tmp_path: Path) -> None:
    folder = add(tmp_path, "1")
    seen = [stamp(folder)]
    card = folder / CARD
    text = card.read_bytes()
    changes = (
        lambda: card.write_bytes(text + b" "),
        lambda: card.write_bytes(text),
        lambda: os.utime(card, (1, 1)),
        lambda: (folder / "more").write_bytes(b""),
        lambda: (folder / "more").unlink(),
        lambda: card.rename(folder / "old") and shutil.copy2(folder / "old", card),
        lambda: card.unlink(),
        lambda: card.symlink_to("nowhere"),
        lambda: shutil.rmtree(folder),
    )
    for change in changes:
        change()
        seen.append(stamp(folder))
    assert all(before != after for before, after in pairwise(seen))
    assert seen[-1] == ()


async def test_folders_are_served_together(tmp_path: Path) -> None:
    add(tmp_path / "a", "1")
    add_as(tmp_path / "b", "other")
    (tmp_path / "a" / "other" / "1").mkdir(parents=True)  # without a card it takes no name
    settings = zoo_settings(repository=[tmp_path / "a", tmp_path / "b"])
    async with serving(settings) as service:
        assert (await service.client.get("/readyz")).status_code == 200
        models = (await service.client.get("/v1/models")).json()["models"]
        assert [model["name"] for model in models] == [NAME, "other"]
        assert right(await ask(service, 1, "/v1/models/other:explain"), 1)


async def test_a_name_in_two_folders_is_served_from_the_first_and_not_ready(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    add(first, "1")
    add(second, "2")
    problem = f"{NAME} is served from {first}, and is in {second} as well"
    async with serving(zoo_settings(repository=[first, second])) as service:
        health = await service.client.get("/readyz")
        assert (health.status_code, health.json()["problems"]) == (503, [problem])
        assert problem in caplog.text
        [entry] = (await service.client.get("/v1/models")).json()["models"]
        assert (entry["versions"], entry["problems"]) == (["1"], [problem])
        assert right(await ask(service, 1), 1)
        shutil.rmtree(second / NAME)
        await noticed(service, clock)
        assert (await service.client.get("/readyz")).status_code == 200

        caplog.clear()
        add(second, "2")  # while it runs: said, but no reason to take the service away
        await noticed(service, clock)
        assert problem in caplog.text
        assert (await service.client.get("/readyz")).status_code == 200
        [entry] = (await service.client.get("/v1/models")).json()["models"]
        assert (entry["versions"], entry["problems"]) == (["1"], [problem])


# The index


async def test_the_index_has_what_is_served_and_what_is_not(tmp_path: Path) -> None:
    for version in ("1", "2", "10"):
        add(tmp_path, version)
    bad = add(tmp_path, "11")
    damage(bad)
    add_as(tmp_path, "another")
    async with serving(zoo_settings(repository=tmp_path, max_versions=2, repository_api=True)) as service:
        repository = service.state.repository
        await repository.unload("another")
        shutil.copytree(bad, tmp_path / "new" / "1")
        index = await repository.index()
        reason = repository.find(NAME, "11").failure
        assert "truncated" in reason
        assert index == [
            IndexEntry("another", "1", "unavailable", "not loaded"),
            IndexEntry(NAME, "1", "unavailable", "not loaded"),
            IndexEntry(NAME, "2", "ready"),
            IndexEntry(NAME, "10", "ready"),
            IndexEntry(NAME, "11", "unavailable", reason),
            IndexEntry("new", "1", "unavailable", "not loaded"),
        ]


# The start


async def test_models_are_loaded_at_the_same_time_up_to_the_limit(tmp_path: Path) -> None:
    names = [f"m{index}" for index in range(5)]
    for name in names:
        add_as(tmp_path, name)
    together = threading.Barrier(3)

    def make(bundle: Bundle, settings: Settings) -> FaultyEngine:
        if bundle.card.name in names[:3]:
            together.wait(PATIENCE)  # none of them goes on before all three are there
        return FaultyEngine(bundle)

    settings = zoo_settings(repository=tmp_path, parallel_loads=3)
    async with serving(settings, make_engine=make, wait=False) as service:
        live = await service.client.get("/livez")
        assert live.status_code == 200
        loading = (await service.client.get("/readyz")).json()["problems"]
        assert f"{names[4]}/1: loading" in loading
        await service.loaded()
        assert (await service.client.get("/readyz")).status_code == 200

        info = (await service.client.get("/v1/info")).json()["startup_seconds"]
        assert set(info) - {"imports"} == {"application", "models", "total"}
        assert info["total"] == pytest.approx(sum(info.values()) - info["total"])
        assert service.count("startup_seconds", part="total") == info["total"]


async def test_no_more_than_the_limit_are_loaded_at_once(tmp_path: Path) -> None:
    for index in range(6):
        add_as(tmp_path, f"m{index}")
    inside, most = 0, 0
    lock = threading.Lock()

    def make(bundle: Bundle, settings: Settings) -> FaultyEngine:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        engine = FaultyEngine(bundle)
        with lock:
            inside -= 1
        return engine

    async with serving(zoo_settings(repository=tmp_path, parallel_loads=2), make_engine=make) as service:
        assert len(service.state.repository.models()) == 6
    assert 1 <= most <= 2


def test_a_process_knows_its_age() -> None:
    code = "from konkyo.service.startup import process_age; print(process_age())"
    before = time.monotonic()
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    assert 0 < float(output) <= time.monotonic() - before + 0.02  # it counts in hundredths


async def test_the_log_says_what_the_start_consisted_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add_as(tmp_path, "good")
    damage(add_as(tmp_path, "bad"))
    caplog.set_level("INFO", "konkyo.service.startup")
    async with serving(zoo_settings(repository=tmp_path)):
        [record] = [record for record in caplog.records if record.name == "konkyo.service.startup"]
    message = record.getMessage()
    assert "1 models ready, 1 failed; of all models together: read " in message
    assert message.startswith("loading ended after ")
