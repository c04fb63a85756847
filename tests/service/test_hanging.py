"""An engine that does not come back: nobody waits for it for ever, and whoever can help is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults import Clock
from services import EXPLAIN, FILES, PNG, PREDICT, ask, hold, right, serving, zoo_settings
from test_gradient_queues import GRADIENT, GRAPH, Loader, post

SETTINGS = {"hang_seconds": 60}


@pytest.mark.parametrize("path", [PREDICT, EXPLAIN])
async def test_an_engine_that_hangs_is_told_and_nobody_queues_for_it(path: str, clock: Clock) -> None:
    async with serving(zoo_settings(**SETTINGS)) as service:
        await hold(service, path)
        await clock.advance(59)
        for route in ("/livez", "/readyz"):
            assert (await service.client.get(route)).status_code == 200
        await clock.advance(2)
        for route in ("/livez", "/readyz"):
            answer = await service.client.get(route)
            assert answer.status_code == 503
            assert "the engine hangs in a batch" in answer.json()["problems"][0]
        for other in (PREDICT, EXPLAIN):
            refused = await service.client.post(other, content=FILES[1], headers=PNG)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
            assert "over 60 s" in refused.json()["error"]["message"]
        assert service.count("queue_depth") == 0


async def test_one_that_comes_back_goes_on(clock: Clock) -> None:
    async with serving(zoo_settings(**SETTINGS)) as service:
        held = await hold(service, PREDICT)
        await clock.advance(61)
        assert (await service.client.get("/readyz")).status_code == 503
        service.engine.gate.open()
        assert right(await held, 0)
        for route in ("/livez", "/readyz"):
            assert (await service.client.get(route)).status_code == 200
        assert right(await ask(service, 1, PREDICT), 1)


async def test_many_batches_in_a_row_do_not_hang(clock: Clock) -> None:
    """The time is that of one batch, whether it fails or not."""
    async with serving(zoo_settings(**SETTINGS)) as service:
        for number in range(3):
            held = await hold(service, PREDICT)
            await clock.advance(59)
            service.engine.gate.open()
            assert right(await held, 0)
            assert (await service.client.get("/readyz")).status_code == 200, number


async def test_a_gradient_that_hangs_is_no_matter_to_others(networks: Path, clock: Clock) -> None:
    load = Loader()
    settings = zoo_settings(repository=networks, engine="torch", **SETTINGS)
    async with serving(settings, make_engine=load) as service:
        engine = load.engines["graph"]
        engine.gate.shut()
        slow = post(service, f"{GRAPH}:explain", method="gradcam")
        await engine.gate.entered()
        await clock.advance(61)
        refused = await post(service, f"{GRAPH}:explain", 2, method="hirescam")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
        assert (await post(service, f"{GRAPH}:predict", 3)).status_code == 200
        for route in ("/livez", "/readyz"):
            assert (await service.client.get(route)).status_code == 200
        engine.gate.open()
        assert (await slow).status_code == 200


async def test_one_that_is_the_models_own_explanation_is(networks: Path, clock: Clock) -> None:
    load = Loader()
    settings = zoo_settings(repository=networks, engine="torch", **SETTINGS)
    async with serving(settings, make_engine=load) as service:
        engine = load.engines["gradient"]
        engine.gate.shut()
        slow = post(service, f"{GRADIENT}:explain")
        await engine.gate.entered()
        await clock.advance(61)
        assert (await service.client.get("/livez")).status_code == 503
        engine.gate.open()
        assert (await slow).status_code == 200
        assert (await service.client.get("/livez")).status_code == 200
