"""Models come, change and go while the service runs, and nobody who asks meanwhile is turned away."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from bundles import add, changed, damage, digest, noticed, repair, rewrite
from faults import PATIENCE, Clock, FaultyEngine, until
from services import EXPLAIN, NAME, PREDICT, Service, ask, hold, right, serving, zoo_settings

from konkyo.errors import Draining, LoadFailed, RepositoryApiDisabled, UnknownModel
from konkyo.models.bundle import CANARY, CARD, ONNX, WEIGHTS, Bundle
from konkyo.service.repository import Repository
from konkyo.service.settings import Settings


@asynccontextmanager
async def served(repository: Path, **changes: Any) -> AsyncIterator[Service]:
    """The models under a folder, which may be changed by request."""
    async with serving(zoo_settings(repository=repository, repository_api=True, **changes)) as service:
        yield service


class Gated:
    """Makes engines, and holds up those of some versions until told."""

    def __init__(self, *versions: str) -> None:
        self.engines: list[FaultyEngine] = []
        self.entered = threading.Event()
        self.gate = threading.Event()
        self._versions = versions

    def __call__(self, bundle: Bundle, settings: Settings) -> FaultyEngine:
        if bundle.card.version in self._versions:
            self.entered.set()
            assert self.gate.wait(PATIENCE)
        self.engines.append(FaultyEngine(bundle))
        return self.engines[-1]

    async def is_entered(self) -> None:
        assert await asyncio.to_thread(self.entered.wait, PATIENCE)


def repository_of(service: Service) -> Repository:
    repository: Repository = service.state.repository
    return repository


async def summary(service: Service) -> dict[str, Any]:
    [entry] = (await service.client.get("/v1/models")).json()["models"]
    return dict(entry)


async def detail(service: Service, version: str) -> dict[str, Any]:
    return dict((await service.client.get(f"/v1/models/{NAME}/versions/{version}")).json())


def version_of(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return str(response.json()["model"]["version"])


def digest_of(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return str(response.json()["model"]["digest"])


# What comes


async def test_a_new_version_takes_over_once_it_is_ready(tmp_path: Path, clock: Clock) -> None:
    add(tmp_path, "1")
    make = Gated("2")
    settings = zoo_settings(repository=tmp_path)
    async with serving(settings, make_engine=make) as service:
        add(tmp_path, "2")
        noticing = asyncio.create_task(noticed(service, clock))
        await make.is_entered()
        assert version_of(await ask(service, 1)) == "1"
        listed = await summary(service)
        assert (listed["versions"], listed["default"], listed["state"]) == (["1", "2"], "1", "ready")
        assert (await detail(service, "2"))["state"] == "loading"
        assert (await service.client.get("/readyz")).status_code == 200
        make.gate.set()
        await noticing
        assert version_of(await ask(service, 1)) == "2"
        assert (await summary(service))["default"] == "2"
        assert set((await detail(service, "2"))["load_seconds"]) == {"read", "session", "warm_up", "canary"}
        old = await service.client.get(f"/v1/models/{NAME}/versions/1")
        assert old.json()["ready"]


async def test_a_new_model_is_served_and_does_not_decide_over_readiness(tmp_path: Path, clock: Clock) -> None:
    add(tmp_path, "1")
    async with served(tmp_path) as service:
        other = shutil.copytree(tmp_path / NAME / "1", tmp_path / "other" / "1")
        await noticed(service, clock)
        assert (await service.client.get("/readyz")).status_code == 200
        broken = (await service.client.get("/v1/models/other")).json()
        assert (broken["state"], broken["ready"]) == ("failed", False)
        assert f"the card is of {NAME}/1" in broken["failure"]

        rewrite(other, name="other")
        await noticed(service, clock)
        assert (await service.client.get("/v1/models/other")).json()["ready"]
        assert version_of(await ask(service, 1, "/v1/models/other:predict")) == "1"


async def test_a_broken_version_leaves_the_old_serving_until_it_is_repaired(
    tmp_path: Path, clock: Clock
) -> None:
    add(tmp_path, "1")
    async with served(tmp_path) as service:
        bad = add(tmp_path, "2")
        damage(bad)
        await noticed(service, clock)
        assert version_of(await ask(service, 1)) == "1"
        assert (await service.client.get("/readyz")).json() == {"status": "ok", "problems": []}
        listed = await summary(service)
        assert (listed["default"], listed["state"]) == ("1", "ready")
        [problem] = listed["problems"]
        assert problem.startswith(f"2: {bad / ONNX}: truncated: 10 of ")
        failed = await detail(service, "2")
        assert (failed["state"], failed["ready"]) == ("failed", False)
        assert failed["failure"].startswith(f"{bad / ONNX}: truncated: 10 of ")
        assert service.count("model_ready", version="1") == 1
        assert service.count("model_ready", version="2") == 0
        assert service.count("model_load_failures_total", version="2") == 1

        await noticed(service, clock)  # nothing has changed, and so nothing is tried
        assert service.count("model_load_failures_total", version="2") == 1

        repair(bad)
        await noticed(service, clock)
        assert version_of(await ask(service, 1)) == "2"
        assert (await summary(service))["problems"] == []
        assert service.count("model_ready", version="2") == 1


async def test_a_failed_version_holds_nothing(tmp_path: Path, clock: Clock) -> None:
    """Its canary fails once its engine and its queues are there."""
    add(tmp_path, "1")
    async with served(tmp_path) as service:
        before = engine_threads()
        add(tmp_path, "2")
        service.state.repository._make_engine = _hollow(service)
        await noticed(service, clock)
        assert "the map of the canary is constant" in (await detail(service, "2"))["failure"]
        assert service.engines[-1].closed
        assert engine_threads() == before
    assert engine_threads() == []


def engine_threads() -> list[str]:
    names = (thread.name for thread in threading.enumerate())
    return sorted(name for name in names if name.startswith(("engine-", "gradients-")))


def _hollow(service: Service) -> Callable[[Bundle, Settings], FaultyEngine]:
    def make(bundle: Bundle, settings: Settings) -> FaultyEngine:
        engine = FaultyEngine(bundle)
        engine.fault = lambda images, outputs: type(outputs)(outputs.logits, outputs.maps * 0)
        service.engines.append(engine)
        return engine

    return make


async def test_files_on_their_way_are_left_alone(tmp_path: Path, clock: Clock) -> None:
    folder = add(tmp_path, "1")
    complete = {path.name: path.read_bytes() for path in folder.iterdir()}
    async with served(tmp_path) as service:
        folder = tmp_path / NAME / "2"
        folder.mkdir()
        for name in (CANARY, WEIGHTS):  # without a card it is no bundle
            (folder / name).write_bytes(complete[name])
            await noticed(service, clock)
            assert (await summary(service))["versions"] == ["1"]
        card = complete[CARD].replace(b'"version": "1"', b'"version": "2"')
        (folder / CARD).write_bytes(card)
        assert await repository_of(service).refresh()  # still to settle
        (folder / ONNX).write_bytes(complete[ONNX][:1000])
        await clock.advance(0.6)
        assert await repository_of(service).refresh()
        await clock.advance(0.6)
        assert await repository_of(service).refresh()  # again, as it was written to meanwhile
        assert (await summary(service))["versions"] == ["1"]
        assert service.count("model_load_failures_total") == 0

        await noticed(service, clock)  # half, and still for long: the digests decide
        assert "truncated: 1000 of" in (await detail(service, "2"))["failure"]
        assert version_of(await ask(service, 1)) == "1"
        (folder / ONNX).write_bytes(complete[ONNX])
        await noticed(service, clock)
        assert version_of(await ask(service, 1)) == "2"


async def test_files_that_change_while_they_are_loaded_are_not_served(tmp_path: Path, clock: Clock) -> None:
    add(tmp_path, "1")
    make = Gated("2")
    async with serving(zoo_settings(repository=tmp_path), make_engine=make) as service:
        folder = add(tmp_path, "2")
        noticing = asyncio.create_task(noticed(service, clock))
        await make.is_entered()
        rewrite(folder)
        make.gate.set()
        await noticing
        assert "its files changed while they were being loaded" in (await detail(service, "2"))["failure"]
        assert version_of(await ask(service, 1)) == "1"
        await noticed(service, clock)  # by itself
        assert digest_of(await ask(service, 1)) == digest(folder)


# What changes


async def test_changed_files_are_loaded_beside_the_old_and_swapped(tmp_path: Path, clock: Clock) -> None:
    folder = add(tmp_path, "1")
    before = digest(folder)
    async with served(tmp_path) as service:
        old = service.engine
        held = await hold(service)
        waiting = ask(service, 1)
        await until(lambda: service.depth("explain") == 1)
        assert service.count("queue_depth", kind="explain") == 1
        after = rewrite(folder)
        await noticed(service, clock)
        assert digest_of(await ask(service, 2)) == after
        assert service.count("queue_depth", kind="explain") == 0  # that of the new
        assert not old.closed
        old.gate.open()
        for number, response in enumerate(await asyncio.gather(held, waiting)):
            assert digest_of(response) == before
            assert right(response, number)
        await until(lambda: old.closed)
        assert digest_of(await ask(service, 3)) == after
        assert service.count("model_ready") == 1
        assert service.count("requests_total", outcome="success") == 4


async def test_files_that_were_only_touched_are_not_loaded_again(tmp_path: Path, clock: Clock) -> None:
    folder = add(tmp_path, "1")
    async with served(tmp_path) as service:
        for path in folder.iterdir():
            path.touch()
        shutil.copytree(folder, tmp_path / "copy")
        shutil.rmtree(folder)
        shutil.move(tmp_path / "copy", folder)
        await noticed(service, clock)
        assert len(service.engines) == 1
        assert not await repository_of(service).refresh()
        assert right(await ask(service, 1), 1)


async def test_broken_changes_leave_the_old_content_serving(tmp_path: Path, clock: Clock) -> None:
    folder = add(tmp_path, "1")
    before = digest(folder)
    async with served(tmp_path) as service:
        damage(folder)
        await noticed(service, clock)
        assert digest_of(await ask(service, 1)) == before
        now = await detail(service, "1")
        assert (now["state"], now["ready"], now["digest"]) == ("ready", True, before)
        assert now["failure"].startswith(f"newer files could not be loaded: {folder / ONNX}: truncated")
        assert (await summary(service))["problems"][0].startswith("1: ")
        assert (await service.client.get("/readyz")).status_code == 200
        assert service.count("model_ready") == 1
        assert service.count("model_load_failures_total", version="1") == 1
        repair(folder)
        await noticed(service, clock)
        assert (await detail(service, "1"))["failure"] is None
        assert (await summary(service))["problems"] == []
        assert len(service.engines) == 1  # what was repaired is what is served


async def test_a_canary_needs_no_file_any_more(tmp_path: Path) -> None:
    """A queue that fails shows by it that it has recovered, whatever has become of the folder."""

    def fail(images: Any, outputs: Any) -> Any:
        raise RuntimeError("injected")

    folder = add(tmp_path, "1")
    async with served(tmp_path) as service:
        service.engine.fault = fail
        assert (await ask(service, 1)).status_code == 500
        shutil.rmtree(folder)
        assert (await service.client.get("/readyz")).status_code == 503
        service.engine.fault = None
        assert (await service.client.get("/readyz")).status_code == 200


# What goes


async def test_a_version_that_is_removed_finishes_and_goes(tmp_path: Path, clock: Clock) -> None:
    add(tmp_path, "1")
    second = add(tmp_path, "2")
    async with served(tmp_path) as service:
        repository = repository_of(service)
        old = repository.find(NAME, "2").engine
        assert isinstance(old, FaultyEngine)
        old.gate.shut()
        held = ask(service, 1)
        await old.gate.entered()
        shutil.rmtree(second)
        await noticed(service, clock)
        assert version_of(await ask(service, 2)) == "1"
        gone = await ask(service, 2, f"/v1/models/{NAME}/versions/2:predict")
        assert (gone.status_code, gone.json()["error"]["detail"]) == (404, {"versions": ["1"]})
        [leaving] = [entry for entry in await repository.index() if entry.version == "2"]
        assert leaving.state == "unloading"
        old.gate.open()
        assert version_of(await held) == "2"
        await until(lambda: old.closed)


async def test_the_last_version_goes_too_and_so_do_its_series(tmp_path: Path, clock: Clock) -> None:
    add(tmp_path, "1")
    async with served(tmp_path) as service:
        assert right(await ask(service, 1), 1)
        rendered = service.state.metrics.render().decode()
        assert f'konkyo_queue_depth{{kind="explain",model="{NAME}",version="1"}}' in rendered
        shutil.rmtree(tmp_path / NAME)
        await noticed(service, clock)
        await until(lambda: service.engine.closed)
        assert (await ask(service, 1)).status_code == 404
        assert (await service.client.get("/v1/models")).json() == {"models": []}
        health = (await service.client.get("/readyz")).json()
        assert health["problems"] == [f"there is no bundle under {tmp_path}"]
        await until(lambda: NAME not in service.state.metrics.render().decode())

        add(tmp_path, "1")
        await noticed(service, clock)
        assert right(await ask(service, 1), 1)


async def test_what_is_gone_stays_as_long_as_nothing_else_works(tmp_path: Path, clock: Clock) -> None:
    """As when a volume is swapped for one whose only version is broken."""
    first = add(tmp_path, "1")
    async with served(tmp_path) as service:
        second = add(tmp_path, "2")
        damage(second)
        shutil.rmtree(first)
        await noticed(service, clock)
        assert version_of(await ask(service, 1)) == "1"
        repair(second)
        await noticed(service, clock)
        assert version_of(await ask(service, 1)) == "2"
        assert (await summary(service))["versions"] == ["2"]


async def test_a_folder_that_cannot_be_read_unloads_nothing(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "mount"
    add(folder, "1")
    async with served(folder) as service:
        folder.rename(tmp_path / "elsewhere")
        await noticed(service, clock)
        assert right(await ask(service, 1), 1)
        assert "the repository cannot be read" in caplog.text
        with pytest.raises(LoadFailed, match="cannot be read"):
            await repository_of(service).load(NAME)
        assert [entry.state for entry in await repository_of(service).index()] == ["ready"]


# How many


@pytest.mark.parametrize(
    ("versions", "limit", "loaded"),
    [(("1", "2", "10"), 1, ["10"]), (("1", "2", "10"), 2, ["2", "10"]), (("3", "4"), 5, ["3", "4"])],
)
async def test_the_newest_are_served(
    tmp_path: Path, versions: tuple[str, ...], limit: int, loaded: list[str]
) -> None:
    for version in versions:
        add(tmp_path, version)
    async with served(tmp_path, max_versions=limit) as service:
        assert (await summary(service))["versions"] == loaded
        assert version_of(await ask(service, 1)) == loaded[-1]
        assert len(service.engines) == len(loaded)


async def test_older_ones_are_tried_where_the_newest_fail(tmp_path: Path, clock: Clock) -> None:
    for version in ("1", "2"):
        add(tmp_path, version)
    bad = add(tmp_path, "3")
    damage(bad)
    async with served(tmp_path, max_versions=1) as service:
        assert version_of(await ask(service, 1)) == "2"
        assert (await summary(service))["versions"] == ["2", "3"]
        assert (await service.client.get("/readyz")).status_code == 200
        repair(bad)
        await noticed(service, clock)
        assert version_of(await ask(service, 1)) == "3"
        assert (await summary(service))["versions"] == ["3"]
        shutil.rmtree(bad)
        await noticed(service, clock)
        assert version_of(await ask(service, 1)) == "2"


# A volume that is swapped


def publish(mount: Path, number: int, versions: tuple[str, ...]) -> None:
    """As Kubernetes does: new files in a folder of their own, and a link that is replaced at once."""
    data = mount / f"..{number}"
    for version in versions:
        rewrite(add(data, version), labels=[f"{number}-{index}" for index in range(10)])
    new = mount / "..new"
    new.symlink_to(data.name)
    new.rename(mount / "..data")
    if not (mount / NAME).is_symlink():
        (mount / NAME).symlink_to(f"..data/{NAME}")


async def test_a_link_that_leads_elsewhere_is_a_change(tmp_path: Path, clock: Clock) -> None:
    publish(tmp_path, 1, ("1",))
    async with served(tmp_path) as service:
        assert (await ask(service, 1)).json()["label"] == "1-9"
        publish(tmp_path, 2, ("1",))
        shutil.rmtree(tmp_path / "..1")
        await noticed(service, clock)
        assert (await ask(service, 1)).json()["label"] == "2-9"
        publish(tmp_path, 3, ("2",))
        shutil.rmtree(tmp_path / "..2")
        await noticed(service, clock)
        answer = await ask(service, 1)
        assert (version_of(answer), answer.json()["label"]) == ("2", "3-9")
        assert (await summary(service))["versions"] == ["2"]


@pytest.mark.parametrize(("watch", "seconds"), [("poll", 0.02), ("events", 3600.0)])
async def test_changes_are_found_by_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watch: str, seconds: float
) -> None:
    for module in ("repository", "watching"):
        monkeypatch.setattr(f"konkyo.service.{module}.SETTLE_SECONDS", 0.05)
    publish(tmp_path, 1, ("1",))
    settings = zoo_settings(repository=tmp_path, repository_watch=watch, repository_poll_seconds=seconds)
    async with serving(settings) as service:

        async def answered(label: str) -> None:
            async with asyncio.timeout(PATIENCE):
                while (await ask(service, 1)).json()["label"] != label:
                    pass

        for number in (2, 3):
            publish(tmp_path, number, ("1",))
            await answered(f"{number}-9")
        rewrite(tmp_path / "..data" / NAME / "1", labels=[f"edited {index}" for index in range(10)])
        await answered("edited 9")
        add(tmp_path / "..data", "12")
        await answered("truck")
        shutil.rmtree(tmp_path / "..data" / NAME)
        async with asyncio.timeout(PATIENCE):
            while (await ask(service, 1)).status_code != 404:
                pass


# By request


async def test_what_is_unloaded_comes_back_by_request_alone(tmp_path: Path, clock: Clock) -> None:
    folder = add(tmp_path, "1")
    async with served(tmp_path) as service:
        repository = repository_of(service)
        await repository.unload(NAME)
        assert service.engine.closed
        refused = await ask(service, 1)
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "unknown_model")
        assert refused.json()["error"]["message"] == f"the model {NAME!r} was unloaded"
        assert repository.problems() == ["no model is loaded"]
        rewrite(folder)
        await noticed(service, clock)
        assert [entry.state for entry in await repository.index()] == ["unavailable"]
        with pytest.raises(UnknownModel):
            await repository.unload(NAME)
        await repository.load(NAME)
        assert right(await ask(service, 1), 1)
        assert repository.problems() == []


async def test_load_says_what_could_not_be_loaded(tmp_path: Path) -> None:
    add(tmp_path, "1")
    async with served(tmp_path) as service:
        repository = repository_of(service)
        with pytest.raises(UnknownModel, match=r"there is no bundle of 'other' under "):
            await repository.load("other")
        bad = add(tmp_path, "2")
        damage(bad)
        with pytest.raises(LoadFailed, match=f"{NAME} could not be loaded: version 2: .*truncated") as caught:
            await repository.load(NAME)
        assert list(caught.value.detail["failures"]) == ["2"]
        assert version_of(await ask(service, 1)) == "1"
        with pytest.raises(LoadFailed):  # tried again, though nothing has changed
            await repository.load(NAME)
        assert service.count("model_load_failures_total") == 2
        repair(bad)
        await repository.load(NAME)
        assert version_of(await ask(service, 1)) == "2"


async def test_unloading_waits_for_those_who_use_the_model(tmp_path: Path) -> None:
    add(tmp_path, "1")
    async with served(tmp_path) as service:
        held = await hold(service)
        others = [ask(service, number) for number in range(1, 5)]
        await until(lambda: service.depth("explain") == 4)
        unloading = asyncio.create_task(repository_of(service).unload(NAME))
        await until(lambda: not service.state.repository.models())
        assert (await ask(service, 5)).status_code == 404
        assert not unloading.done()
        service.engine.gate.open()
        for number, response in enumerate(await asyncio.gather(held, *others)):
            assert right(response, number)
        await unloading
        assert service.engine.closed


async def test_unloading_waits_for_a_long_explanation(tmp_path: Path) -> None:
    add(tmp_path, "1")
    async with served(tmp_path, perturbation_batch=4) as service:
        service.engine.gate.shut()
        begun = await ask(service, 1, method="occlusion", patch=8, map="none")
        assert begun.status_code == 202
        await service.engine.gate.entered()
        unloading = asyncio.create_task(repository_of(service).unload(NAME))
        await until(lambda: not service.state.repository.models())
        service.engine.gate.open()
        await unloading
        job = (await service.client.get(begun.headers["location"])).json()
        assert job["state"] == "done"
        assert job["progress"]["done"] == job["progress"]["total"] > 4


async def test_unloading_does_not_wait_for_ever(tmp_path: Path, clock: Clock) -> None:
    add(tmp_path, "1")
    async with served(tmp_path, shutdown_seconds=5) as service:
        model = service.model
        with model.hold():
            unloading = asyncio.create_task(repository_of(service).unload(NAME))
            await until(lambda: not service.state.repository.models())
            await clock.advance(0)  # it has begun to wait
            await clock.advance(6)
            await unloading
            assert service.engine.closed
            with pytest.raises(Draining):
                await model.batcher("predict").submit(service.engine.batches[0][0])


async def test_unloading_gives_up_a_load(tmp_path: Path) -> None:
    add(tmp_path, "1")
    make = Gated("2")
    settings = zoo_settings(repository=tmp_path, repository_api=True)
    async with serving(settings, make_engine=make) as service:
        repository = repository_of(service)
        add(tmp_path, "2")
        loading = asyncio.create_task(repository.load(NAME))
        await make.is_entered()
        unloading = asyncio.create_task(repository.unload(NAME))
        with pytest.raises(LoadFailed, match="was unloaded while it was being loaded"):
            await loading
        make.gate.set()
        await unloading
        assert repository.models() == []
        assert all(engine.closed for engine in make.engines)
        assert len(make.engines) == 2
        await repository.load(NAME)
        assert version_of(await ask(service, 1)) == "2"


async def test_unloading_leaves_a_load_behind_that_hangs(tmp_path: Path, clock: Clock) -> None:
    add(tmp_path, "1")
    make = Gated("2")
    settings = zoo_settings(repository=tmp_path, repository_api=True, shutdown_seconds=5)
    async with serving(settings, make_engine=make) as service:
        repository = repository_of(service)
        add(tmp_path, "2")
        loading = asyncio.create_task(repository.load(NAME))
        await make.is_entered()
        unloading = asyncio.create_task(repository.unload(NAME))
        with pytest.raises(LoadFailed):
            await loading
        await until(lambda: make.engines[0].closed)
        assert not unloading.done()
        await clock.advance(0)
        await clock.advance(6)
        await unloading
        make.gate.set()


async def test_loads_of_one_model_follow_each_other(tmp_path: Path) -> None:
    add(tmp_path, "1")
    async with served(tmp_path, parallel_loads=4) as service:
        repository = repository_of(service)
        add(tmp_path, "2")
        await asyncio.gather(*(repository.load(NAME) for _ in range(5)))
        assert len(service.engines) == 2
        await asyncio.gather(repository.unload(NAME), repository.load(NAME), return_exceptions=True)
        await changed(service)
        await repository.load(NAME)
        assert version_of(await ask(service, 1)) == "2"


async def test_a_load_outlives_who_asked_for_it(tmp_path: Path) -> None:
    add(tmp_path, "1")
    make = Gated("2")
    settings = zoo_settings(repository=tmp_path, repository_api=True)
    async with serving(settings, make_engine=make) as service:
        add(tmp_path, "2")
        loading = asyncio.create_task(repository_of(service).load(NAME))
        await make.is_entered()
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
        make.gate.set()
        await changed(service)
        assert version_of(await ask(service, 1)) == "2"


async def test_closing_gives_up_a_load(tmp_path: Path) -> None:
    add(tmp_path, "1")
    make = Gated("2")
    settings = zoo_settings(repository=tmp_path, repository_api=True)
    async with asyncio.timeout(PATIENCE), serving(settings, make_engine=make) as service:
        repository = repository_of(service)
        add(tmp_path, "2")
        loading = asyncio.create_task(repository.load(NAME))
        await make.is_entered()
        closing = asyncio.create_task(repository.close())
        with pytest.raises(Draining):
            await loading
        make.gate.set()
        await closing
        assert all(engine.closed for engine in make.engines)
        for change in (repository.load, repository.unload):
            with pytest.raises(Draining):
                await change(NAME)


async def test_requests_change_nothing_unless_they_may(tmp_path: Path) -> None:
    add(tmp_path, "1")
    for changes, reason in (
        ({}, "KONKYO_REPOSITORY_API=true"),
        ({"repository_api": True, "processes": 2}, "KONKYO_REPOSITORY_WATCH=poll"),
    ):
        async with serving(zoo_settings(repository=tmp_path, **changes)) as service:
            for change in (repository_of(service).load, repository_of(service).unload):
                with pytest.raises(RepositoryApiDisabled, match=reason):
                    await change(NAME)
            assert right(await ask(service, 1), 1)


async def test_a_request_that_was_read_slowly_finds_the_model_it_named(tmp_path: Path, clock: Clock) -> None:
    """The model is held from the first byte of the request on."""
    from services import FILES, PNG, Caller

    folder = add(tmp_path, "1")
    before = digest(folder)
    async with served(tmp_path) as service:
        for path in (PREDICT, EXPLAIN):
            caller = Caller(service.app, path, headers=list(PNG.items()))
            caller.send(FILES[1][:50], more=True)
            await until(lambda caller=caller: caller.received_bytes == 50)
            after = rewrite(folder)
            await noticed(service, clock)
            caller.send(FILES[1][50:])
            await caller.done
            assert caller.status == 200
            assert before.encode() in caller.body
            before = after
