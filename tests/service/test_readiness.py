"""When the service says that it is ready, and when not."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from faults import PATIENCE, FaultyEngine, broken, until
from services import (
    EXPLAIN,
    IMAGES,
    NAME,
    PREDICT,
    Service,
    ask,
    copy_bundle,
    hold,
    right,
    serving,
    zoo_settings,
)

from konkyo.models.bundle import Bundle
from konkyo.service.engines import make_engine
from konkyo.service.engines.base import Outputs, UInt8
from konkyo.service.settings import ZOO, Settings


async def readiness(service: Service) -> tuple[int, list[str]]:
    response = await service.client.get("/readyz")
    assert response.status_code == 200 or response.headers["retry-after"] == "1"
    return response.status_code, response.json()["problems"]


async def test_loading_is_live_and_not_ready() -> None:
    gate = threading.Event()

    def slow(bundle: Bundle, settings: Settings) -> FaultyEngine:
        assert gate.wait(PATIENCE)
        return FaultyEngine(bundle)

    async with serving(zoo_settings(), make_engine=slow, wait=False) as service:
        try:
            assert (await service.client.get("/livez")).status_code == 200
            assert await readiness(service) == (503, [f"{NAME}/1: loading"])
            refused = await ask(service, 0)
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "not_ready"
            assert refused.headers["retry-after"] == "1"
            assert service.count("model_ready") == 0
        finally:
            gate.set()
        await service.loaded()
        assert await readiness(service) == (200, [])
        assert right(await ask(service, 0), 0)
        assert service.count("model_ready") == 1


async def test_closing_while_loading_ends() -> None:
    started, gate = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slow(bundle: Bundle, settings: Settings) -> FaultyEngine:
        loop.call_soon_threadsafe(started.set)
        assert gate.wait(PATIENCE)
        return FaultyEngine(bundle)

    async with asyncio.timeout(PATIENCE), serving(zoo_settings(), make_engine=slow, wait=False) as service:
        await started.wait()
        gate.set()
    assert service.model.state == "loading"


@pytest.mark.parametrize("path", [PREDICT, EXPLAIN])
async def test_a_failing_engine_is_not_ready_until_the_canary_passes(path: str) -> None:
    async with serving(zoo_settings()) as service:
        service.engine.fault = broken
        failed = await ask(service, 1, path)
        assert failed.status_code == 500
        assert failed.json()["error"]["code"] == "inference_failed"
        kind = path.rpartition(":")[2]
        status, problems = await readiness(service)
        assert status == 503
        assert f"{NAME}/1: the {kind} queue fails" in problems
        assert (await service.client.get("/livez")).status_code == 200

        service.engine.fault = None
        assert await readiness(service) == (200, [])  # of itself: a service that is not ready gets no traffic
        assert right(await ask(service, 1, path), 1)


async def test_one_poisoned_image_does_not_make_the_service_unready() -> None:
    def poison(images: UInt8, outputs: Outputs) -> Outputs:
        if (images == IMAGES[3]).all(axis=(1, 2, 3)).any():
            raise ValueError("poison")
        return outputs

    async with serving(zoo_settings()) as service:
        held = await hold(service)
        others = [ask(service, number) for number in range(1, 6)]
        await until(lambda: service.depth("explain") == 5)
        service.engine.fault = poison
        service.engine.gate.open()
        for number, response in enumerate(await asyncio.gather(held, *others)):
            assert response.status_code == 500 if number == 3 else right(response, number)
        assert (await ask(service, 3)).status_code == 500  # alone, and last
        assert await readiness(service) == (200, [])
        assert service.count("requests_total", outcome="error") == 2


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("bfc_arena.cc:376 Failed to allocate memory for requested buffer of size 150528000"),
    ],
    ids=["python", "torch", "onnx"],
)
async def test_running_out_of_memory_is_counted_and_answered(error: Exception) -> None:
    def small(images: UInt8, outputs: Outputs) -> Outputs:
        if len(images) > 2:
            raise error
        return outputs

    async with serving(zoo_settings()) as service:
        held = await hold(service)
        others = [ask(service, number) for number in range(1, 5)]
        await until(lambda: service.depth("explain") == 4)
        service.engine.fault = small
        service.engine.gate.open()
        responses = await asyncio.gather(held, *others)
        assert all(right(response, number) for number, response in enumerate(responses))
        assert service.count("oom_total") == 1


async def test_a_stopped_queue_is_not_ready() -> None:
    def die() -> None:
        raise SystemError("injected")

    async with serving(zoo_settings()) as service:
        batcher = service.model.batcher("predict")
        batcher._on_execution = lambda execution: die()
        response = await ask(service, 1, PREDICT)
        assert response.status_code == 503
        assert await readiness(service) == (503, [f"{NAME}/1: the predict queue has stopped"])


def flat(images: UInt8, outputs: Outputs) -> Outputs:
    return Outputs(outputs.logits, np.zeros_like(outputs.maps))


def holes(images: UInt8, outputs: Outputs) -> Outputs:
    return Outputs(outputs.logits, outputs.maps * np.nan)


@pytest.mark.parametrize("fault", [flat, holes])
async def test_the_map_of_the_canary_must_show_something(fault: Callable[..., Outputs]) -> None:
    def hollow(bundle: Bundle, settings: Settings) -> FaultyEngine:
        engine = FaultyEngine(bundle)
        engine.fault = fault
        return engine

    async with serving(zoo_settings(), make_engine=hollow) as service:
        status, [problem] = await readiness(service)
        assert status == 503
        assert "the map of the canary is constant or not finite" in problem


async def test_a_model_that_answers_the_canary_wrongly_is_not_served(tmp_path: Path) -> None:
    folder = copy_bundle(ZOO / NAME / "1", tmp_path)
    card = json.loads((folder / "card.json").read_text())
    logits = card["canary"]["logits"]
    logits[0], logits[1] = logits[1] + 1, logits[0]
    (folder / "card.json").write_text(json.dumps(card))
    settings = zoo_settings(repository=tmp_path, engine="onnx")
    async with serving(settings, make_engine=make_engine) as service:
        status, [problem] = await readiness(service)
        assert status == 503
        assert re.search(r"the canary's logits differ from the card's by \d+\.\d% of their range", problem)
        refused = await ask(service, 0)
        assert refused.status_code == 503


async def test_one_bad_version_leaves_the_others_serving(tmp_path: Path) -> None:
    """And ready: the same files would leave a service ready that was there before the bad ones came."""
    copy_bundle(ZOO / NAME / "1", tmp_path, "1")
    bad = copy_bundle(ZOO / NAME / "1", tmp_path, "2")
    (bad / "model.onnx").write_bytes(b"not a graph")
    async with serving(zoo_settings(repository=tmp_path)) as service:
        assert right(await ask(service, 1), 1)
        assert await readiness(service) == (200, [])
        [entry] = (await service.client.get("/v1/models")).json()["models"]
        assert (entry["versions"], entry["default"], entry["state"]) == (["1", "2"], "1", "ready")
        [problem] = entry["problems"]
        assert problem.startswith(f"2: {bad / 'model.onnx'}: truncated")
        assert service.count("model_ready", version="2") == 0
        assert service.count("model_load_failures_total", version="2") == 1


async def test_draining_is_not_ready_and_still_answers() -> None:
    async with serving(zoo_settings()) as service:
        service.state.draining = True
        assert await readiness(service) == (503, ["draining"])
        assert right(await ask(service, 1), 1)


async def test_closing_finishes_what_was_accepted() -> None:
    async with serving(zoo_settings(max_batch=2)) as service:
        tasks = [await hold(service), *(ask(service, number) for number in range(1, 6))]
        await until(lambda: service.depth("explain") == 5)
        closing = asyncio.create_task(service.state.repository.close())
        await until(lambda: service.model.batcher("explain")._closing)
        late = await ask(service, 6)
        assert late.status_code == 503
        assert late.json()["error"]["code"] == "draining"
        service.engine.gate.open()
        responses = await asyncio.gather(*tasks)
        assert all(right(response, number) for number, response in enumerate(responses))
        await closing


async def test_a_queue_that_has_stopped_asks_for_a_restart() -> None:
    async with serving(zoo_settings()) as service:
        assert (await service.client.get("/livez")).json() == {"status": "ok", "problems": []}
        await service.model.batcher("explain").close()
        answer = await service.client.get("/livez")
    assert answer.status_code == 503
    assert answer.json()["problems"] == [f"{service.model.name}/{service.model.version}: a queue has stopped"]
