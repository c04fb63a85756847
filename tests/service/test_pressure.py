"""Full queues, deadlines and callers who leave: the application behind a gate."""

from __future__ import annotations

import asyncio

import pytest
from faults import Clock, until
from services import (
    EXPLAIN,
    FILES,
    IMAGES,
    NAME,
    PNG,
    PREDICT,
    Caller,
    ask,
    hold,
    right,
    serving,
    zoo_settings,
)


@pytest.mark.parametrize("path", [PREDICT, EXPLAIN])
async def test_a_full_queue_answers_429_to_exactly_those_over_it(path: str) -> None:
    async with serving(zoo_settings(queue_capacity=6, max_batch=4)) as service:
        kind = path.rpartition(":")[2]
        held = await hold(service, path)
        accepted = [ask(service, number, path) for number in range(1, 7)]
        await until(lambda: service.depth(kind) == 6)
        for response in await asyncio.gather(*(ask(service, number, path) for number in range(7, 12))):
            assert response.status_code == 429
            assert response.json()["error"]["code"] == "queue_full"
            assert response.headers["retry-after"] == "1"
        assert not any(task.done() for task in accepted)
        assert service.count("queue_depth", kind=kind) == 6

        service.engine.gate.open()
        for number, response in enumerate(await asyncio.gather(held, *accepted)):
            assert right(response, number)
        assert service.count("requests_total", kind=kind, outcome="success") == 7
        assert service.count("requests_total", kind=kind, outcome="rejected") == 5
        assert service.count("rejected_total", reason="queue_full") == 5
        assert service.count("input_pixels_count") == 7  # nothing of those refused was even opened
        assert service.count("queue_depth", kind=kind) == 0
        assert not any(service.engine.saw(image) for image in IMAGES[7:12])


async def test_a_full_explain_queue_does_not_refuse_predictions() -> None:
    async with serving(zoo_settings(queue_capacity=1)) as service:
        held = await hold(service)
        explained, predicted = ask(service, 1), ask(service, 2, PREDICT)
        await until(lambda: service.depth("explain") == service.depth("predict") == 1)
        service.engine.gate.open()
        responses = await asyncio.gather(held, explained, predicted)
        assert all(right(response, number) for number, response in enumerate(responses))


async def test_shedding_answers_the_label_without_a_map() -> None:
    async with serving(zoo_settings(queue_capacity=1, shed=True)) as service:
        held, waiting = await hold(service), ask(service, 1)
        await until(lambda: service.depth("explain") == 1)
        shed = ask(service, 2)
        await until(lambda: service.depth("predict") == 1)
        both_full = await ask(service, 3)
        assert both_full.status_code == 429
        picture = await service.client.post(EXPLAIN, content=FILES[4], headers={**PNG, "accept": "image/png"})
        assert picture.status_code == 429  # there is no picture of a label

        service.engine.gate.open()
        responses = await asyncio.gather(held, waiting, shed)
        assert all(right(response, number) for number, response in enumerate(responses))
        bodies = [response.json() for response in responses]
        assert ["map" in body["explanation"] for body in bodies] == [True, True, False]
        assert [body["explanation"]["status"] == "shed" for body in bodies] == [False, False, True]
        body = bodies[2]
        assert body["label"] == "truck"  # the fake engine's answer to every image
        assert service.count("requests_total", kind="explain", outcome="shed") == 1


async def test_a_deadline_that_passes_is_504(clock: Clock) -> None:
    async with serving(zoo_settings()) as service:
        held = await hold(service)
        late, patient = ask(service, 1, deadline_ms=5000), ask(service, 2, deadline_ms=500_000)
        await until(lambda: service.depth("explain") == 2)
        await clock.advance(6)
        response = await late
        assert response.status_code == 504
        assert response.json()["error"]["code"] == "deadline_exceeded"
        service.engine.gate.open()
        assert right(await held, 0)
        assert right(await patient, 2)
        assert not service.engine.saw(IMAGES[1])
        assert service.count("requests_total", outcome="deadline") == 1


async def test_the_default_deadline_of_the_settings(clock: Clock) -> None:
    async with serving(zoo_settings(default_deadline_ms=5000)) as service:
        held = await hold(service)
        await clock.advance(6)
        assert (await held).status_code == 504  # in the middle of its batch


@pytest.mark.parametrize("kind", ["predict", "explain"])
async def test_who_leaves_the_queue_is_counted_and_never_computed(kind: str) -> None:
    async with serving(zoo_settings()) as service:
        path = f"/v1/models/{NAME}:{kind}"
        held = await hold(service, path)
        leaver = Caller(service.app, path, headers=[("content-type", "image/png")])
        leaver.send(FILES[1])
        stayer = ask(service, 2, path)
        await until(lambda: service.depth(kind) == 2)
        leaver.leave()
        await leaver.done
        assert leaver.status == 499
        assert service.depth(kind) == 1
        service.engine.gate.open()
        assert right(await held, 0)
        assert right(await stayer, 2)
        assert not service.engine.saw(IMAGES[1])
        assert service.count("requests_total", kind=kind, outcome="cancelled") == 1
        assert service.count("requests_total", kind=kind, outcome="success") == 2


async def test_who_leaves_mid_batch_harms_nobody() -> None:
    async with serving(zoo_settings()) as service:
        service.engine.gate.shut()
        leaver = Caller(service.app, EXPLAIN, headers=[("content-type", "image/png")])
        leaver.send(FILES[1])
        await service.engine.gate.entered()
        stayer = ask(service, 2)
        leaver.leave()
        await leaver.done
        service.engine.gate.open()
        assert right(await stayer, 2)
        assert service.count("requests_total", outcome="cancelled") == 1


async def test_who_leaves_with_several_images_takes_them_all_out_of_the_queue() -> None:
    async with serving(zoo_settings()) as service:
        held = await hold(service)
        parts = b"".join(
            f'--b\r\ncontent-disposition: form-data; name="image"; filename="{number}"\r\n\r\n'.encode()
            + FILES[number]
            + b"\r\n"
            for number in (1, 2, 3)
        )
        leaver = Caller(service.app, EXPLAIN, headers=[("content-type", "multipart/form-data; boundary=b")])
        leaver.send(parts + b"--b--\r\n")
        await until(lambda: service.depth("explain") == 3)
        leaver.leave()
        await leaver.done
        assert service.depth("explain") == 0
        service.engine.gate.open()
        assert right(await held, 0)
        assert not any(service.engine.saw(IMAGES[number]) for number in (1, 2, 3))
        assert service.count("requests_total", outcome="cancelled") == 3
