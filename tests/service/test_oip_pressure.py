"""The Open Inference Protocol in a crowd: batches, full queues, deadlines, callers who leave, memory."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import numpy as np
import pytest
from faults import Clock, broken, until
from services import (
    EXPLAIN,
    FILES,
    IMAGES,
    NAME,
    PREDICT,
    Caller,
    Service,
    ask,
    grey,
    hold,
    png,
    right,
    serving,
    zoo_settings,
)
from tensors import HEADER, Binary, as_json, infer_path, outputs_of

INFER = infer_path(NAME)
LABEL = [{"name": "label"}, {"name": "logits"}]


def request(*numbers: int, **others: Any) -> dict[str, Any]:
    return Binary().add("image", np.stack([IMAGES[number] for number in numbers])).request(**others)


def infer(service: Service, *numbers: int, **others: Any) -> asyncio.Task[Any]:
    """Ask about images in the background, for their labels and logits unless told otherwise."""
    asked = request(*numbers, **{"outputs": LABEL, **others})
    return asyncio.create_task(service.client.post(INFER, **asked))


def check(response: Any, *numbers: int) -> None:
    """That it is the answer to these images, in this order."""
    found = outputs_of(response)["logits"][:, 0]
    np.testing.assert_allclose(found, [grey(number) for number in numbers], rtol=0, atol=1e-5)


def refused(response: Any, status: int, message: str) -> None:
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    assert message in response.json()["error"]
    assert response.headers.get("retry-after") == ("1" if status in (429, 503) else None)


async def test_images_of_a_request_share_a_batch_with_those_of_others() -> None:
    async with serving(zoo_settings()) as service:
        held = await hold(service, PREDICT)
        single, several, other = ask(service, 1, PREDICT), infer(service, 2, 3, 4), infer(service, 5)
        await until(lambda: service.depth("predict") == 5)
        batches = len(service.engine.batches)
        service.engine.gate.open()
        assert right(await held, 0)
        response = await single
        assert right(response, 1)
        assert response.json()["batch_size"] == 5
        check(await several, 2, 3, 4)
        check(await other, 5)
        assert len(service.engine.batches) == batches + 2  # the one that was held, and one of all five


async def test_a_thousand_images_each_to_its_own_place() -> None:
    async with serving(zoo_settings(max_batch=8, queue_capacity=1000)) as service:
        groups = [[(7 * group + index) % 20 for index in range(10)] for group in range(100)]
        tasks = [infer(service, *numbers) for numbers in groups]
        for numbers, task in zip(groups, tasks, strict=True):
            check(await task, *numbers)
        assert service.count("requests_total", outcome="success") == 1000


async def test_a_full_queue_refuses_the_whole_request() -> None:
    async with serving(zoo_settings(queue_capacity=2)) as service:
        held = await hold(service, PREDICT)
        refused(await infer(service, 1, 2, 3), 429, "2 requests wait already")
        await until(lambda: service.depth("predict") == 0)  # those of it that had found a place gave it up
        fits = infer(service, 4, 5)
        await until(lambda: service.depth("predict") == 2)
        service.engine.gate.open()
        assert right(await held, 0)
        assert outputs_of(await fits)["label"] == ["truck", "truck"]
        assert not any(service.engine.saw(IMAGES[number]) for number in (1, 2, 3))
        assert service.count("requests_total", outcome="rejected") == 1
        assert service.count("requests_total", outcome="cancelled") == 2
        assert service.state.budget.held == 0


async def test_a_map_that_was_asked_for_is_never_shed() -> None:
    async with serving(zoo_settings(queue_capacity=1, shed=True)) as service:
        held, waiting = await hold(service), ask(service, 1)
        await until(lambda: service.depth("explain") == 1)
        refused(await infer(service, 2, outputs=[{"name": "map"}]), 429, "wait already")
        label = infer(service, 3)
        await until(lambda: service.depth("predict") == 1)
        service.engine.gate.open()
        assert right(await held, 0)
        assert right(await waiting, 1)
        assert outputs_of(await label)["label"] == ["truck"]


@pytest.mark.parametrize(
    "parameters",
    [{"deadline_ms": 5000}, {"timeout": 5_000_000}, {"timeout": 5_000_000, "deadline_ms": 9000}],
    ids=["ours", "the protocol's", "the shorter of both"],
)
async def test_a_deadline_that_passes_is_504(clock: Clock, parameters: dict[str, Any]) -> None:
    async with serving(zoo_settings()) as service:
        held = await hold(service, PREDICT)
        late, patient = (
            infer(service, 1, 2, parameters=parameters),
            infer(service, 3, parameters={"timeout": 0}),
        )
        await until(lambda: service.depth("predict") == 3)
        await clock.advance(6)
        refused(await late, 504, "the deadline passed")
        service.engine.gate.open()
        assert right(await held, 0)
        check(await patient, 3)
        assert not service.engine.saw(IMAGES[1])
        assert service.count("requests_total", outcome="deadline") >= 1


async def test_the_default_deadline_holds_here_too(clock: Clock) -> None:
    async with serving(zoo_settings(default_deadline_ms=5000)) as service:
        service.engine.gate.shut()
        late = infer(service, 1)
        await service.engine.gate.entered()
        await clock.advance(6)
        refused(await late, 504, "the deadline passed")


async def test_who_leaves_is_counted_and_never_computed() -> None:
    async with serving(zoo_settings()) as service:
        held = await hold(service, PREDICT)
        sent = request(1, 2, outputs=LABEL)
        leaver = Caller(service.app, INFER, headers=list(sent["headers"].items()))
        leaver.send(sent["content"])
        await until(lambda: service.depth("predict") == 2)
        leaver.leave()
        await leaver.done
        assert leaver.status == 499
        assert service.depth("predict") == 0
        service.engine.gate.open()
        assert right(await held, 0)
        assert not service.engine.saw(IMAGES[1])
        assert service.count("requests_total", kind="predict", outcome="cancelled") == 2
        assert service.state.budget.held == 0


async def test_a_broken_image_is_named_and_ends_the_request() -> None:
    files = [FILES[1], FILES[2], FILES[3][:100], FILES[4]]
    async with serving(zoo_settings(max_pixels=2000)) as service:
        before = len(service.engine.batches)
        refused(
            await service.client.post(INFER, **Binary().add_files(files).request()),
            400,
            "image_bytes[2]: the image is truncated or damaged",
        )
        refused(
            await service.client.post(INFER, **Binary().add_files([FILES[0], b""]).request()),
            400,
            "image_bytes[1]: the image is empty",
        )
        text = {"name": "image_bytes", "datatype": "BYTES", "shape": [2]}
        data = [base64.b64encode(part).decode() for part in (FILES[0], b"GIF89a")]
        refused(
            await service.client.post(INFER, json={"inputs": [{**text, "data": data}]}),
            400,
            "image_bytes[1]: not an image we read",
        )
        photo = np.zeros((100, 100, 3), np.uint8)
        refused(
            await service.client.post(INFER, content=png(photo), headers={HEADER: "0"}),
            413,
            "image_bytes[0]: 100x100 pixels are over the limit of 2000",
        )
        assert service.count("requests_total", kind="explain", outcome="invalid") == 4
        assert service.state.budget.held == 0
        assert len(service.engine.batches) <= before + 3


async def test_an_engine_that_fails_is_500_with_a_word() -> None:
    async with serving(zoo_settings()) as service:
        service.engine.fault = broken
        refused(await infer(service, 1), 500, "the engine failed on this image: RuntimeError")
        service.engine.fault = None
        assert outputs_of(await infer(service, 1))["label"] == ["truck"]


async def test_what_nobody_thought_of_is_500_with_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(zoo_settings()) as service:

        def fail(*arguments: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr("konkyo.service.routes.oip.read_images", fail)
        caller = Caller(service.app, INFER, headers=[(HEADER, "0")])
        caller.send(FILES[0])
        with pytest.raises(ZeroDivisionError):  # for the log
            await caller.done
        assert caller.status == 500
        assert json.loads(caller.body) == {"error": "an unexpected error; the log has it"}
        assert service.count("requests_total", outcome="error") == 1


async def test_the_bytes_of_tensors_count_against_the_budget() -> None:
    sent = request(1, outputs=LABEL)
    size = len(sent["content"])
    async with serving(zoo_settings(max_buffered_bytes=2 * size)) as service:
        service.engine.gate.shut()
        held = asyncio.create_task(service.client.post(INFER, **sent))
        await service.engine.gate.entered()
        assert service.state.budget.held == size  # pixels are used where they lie
        other = infer(service, 2)
        await until(lambda: service.depth("predict") == 1)
        refused(await infer(service, 3), 429, "too much image data")
        service.engine.gate.open()
        assert outputs_of(await held)["label"] == outputs_of(await other)["label"] == ["truck"]
        assert service.state.budget.held == 0


async def test_maps_are_counted_until_they_are_sent() -> None:
    """32 maps of 32 x 32 for each of 4 images: 512 KiB, and more than that while they are written."""
    targets = np.zeros((4, 32), np.int64)
    asked = (
        Binary().add("image", np.stack(IMAGES[:4])).add("targets", targets).request(outputs=[{"name": "map"}])
    )
    maps = targets.size * 32 * 32 * 4
    async with serving(zoo_settings(max_buffered_bytes=3 * maps)) as service:
        refused(await service.client.post(INFER, **asked), 429, "too much image data")
        assert service.state.budget.held == 0
    async with serving(zoo_settings(max_buffered_bytes=16 * maps)) as service:
        response = await service.client.post(INFER, **asked)
        assert outputs_of(response)["map"].shape == (4, 32, 32, 32)
        assert service.state.budget.held == 0


async def test_large_json_is_counted_while_it_is_numbers() -> None:
    tensor = as_json("image", np.full((32, 32, 32, 3), 100, np.uint8), flat=True)
    text = json.dumps({"inputs": [tensor], "outputs": LABEL}).encode()
    commas = text.count(b",")
    assert commas > 98_000
    async with serving(zoo_settings(max_buffered_bytes=len(text) + 40 * commas - 1)) as service:
        refused(await service.client.post(INFER, content=text), 429, "too much image data")
        assert service.state.budget.held == 0
    async with serving(zoo_settings(max_buffered_bytes=len(text) + 50 * commas)) as service:
        response = await service.client.post(INFER, content=text)
        assert outputs_of(response)["label"] == ["truck"] * 32
        assert service.state.budget.held == 0


async def test_images_of_one_request_are_bounded() -> None:
    async with serving(zoo_settings(max_instances=2)) as service:
        assert outputs_of(await infer(service, 0, 1))["label"] == ["truck"] * 2
        refused(await infer(service, 0, 1, 2), 400, "3 images; 1 to 2 are answered in one request")


async def test_our_own_api_is_not_held_up_by_a_large_request() -> None:
    """While a large JSON text is parsed in a thread, the loop answers others."""
    tensor = as_json("image", np.full((32, 32, 32, 3), 7, np.uint8))
    text = json.dumps({"inputs": [tensor], "outputs": LABEL}).encode()
    async with serving(zoo_settings()) as service:
        large = asyncio.create_task(service.client.post(INFER, content=text))
        small = await asyncio.gather(*(ask(service, number, EXPLAIN) for number in range(5)))
        assert all(right(response, number) for number, response in enumerate(small))
        assert outputs_of(await large)["label"] == ["truck"] * 32
