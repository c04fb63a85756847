"""Admission by work: known before anything is decoded, refused at once, given back always."""

from __future__ import annotations

import asyncio
import io
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
from faults import Clock, broken, until
from PIL import Image
from services import (
    EXPLAIN,
    FILES,
    IMAGES,
    NAME,
    PNG,
    PREDICT,
    Caller,
    Service,
    ask,
    hold,
    right,
    serving,
    zoo_settings,
)

from konkyo.errors import TooMuchWork
from konkyo.service.admission import MEMORY_SECONDS, Work, cost
from konkyo.service.methods import Method
from konkyo.service.pace import Pace
from konkyo.service.question import Plan, Question
from konkyo.service.schemas import ExplainOptions

OCCLUSION = {"method": "occlusion", "patch": 8, "stride": 6}
OCCLUSION_IMAGES = 26
METHODS = {
    "graph": Method("gcm", "class_weight_map", True, "graph", "onnx"),
    "gradient": Method("layercam", "class_activation_map", True, "weights", "torch", differentiates=True),
    "long": Method("rise", "saliency_map", True, "predictions", "onnx"),
}


def photograph(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (90, 120, 30)).save(buffer, "jpeg")
    return buffer.getvalue()


MEGAPIXEL = photograph(1000, 1000)
JPEG = {"content-type": "image/jpeg"}


def refused(response: httpx.Response, code: str) -> dict[str, Any]:
    """That it was refused for this; what the error says to programs."""
    assert response.status_code == 429, response.text
    assert response.json()["error"]["code"] == code
    detail: dict[str, Any] = response.json()["error"]["detail"]
    return detail


# What a request costs


@pytest.mark.parametrize(
    ("method", "targets", "changes", "pixels", "drawn", "expected"),
    [
        (None, 0, {}, 32 * 32, 0, 1),
        (None, 0, {}, 50_000_000, 0, 51),
        ("graph", 1, {}, 32 * 32, 0, 1),
        ("graph", 32, {}, 32 * 32, 0, 1),
        ("graph", 3, {}, 4_000_000, 2_000_000, 1 + 4 + 3 * 2),
        ("graph", 3, {"shed": True}, 4_000_000, 2_000_000, 1 + 4),
        ("graph", 1, {"attention": True}, 32 * 32, 0, 2),
        ("graph", 1, {"attention": True, "raw": True}, 32 * 32, 0, 1),
        ("gradient", 1, {}, 32 * 32, 0, 2),
        ("gradient", 32, {}, 32 * 32, 0, 33),
        ("gradient", 32, {"shed": True}, 32 * 32, 0, 1),
        ("long", 1, {}, 50_000_000, 4_000_000, 0),
    ],
)
def test_what_a_request_costs(
    method: str | None, targets: int, changes: dict[str, bool], pixels: int, drawn: int, expected: int
) -> None:
    plan = Plan(METHODS[method] if method else None, (-1,) * targets, shed=changes.get("shed", False))
    attention = np.zeros((2, 2), np.float32) if changes.get("attention") else None
    question = Question("", b"", ExplainOptions(), attention=attention, raw=changes.get("raw", False))
    assert cost(plan, question, pixels, drawn) == expected


def test_a_plan_without_its_map_draws_none() -> None:
    plan = Plan(METHODS["graph"], (-1, 3))
    assert (plan.maps, replace(plan, shed=True).maps) == (2, 0)


# How it is let in


async def test_exactly_what_fits_is_let_in() -> None:
    async with serving(zoo_settings(work_capacity=3)) as service:
        held = await hold(service)
        waiting = [ask(service, number) for number in (1, 2)]
        await until(lambda: service.depth("explain") == 2)
        assert service.count("work", kind="answer") == service.count("work_capacity", kind="answer") == 3
        for number in (3, 4):
            response = await ask(service, number, PREDICT)
            assert refused(response, "too_much_work") == {"cost": 1, "held": 3, "limit": 3}
            assert response.headers["retry-after"] == "1"
        service.engine.gate.open()
        for number, task in enumerate([held, *waiting]):
            assert right(await task, number)
        assert service.count("work", kind="answer") == 0
        assert right(await ask(service, 3, PREDICT), 3)
        assert service.count("rejected_total", reason="too_much_work") == 2
        assert service.count("requests_total", outcome="rejected") == 2
        assert not service.engine.saw(IMAGES[4])


async def test_a_photograph_takes_the_place_of_many() -> None:
    """Refused by its header: not a pixel of it is decoded."""
    async with serving(zoo_settings(work_capacity=8)) as service:
        held = await hold(service)
        whole = photograph(3000, 3000)
        response = await service.client.post(PREDICT, content=whole[: len(whole) // 2], headers=JPEG)
        assert refused(response, "too_much_work")["cost"] == 10  # and not 400: it is half a file
        small = ask(service, 1, PREDICT)
        await until(lambda: service.depth("predict") == 1)
        service.engine.gate.open()
        assert right(await held, 0)
        assert right(await small, 1)


async def test_what_is_larger_than_all_there_is_goes_alone() -> None:
    async with serving(zoo_settings(work_capacity=1)) as service:
        response = await service.client.post(
            PREDICT, content=MEGAPIXEL, headers={"content-type": "image/jpeg"}
        )
        assert response.status_code == 200


async def test_each_image_of_a_request_is_let_in_or_not() -> None:
    async with serving(zoo_settings(work_capacity=2)) as service:
        held = await hold(service)
        several = asyncio.create_task(
            service.client.post(PREDICT, files=[("image", file) for file in FILES[1:4]])
        )
        await until(lambda: service.depth("predict") == 1)
        service.engine.gate.open()
        await held
        found = [entry.get("error", {}).get("code") for entry in (await several).json()["predictions"]]
        assert found == [None, "too_much_work", "too_much_work"]


async def test_tensors_are_let_in_by_the_same_measure() -> None:
    tensor = {
        "name": "image",
        "datatype": "UINT8",
        "shape": [1, 32, 32, 3],
        "data": IMAGES[1].ravel().tolist(),
    }
    async with serving(zoo_settings(work_capacity=1)) as service:
        held = await hold(service)
        response = await service.client.post(f"/v2/models/{NAME}/infer", json={"inputs": [tensor]})
        assert response.status_code == 429
        assert "forward passes" in response.json()["error"]
        assert response.headers["retry-after"] == "1"
        assert service.count("input_pixels_count") == 1  # who is refused is no input
        service.engine.gate.open()
        await held


@pytest.mark.parametrize("end", ["answered", "failed", "broken image", "unknown class", "gone", "late"])
async def test_however_it_ends_the_work_is_given_back(end: str, clock: Clock) -> None:
    async with serving(zoo_settings(work_capacity=100)) as service:
        work = service.state.pipeline.admission.answers
        if end in ("gone", "late"):
            held = await hold(service)
            caller = Caller(
                service.app, EXPLAIN, headers=[("content-type", "image/png")], query="deadline_ms=60000"
            )
            caller.send(FILES[1])
            await until(lambda: service.depth("explain") == 1)
            assert work.held == 2
            if end == "gone":
                caller.leave()
            else:
                await clock.advance(61)
            await caller.done
            assert caller.status == {"gone": 499, "late": 504}[end]
            service.engine.gate.open()
            await held
        else:
            service.engine.fault = broken if end == "failed" else None
            content = FILES[1][:200] if end == "broken image" else FILES[1]
            target = {"target": "zebra"} if end == "unknown class" else {}
            response = await service.client.post(EXPLAIN, content=content, headers=PNG, params=target)
            expected = {"answered": 200, "failed": 500, "broken image": 400, "unknown class": 404}
            assert response.status_code == expected[end]
        assert work.held == 0


# Giving up the map


async def explain_large(service: Service, **headers: str) -> httpx.Response:
    """One megapixel to decode and three to draw: 5 passes, or 2 for the label alone."""
    return await service.client.post(
        EXPLAIN,
        content=MEGAPIXEL,
        headers={**JPEG, **headers},
        params={"targets": "cat,dog,frog", "overlay": "blend"},
    )


async def test_a_map_that_is_too_much_is_given_up() -> None:
    """And its memory with it: what is left holds the image as it is decoded, and nothing to draw on."""
    async with serving(zoo_settings(work_capacity=4, shed=True, max_buffered_bytes=4_100_000)) as service:
        held = await hold(service)
        asked = asyncio.create_task(explain_large(service))
        await until(lambda: service.depth("predict") == 1)
        assert service.count("work", kind="answer") == 1 + 2
        service.engine.gate.open()
        await held
        body = (await asked).json()
        assert body["explanation"] == {"method": "gcm", "status": "shed", "target": None}
        assert service.count("requests_total", kind="explain", outcome="shed") == 1
        assert service.count("rejected_total") == 0
        assert service.count("input_pixels_count") == 2  # each image once


async def test_a_map_is_not_given_up_unless_told() -> None:
    async with serving(zoo_settings(work_capacity=4)) as service:
        held = await hold(service)
        assert refused(await explain_large(service), "too_much_work")["cost"] == 5
        service.engine.gate.open()
        await held


async def test_where_even_the_label_is_too_much_it_is_refused() -> None:
    async with serving(zoo_settings(work_capacity=2, shed=True)) as service:
        held = await hold(service)
        assert refused(await explain_large(service), "too_much_work")["cost"] == 2
        service.engine.gate.open()
        await held


async def test_a_picture_is_its_map() -> None:
    async with serving(zoo_settings(work_capacity=4, shed=True)) as service:
        held = await hold(service)
        assert refused(await explain_large(service, accept="image/png"), "too_much_work")["cost"] == 5
        service.engine.gate.open()
        await held


# How long it will take


def at(seconds: float) -> None:
    """Set the loop's time; no timer of a test that does so is due."""
    asyncio.get_running_loop().time = lambda: seconds  # type: ignore[method-assign]


async def test_the_wait_is_what_was_measured() -> None:
    at(0.0)
    work = Work(10)
    assert work.wait(5) is None
    with work.hold(4):
        at(2.0)
    assert work.wait(5) == 2.5  # two a second
    at(1000.0)  # nothing to do, and so nothing learnt
    with work.hold(10):
        with pytest.raises(TooMuchWork) as caught:
            work.take(6)
        assert (caught.value.retry_after, caught.value.status) == (3, 429)
        with pytest.raises(TooMuchWork) as caught:
            work.take(600)
        assert caught.value.retry_after == 5  # once all that is held is done
        assert work.held == 10
    assert work.held == 0


async def test_what_fails_is_no_measurement() -> None:
    at(0.0)
    work = Work(10)
    with pytest.raises(ValueError, match="no"), work.hold(4):
        raise ValueError("no")
    assert (work.held, work.wait(1)) == (0, None)


async def test_nothing_is_always_let_in_and_measures_nothing() -> None:
    """As a long explanation among the answers, which may have nothing to do meanwhile."""
    at(0.0)
    work = Work(4)
    with work.hold(10), work.hold(0):
        assert work.held == 10
        at(2.0)
    with work.hold(0):
        at(1000.0)
    assert (work.held, work.wait(10)) == (0, 2.0)


async def test_what_was_measured_long_ago_counts_less() -> None:
    at(0.0)
    work = Work(1000)
    with work.hold(10):
        at(MEMORY_SECONDS + 10)
    assert work.wait(1) == 4.0
    with work.hold(20):
        at(MEMORY_SECONDS + 30)
    assert work.wait(1) == (20 + 20) / (5 + 20)


@pytest.mark.parametrize(
    ("wait", "expected"), [(0.0, 1), (0.2, 1), (1.2, 2), (59.1, 60), (3600.0, 60), (None, 1)]
)
def test_retry_after_is_whole_seconds_within_reason(wait: float | None, expected: int) -> None:
    assert TooMuchWork("", wait=wait).headers() == {"retry-after": str(expected)}


# Long explanations


async def begin(service: Service, **parameters: Any) -> httpx.Response:
    return await service.client.post(
        EXPLAIN, content=FILES[1], headers=PNG, params={**OCCLUSION, **parameters}
    )


async def test_the_images_of_long_explanations_are_counted_apart() -> None:
    settings = zoo_settings(work_capacity=1, long_work_capacity=40, job_capacity=8, perturbation_batch=8)
    async with serving(settings) as service:
        service.engine.gate.shut()
        first = await begin(service)
        assert first.status_code == 202
        await service.engine.gate.entered()
        assert service.count("work", kind="long") == OCCLUSION_IMAGES
        detail = refused(await begin(service), "too_much_work")
        assert detail == {"cost": OCCLUSION_IMAGES, "held": OCCLUSION_IMAGES, "limit": 40}
        assert service.count("jobs") == 1
        waiting = ask(service, 2, PREDICT)  # has the one pass of the answers for itself
        await until(lambda: service.depth("predict") == 1)
        service.engine.gate.open()
        assert right(await waiting, 2)
        job = service.state.jobs.find(first.headers["location"].rpartition("/")[2])
        await until(lambda: job.ended)
        assert service.count("work", kind="long") == 0
        assert (await begin(service)).status_code == 202


async def test_what_is_done_makes_room_before_the_end() -> None:
    settings = zoo_settings(long_work_capacity=OCCLUSION_IMAGES, perturbation_batch=13)
    async with serving(settings) as service:
        gate = service.engine.gate
        gate.shut()
        first = await begin(service)
        job = service.state.jobs.find(first.headers["location"].rpartition("/")[2])
        await gate.entered()
        assert service.count("work", kind="long") == 26
        gate.open()
        gate.shut()  # at most one more batch is through
        await until(lambda: job.done >= 13)
        assert service.count("work", kind="long") == OCCLUSION_IMAGES - job.done
        gate.open()
        await until(lambda: job.ended)


async def test_a_cancelled_one_gives_its_images_back() -> None:
    async with serving(zoo_settings()) as service:
        service.engine.gate.shut()
        address = (await begin(service)).headers["location"]
        await service.engine.gate.entered()
        deleting = asyncio.create_task(service.client.delete(address))
        await until(lambda: service.count("work", kind="long") == 0)
        service.engine.gate.open()
        await deleting


# Deadlines that cannot be met


def test_nothing_is_said_of_what_was_never_measured() -> None:
    assert Pace(8).wait(100) == 0


def test_a_queue_takes_as_long_as_its_batches() -> None:
    pace = Pace(8)
    pace.add(8, 0.5)
    assert pace.wait(16) == 1.0
    assert pace.wait(17) == 1.0  # of a batch of one nothing is known
    pace.add(1, 0.25)
    assert pace.wait(17) == 1.25
    assert pace.wait(20) == 1.25  # as long as a smaller one at least


def test_a_slow_batch_is_forgotten_and_a_quick_one_counts() -> None:
    pace = Pace(8)
    pace.add(4, 10.0)  # the first of all, with everything to load
    pace.add(5, 0.1)
    assert pace.wait(4) == 0.1
    pace.add(5, 3.0)
    assert pace.wait(4) == pytest.approx(0.1 * 17 / 16)


def test_no_small_batch_is_slower_than_a_large_one() -> None:
    pace = Pace(8)
    pace.add(1, 10.0)
    pace.add(8, 0.5)
    assert pace.wait(1) == pace.wait(8) == 0.5


def test_no_batch_is_slower_than_smaller_ones_for_all_its_images() -> None:
    pace = Pace(8)
    pace.add(7, 60.0)  # it hung
    pace.add(1, 0.25)
    assert pace.wait(1) == 0.25
    assert pace.wait(7) == 7 * 0.25
    assert pace.wait(8) == 8 * 0.25
    pace.add(2, 0.4)
    assert pace.wait(7) == 4 * 0.4
    pace.add(8, 0.5)
    assert pace.wait(7) == 0.5


@pytest.fixture
def slow_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what is measured, each takes a hundred seconds."""
    really = Pace.add
    monkeypatch.setattr(Pace, "add", lambda self, size, seconds: really(self, size, 100.0))


@pytest.mark.usefixtures("slow_batches", "clock")
async def test_who_would_be_late_is_refused_at_once() -> None:
    async with serving(zoo_settings(max_batch=2)) as service:
        held = await hold(service, PREDICT)
        waiting = [ask(service, number, PREDICT) for number in (1, 2, 3)]
        await until(lambda: service.depth("predict") == 3)
        late = await ask(service, 4, PREDICT, deadline_ms=190_500)
        assert refused(late, "deadline_unreachable") == {"waiting": 3}
        assert "the answer would take 200000 ms" in late.json()["error"]["message"]
        assert late.headers["retry-after"] == "10"
        assert service.depth("predict") == 3
        in_time = ask(service, 5, PREDICT, deadline_ms=200_500)
        await until(lambda: service.depth("predict") == 4)
        service.engine.gate.open()
        for number, task in enumerate([held, *waiting]):
            assert right(await task, number)
        assert right(await in_time, 5)
        assert not service.engine.saw(IMAGES[4])
        assert service.count("rejected_total", reason="deadline_unreachable") == 1
        assert service.count("requests_total", kind="predict", outcome="rejected") == 1
        assert service.count("requests_total", kind="predict", outcome="deadline") == 0


@pytest.mark.usefixtures("slow_batches")
async def test_with_nobody_ahead_nobody_is_refused() -> None:
    """The measurement may be of another hour; the deadline itself will tell."""
    async with serving(zoo_settings()) as service:
        assert right(await ask(service, 1, PREDICT, deadline_ms=90_000), 1)


@pytest.mark.usefixtures("slow_batches")
async def test_a_batch_that_hung_keeps_nobody_out_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever finds nobody waiting is taken, and shows that the engine is quick again."""
    async with serving(zoo_settings()) as service:
        held = await hold(service, PREDICT)
        together = [ask(service, number, PREDICT) for number in range(1, 7)]
        await until(lambda: service.depth("predict") == 6)
        service.engine.gate.open()
        await asyncio.gather(held, *together)
        monkeypatch.undo()
        assert right(await ask(service, 0, PREDICT), 0)
        held = await hold(service, PREDICT)
        waiting = [ask(service, number, PREDICT, deadline_ms=60_000) for number in range(1, 7)]
        await until(lambda: service.depth("predict") == 6)
        service.engine.gate.open()
        for number, task in enumerate([held, *waiting]):
            assert right(await task, number)


@pytest.mark.usefixtures("slow_batches")
async def test_a_map_that_would_be_late_is_given_up() -> None:
    async with serving(zoo_settings(shed=True)) as service:
        held = await hold(service)
        waiting = ask(service, 1)
        await until(lambda: service.depth("explain") == 1)
        shed = ask(service, 2, deadline_ms=90_000)
        await until(lambda: service.depth("predict") == 1)
        service.engine.gate.open()
        assert (await shed).json()["explanation"]["status"] == "shed"
        assert [(await task).json()["explanation"]["status"] for task in (held, waiting)] == [
            "all_negative"
        ] * 2


@pytest.mark.usefixtures("slow_batches")
async def test_a_full_queue_says_when_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    really = Pace.wait
    monkeypatch.setattr(Pace, "wait", lambda self, items: really(self, items) / 100)
    async with serving(zoo_settings(queue_capacity=5, max_batch=2)) as service:
        held = await hold(service, PREDICT)
        waiting = [ask(service, number, PREDICT) for number in range(1, 6)]
        await until(lambda: service.depth("predict") == 5)
        full = await ask(service, 6, PREDICT)
        refused(full, "queue_full")
        assert full.headers["retry-after"] == "3"  # five wait, two at a time, a second each
        service.engine.gate.open()
        await asyncio.gather(held, *waiting)
