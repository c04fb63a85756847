"""Long explanations: as jobs, and as streams of events."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from faults import PATIENCE, Clock, broken, until
from processes import Process, eventually, process
from services import (
    EXPLAIN,
    FILES,
    IMAGES,
    PNG,
    PREDICT,
    Caller,
    Service,
    ask,
    attention_models,
    right,
    serving,
    zoo_settings,
)

from konkyo.errors import KonkyoError, UnknownJob
from konkyo.imaging import UInt8
from konkyo.models.bundle import read_bundle
from konkyo.perturbation import explain
from konkyo.service.budget import MemoryBudget
from konkyo.service.engines import make_engine
from konkyo.service.engines.base import Engine, Float32
from konkyo.service.jobs import Body, Job, Jobs
from konkyo.service.metrics import Metrics
from konkyo.service.settings import ZOO

EVENTS = {"accept": "text/event-stream"}
OCCLUSION = {"method": "occlusion", "patch": 8, "stride": 6, "map": "float32"}  # 1 + 25 images
RISE = {"method": "rise", "masks": 20, "cells": 4, "seed": 3, "map": "float32"}


def begin(
    service: Service, number: int = 1, headers: dict[str, str] | None = None, **parameters: Any
) -> asyncio.Task[httpx.Response]:
    return asyncio.create_task(
        service.client.post(
            EXPLAIN, content=FILES[number], headers={**PNG, **(headers or {})}, params=parameters
        )
    )


async def begun(service: Service, number: int = 1, **parameters: Any) -> str:
    """Begin a job; its address."""
    response = await begin(service, number, **(parameters or OCCLUSION))
    assert response.status_code == 202, response.text
    return response.headers["location"]


async def ended(service: Service, address: str) -> Body:
    """A job once it has ended."""
    jobs = service.state.jobs
    await until(lambda: jobs.find(address.rpartition("/")[2]).ended)
    body: Body = (await service.client.get(address)).json()
    return body


def events(text: str) -> list[tuple[str, Body]]:
    """Names and data, in order; comments are not events."""
    found = []
    for block in text.split("\n\n"):
        if block and not block.startswith(":"):
            name, data = block.split("\n")
            found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def maps_of(result: Body) -> Float32:
    explanation = result["explanation"]
    return np.stack(
        [
            np.frombuffer(base64.b64decode(entry["map"]["data"]), "<f4").reshape(32, 32)
            for entry in explanation.get("maps", [explanation])
        ]
    )


def directly(engine: Engine, image: UInt8, targets: Sequence[int], **parameters: Any) -> Float32:
    """The library on the engine, with the service's batches."""

    def predict(images: UInt8) -> Float32:
        return engine.run(images, np.empty((len(images), 0), np.int64)).logits

    parameters = {name: value for name, value in parameters.items() if name != "map"}
    return explain(predict, image, targets, batch_size=8, **parameters)


def timeless(result: Body) -> Body:
    return {name: value for name, value in result.items() if name not in ("id", "timing_ms")}


# The answer


@pytest.mark.parametrize("parameters", [OCCLUSION, RISE], ids=lambda parameters: parameters["method"])
async def test_a_job_is_begun_polled_and_done(parameters: dict[str, Any]) -> None:
    total = {"occlusion": 26, "rise": 21}[parameters["method"]]
    async with serving(zoo_settings()) as service:
        service.engine.gate.shut()
        response = await begin(service, targets="2,9,4", **parameters)
        assert response.status_code == 202
        body = response.json()
        address = response.headers["location"]
        assert address == f"/v1/jobs/{body['id']}"
        assert response.headers["x-model"] == "gcm-cifar10"
        assert body == {
            "id": body["id"], "model": "gcm-cifar10", "version": "1", "method": parameters["method"],
            "state": "queued", "progress": {"done": 0, "total": total}, "result": None, "error": None,
        }  # fmt: skip
        assert (await service.client.get(address)).json() == body
        assert service.count("jobs") == 1

        service.engine.gate.open()
        job = await ended(service, address)
        assert (job["state"], job["error"]) == ("done", None)
        assert job["progress"] == {"done": total, "total": total}
        result = job["result"]
        assert result["label"] == "truck"
        assert [entry["target"]["index"] for entry in result["explanation"]["maps"]] == [2, 9, 4]
        assert np.array_equal(maps_of(result), directly(service.engine, IMAGES[1], [2, 9, 4], **parameters))
        assert result["batch_size"] == 8
        assert result["geometry"]["map"] == [32, 32]
        assert service.count("jobs") == 0
        assert service.count("requests_total", kind="perturb", outcome="success") == 1
        assert service.count("executions_total", kind="perturb") == -(-total // 8)


async def test_an_old_model_in_its_own_runtime() -> None:
    settings = zoo_settings(engine="onnx")
    engine = make_engine(read_bundle(ZOO / "gcm-cifar10" / "1"), settings)
    async with serving(settings, make_engine=make_engine) as service:
        job = await ended(service, await begun(service, 5, **OCCLUSION))
    assert job["state"] == "done"
    expected = directly(engine, IMAGES[5], [-1], **OCCLUSION)
    assert np.ptp(expected) > 0
    assert np.allclose(maps_of(job["result"]), expected, atol=1e-6)


async def test_every_bundle_that_ships_has_them_without_torch() -> None:
    settings = zoo_settings(engine="onnx", repository=ZOO)
    async with serving(settings, make_engine=make_engine) as service:
        for model in service.state.repository.models():
            side = model.bundle.card.input.width // 2
            for parameters in ({"method": "occlusion", "patch": side, "stride": side}, {**RISE, "masks": 3}):
                response = await service.client.post(
                    f"/v1/models/{model.name}:explain", content=FILES[1], headers=PNG, params=parameters
                )
                job = await ended(service, response.headers["location"])
                assert job["result"]["explanation"]["status"] in ("ok", "all_negative"), model.name


async def test_where_the_own_map_is_the_same_for_every_class() -> None:
    async with serving(zoo_settings(repository=attention_models())) as service:
        response = await service.client.post(
            "/v1/models/three:explain", content=FILES[1], headers=PNG, params={**OCCLUSION, "target": "cat"}
        )
        job = await ended(service, response.headers["location"])
        [map_] = maps_of(job["result"])
        engine = service.engines[1]
        assert job["result"]["explanation"]["target"] == {"label": "cat", "index": 3}
        assert np.array_equal(map_, directly(engine, IMAGES[1], [3], **OCCLUSION)[0])


async def test_a_failure_is_explained_by_both_classes() -> None:
    async with serving(zoo_settings()) as service:
        job = await ended(service, await begun(service, truth="cat", **RISE))
        assert job["result"]["truth"]["correct"] is False
        roles = [entry["role"] for entry in job["result"]["explanation"]["maps"]]
        assert roles == ["predicted", "true"]
        assert np.array_equal(maps_of(job["result"]), directly(service.engine, IMAGES[1], [-1, 3], **RISE))


async def test_events_come_in_order_and_the_result_is_that_of_a_job() -> None:
    async with serving(zoo_settings()) as service:
        response = await begin(service, headers=EVENTS, **OCCLUSION)
        job = await ended(service, await begun(service, **OCCLUSION))
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-cache"
        *progress, (name, result) = events(response.text)
        assert {name for name, _ in progress} == {"progress"}
        assert [body["done"] for _, body in progress] == [0, 8, 16, 24, 26]
        assert {body["total"] for _, body in progress} == {26}
        assert name == "result"
        assert timeless(result) == timeless(job["result"])


async def test_events_may_carry_the_explanation_so_far() -> None:
    async with serving(zoo_settings()) as service:
        response = await begin(service, headers=EVENTS, interim=True, **RISE)
        found = events(response.text)
        assert [("explanation" in body, body.get("done")) for _, body in found[:-1]] == [
            (False, 0), (True, 8), (True, 16), (False, 21),
        ]  # fmt: skip
        seven = maps_of(found[1][1])
        assert np.array_equal(seven, directly(service.engine, IMAGES[1], [-1], **{**RISE, "masks": 7}))


async def test_a_picture_comes_inside_the_result() -> None:
    async with serving(zoo_settings()) as service:
        job = await ended(service, await begun(service, **{**RISE, "overlay": "blend"}))
        assert job["result"]["explanation"]["overlay"]["media_type"] == "image/png"


async def test_one_instance_in_json_is_a_request_for_one() -> None:
    async with serving(zoo_settings()) as service:
        image = {"image_bytes": {"b64": base64.b64encode(FILES[1]).decode()}}
        response = await service.client.post(EXPLAIN, json={"instances": [image], "parameters": OCCLUSION})
        job = await ended(service, response.headers["location"])
        assert np.array_equal(maps_of(job["result"]), directly(service.engine, IMAGES[1], [-1], **OCCLUSION))


# Who waits for whom


async def test_a_prediction_waits_for_one_batch_of_a_job() -> None:
    async with serving(zoo_settings()) as service:
        seen = len(service.engine.batches)
        service.engine.gate.shut()
        address = await begun(service)
        await service.engine.gate.entered()
        predicting = ask(service, 2, PREDICT)
        await until(lambda: service.depth("predict") == 1)
        service.engine.gate.open()
        assert right(await predicting, 2)
        assert (await ended(service, address))["state"] == "done"
        sizes = [len(batch) for batch in service.engine.batches[seen:]]
        assert sizes == [8, 1, 8, 8, 2]
        assert np.array_equal(service.engine.batches[seen + 1][0], IMAGES[2])


async def test_several_jobs_take_turns() -> None:
    async with serving(zoo_settings(queue_capacity=8)) as service:
        seen = len(service.engine.batches)
        service.engine.gate.shut()
        first = await begun(service, 1, **OCCLUSION)
        await service.engine.gate.entered()
        second = await begun(service, 2, **RISE)
        service.engine.gate.open()
        jobs = [await ended(service, address) for address in (first, second)]
        assert [job["state"] for job in jobs] == ["done", "done"]
        assert all(
            np.array_equal(maps_of(job["result"]), directly(service.engine, image, [-1], **parameters))
            for job, image, parameters in zip(jobs, IMAGES[1:3], (OCCLUSION, RISE), strict=True)
        )
        sizes = [len(batch) for batch in service.engine.batches[seen : seen + 7]]
        assert sizes == [8, 8, 8, 8, 8, 5, 2]


# Ends before the end


async def test_a_cancelled_job_frees_the_queue() -> None:
    async with serving(zoo_settings()) as service:
        service.engine.gate.shut()
        address = await begun(service)
        await service.engine.gate.entered()
        response = await service.client.delete(address)
        assert (response.status_code, response.json()["state"]) == (200, "cancelled")
        assert response.json()["progress"] == {"done": 0, "total": 26}
        seen = len(service.engine.batches)
        service.engine.gate.open()
        assert right(await ask(service, 2, PREDICT), 2)
        assert [len(batch) for batch in service.engine.batches[seen:]] == [8, 1]  # the one under way
        assert service.depth("perturb") == 0
        assert service.count("requests_total", kind="perturb", outcome="cancelled") == 1

        assert (await service.client.get(address)).json()["state"] == "cancelled"
        assert (await service.client.delete(address)).status_code == 200  # and now it is forgotten
        assert (await service.client.get(address)).status_code == 404
        assert service.state.budget.held == 0


async def test_who_leaves_a_stream_cancels_it() -> None:
    async with serving(zoo_settings()) as service:
        service.engine.gate.shut()
        caller = Caller(
            service.app, EXPLAIN, headers=[*PNG.items(), *EVENTS.items()], query="method=occlusion&patch=8"
        )
        caller.send(FILES[1])
        await service.engine.gate.entered()
        await until(lambda: b"progress" in caller.body)
        assert events(caller.body.decode()) == [("progress", {"done": 0, "total": 50})]
        caller.leave()
        await caller.done
        seen = len(service.engine.batches)
        service.engine.gate.open()
        assert right(await ask(service, 2, PREDICT), 2)
        assert [len(batch) for batch in service.engine.batches[seen:]] == [8, 1]
        assert service.count("jobs") == 0
        assert service.count("requests_total", kind="perturb", outcome="cancelled") == 1
        assert service.state.budget.held == 0


async def test_a_stream_that_waits_says_so(clock: Clock) -> None:
    async with serving(zoo_settings()) as service:
        service.engine.gate.shut()
        caller = Caller(
            service.app, EXPLAIN, headers=[*PNG.items(), *EVENTS.items()], query="method=rise&masks=3"
        )
        caller.send(FILES[1])
        await until(lambda: b"progress" in caller.body)
        await clock.advance(14)
        assert b": ping" not in caller.body
        await clock.advance(2)
        await until(lambda: b": ping\n\n" in caller.body)
        service.engine.gate.open()
        await caller.done
        assert [name for name, _ in events(caller.body.decode())] == ["progress", "progress", "result"]


async def test_a_deadline_passes(clock: Clock) -> None:
    async with serving(zoo_settings(default_deadline_ms=1)) as service:  # of a prediction, not of a job
        service.engine.gate.shut()
        address = await begun(service, deadline_ms=60_000, **OCCLUSION)
        await service.engine.gate.entered()
        await clock.advance(59)
        assert (await service.client.get(address)).json()["state"] == "queued"
        await clock.advance(2)
        job = await ended(service, address)
        assert (job["state"], job["error"]["code"]) == ("failed", "deadline_exceeded")
        assert service.count("requests_total", kind="perturb", outcome="deadline") == 1


async def test_an_engine_that_fails_fails_the_job() -> None:
    async with serving(zoo_settings()) as service:
        service.engine.fault = broken
        job = await ended(service, await begun(service))
        assert (job["state"], job["error"]["code"]) == ("failed", "inference_failed")
        streamed = events((await begin(service, headers=EVENTS, **OCCLUSION)).text)
        assert streamed[-1] == ("error", {"error": job["error"]})
        assert [name for name, _ in streamed] == ["progress", "error"]
        service.engine.fault = None
        assert (await ended(service, await begun(service)))["state"] == "done"
        assert service.count("requests_total", kind="perturb", outcome="error") == 2


async def test_closing_cancels_what_is_at_work() -> None:
    async with serving(zoo_settings()) as service:
        service.engine.gate.shut()
        address = await begun(service)
        job = service.state.jobs.find(address.rpartition("/")[2])
        await service.engine.gate.entered()
    assert job.state == "cancelled"
    assert service.state.budget.held == 0


async def test_nothing_long_begins_while_draining() -> None:
    async with serving(zoo_settings()) as service:
        service.state.draining = True
        response = await begin(service, **OCCLUSION)
        assert (response.status_code, response.json()["error"]["code"]) == (503, "draining")
        assert response.headers["retry-after"] == "1"
        assert (await ask(service, 2)).status_code == 200


# Bounds


async def test_too_many_at_once_are_refused() -> None:
    async with serving(zoo_settings(job_capacity=2)) as service:
        service.engine.gate.shut()
        address = await begun(service)
        streaming = begin(service, headers=EVENTS, **OCCLUSION)
        await until(lambda: service.count("jobs") == 2)
        for headers in (None, EVENTS):
            response = await begin(service, headers=headers, **RISE)
            assert response.status_code == 429
            assert response.headers["retry-after"] == "5"
            assert response.json()["error"]["code"] == "too_many_jobs"
            assert response.json()["error"]["detail"] == {"capacity": 2}
        await service.client.delete(address)
        another = await begun(service)
        service.engine.gate.open()
        assert (await ended(service, another))["state"] == "done"
        assert events((await streaming).text)[-1][0] == "result"
        assert service.count("rejected_total", reason="too_many_jobs") == 2


async def test_results_expire(clock: Clock) -> None:
    async with serving(zoo_settings(job_ttl_seconds=100)) as service:
        address = await begun(service)
        await ended(service, address)
        assert service.state.budget.held > len(maps_of((await service.client.get(address)).json()["result"]))
        await clock.advance(99)
        assert (await service.client.get(address)).status_code == 200
        await clock.advance(2)
        response = await service.client.get(address)
        assert (response.status_code, response.json()["error"]["code"]) == (404, "unknown_job")
        assert service.state.budget.held == 0


async def test_the_oldest_result_gives_way() -> None:
    async with serving(zoo_settings(job_results=2)) as service:
        addresses = []
        for _ in range(3):
            addresses.append(await begun(service))
            await ended(service, addresses[-1])
        assert [(await service.client.get(address)).status_code for address in addresses] == [404, 200, 200]


async def test_what_a_job_holds_counts() -> None:
    async with serving(zoo_settings()) as service:
        budget: MemoryBudget = service.state.budget
        service.engine.gate.shut()
        await begun(service)
        await service.engine.gate.entered()
        held = budget.held
        assert held > len(FILES[1]) + 8 * 32 * 32 * 3  # the file and a batch
        response = await begin(service, **OCCLUSION)
        assert budget.held == 2 * held
        budget.limit = 3 * held - 1
        refused = await begin(service, **OCCLUSION)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "overloaded")
        await service.client.delete(response.headers["location"])


async def test_a_result_for_which_there_is_no_memory() -> None:
    async with serving(zoo_settings()) as service:
        service.engine.gate.shut()
        address = await begun(service)
        await service.engine.gate.entered()
        service.state.budget.limit = 1000  # others hold the rest by now
        service.engine.gate.open()
        job = await ended(service, address)
        assert (job["state"], job["error"]["code"], job["result"]) == ("failed", "overloaded", None)
        assert service.state.budget.held == 0


@pytest.mark.parametrize("address", ["/v1/jobs/nothing", f"/v1/jobs/{'0' * 32}"])
async def test_an_unknown_job(address: str) -> None:
    async with serving(zoo_settings()) as service:
        for response in (await service.client.get(address), await service.client.delete(address)):
            assert (response.status_code, response.json()["error"]["code"]) == (404, "unknown_job")


async def test_ids_cannot_be_guessed() -> None:
    ids = {Job({"model": "m", "version": "1"}, "rise").id for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(identity) == 32 and int(identity, 16) >= 0 for identity in ids)


# Refused before it begins


@pytest.mark.parametrize(
    ("parameters", "status", "code"),
    [
        ({**OCCLUSION, "target": "unicorn"}, 404, "unknown_class"),
        ({**OCCLUSION, "patch": 33}, 422, "invalid_parameter"),
        ({**OCCLUSION, "patch": 4, "stride": 5}, 422, "invalid_parameter"),
        ({**OCCLUSION, "patch": 0}, 422, "invalid_parameter"),
        ({**OCCLUSION, "masks": 5}, 422, "invalid_parameter"),
        ({**OCCLUSION, "fill": "red"}, 422, "invalid_parameter"),
        ({**RISE, "probability": 1}, 422, "invalid_parameter"),
        ({**RISE, "masks": 31}, 422, "invalid_parameter"),  # 32 images, and the limit is 31
        ({**RISE, "attention": "[[1]]"}, 422, "invalid_parameter"),
        ({**RISE, "interim": True}, 422, "invalid_parameter"),
        ({**RISE, "target": "cat", "truth": "dog"}, 422, "invalid_parameter"),
        ({"method": "gcm", "patch": 4}, 422, "invalid_parameter"),
    ],
    ids=lambda value: str(value.get("method")) if isinstance(value, dict) else str(value),
)
async def test_what_is_wrong_is_the_answer(parameters: dict[str, Any], status: int, code: str) -> None:
    async with serving(zoo_settings(max_perturbations=31)) as service:
        seen = len(service.engine.batches)
        for headers in (None, None if "interim" in parameters else EVENTS):
            response = await begin(service, headers=headers, **parameters)
            assert (response.status_code, response.json()["error"]["code"]) == (status, code)
        assert len(service.engine.batches) == seen
        assert service.count("jobs") == 0
        assert service.state.budget.held == 0
        assert service.count("requests_total", outcome="invalid") == 2
        assert (await begin(service, **{**RISE, "masks": 30})).status_code == 202


@pytest.mark.parametrize("accept", [{}, EVENTS])
async def test_an_image_that_is_none(accept: dict[str, str]) -> None:
    async with serving(zoo_settings()) as service:
        response = await service.client.post(
            EXPLAIN, content=b"no image", headers={**PNG, **accept}, params=OCCLUSION
        )
        assert (response.status_code, response.json()["error"]["code"]) == (415, "unsupported_image")
        assert service.count("requests_total", outcome="invalid") == 1


async def test_several_images() -> None:
    async with serving(zoo_settings()) as service:
        parts = [("image", ("a.png", FILES[number], "image/png")) for number in (1, 2)]
        response = await service.client.post(EXPLAIN, files=parts, data={"method": "rise"})
        assert response.status_code == 422
        assert "one image" in response.json()["error"]["message"]


async def test_a_picture_alone() -> None:
    async with serving(zoo_settings()) as service:
        response = await begin(service, headers={"accept": "image/png"}, **RISE)
        assert response.status_code == 422
        assert "text/event-stream" in response.json()["error"]["message"]


async def test_other_methods_answer_at_once_whatever_is_accepted() -> None:
    async with serving(zoo_settings()) as service:
        response = await begin(service, headers=EVENTS)
        assert response.status_code == 200
        assert response.json()["explanation"]["method"] == "gcm"


# Over a socket


@contextmanager
def streaming(server: Process, masks: int) -> Iterator[Iterator[str]]:
    """The lines of a stream of RISE, as they come."""
    with server.connect() as connection, connection.makefile("rb") as answer:
        head = f"POST {EXPLAIN}?method=rise&masks={masks}&map=none HTTP/1.1\r\nhost: konkyo\r\n"
        head += f"accept: text/event-stream\r\ncontent-length: {len(FILES[1])}\r\n\r\n"
        connection.sendall(head.encode() + FILES[1])
        assert answer.readline() == b"HTTP/1.1 200 OK\r\n"
        yield (line.decode().strip() for line in answer)


def working(server: Process) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    with closing(connection):
        connection.request("GET", "/metrics")
        found = re.search(r"^konkyo_jobs (\S+)$", connection.getresponse().read().decode(), re.M)
    assert found
    return int(float(found[1]))


def test_a_real_server_streams_polls_and_ends(tmp_path: Path) -> None:
    limits = {"max_perturbations": 200_000, "long_work_capacity": 300_000}
    with process(tmp_path, drain_seconds=0, shutdown_seconds=1, **limits) as server:
        server.ready()
        with streaming(server, masks=100_000) as lines:
            read = (json.loads(line[6:]) for line in lines if line.startswith("data: "))
            done = [next(read)["done"] for _ in range(3)]
            assert done[0] == 0  # long before the end
            assert done == sorted(set(done))
            assert working(server) == 1
        eventually(lambda: working(server) == 0)  # closing the connection has cancelled it

        with streaming(server, masks=50) as lines:
            assert next(line for line in lines if line.startswith("event: ") and "progress" not in line) == (
                "event: result"
            )

        status, job = server.request("POST", f"{EXPLAIN}?method=rise&masks=100000", FILES[1])
        assert (status, job["state"]) == (202, "queued")
        address = f"/v1/jobs/{job['id']}"
        eventually(lambda: server.request("GET", address)[1]["progress"]["done"] > 0)
        assert server.request("POST", PREDICT, FILES[2])[0] == 200
        assert server.request("GET", address)[1]["state"] == "running"
        with streaming(server, masks=100_000) as lines:
            assert next(lines)
            server.signal(signal.SIGTERM)
            assert server.exit_code() == 0, server.log()
        assert "Traceback" not in server.log()


# Jobs by themselves


def jobs(**settings: Any) -> tuple[Jobs, Metrics]:
    metrics = Metrics()
    return Jobs(zoo_settings(**settings), metrics, MemoryBudget(10**6)), metrics


LABELS = {"model": "m", "version": "1"}


async def test_a_fault_of_ours_is_told_without_its_words(caplog: pytest.LogCaptureFixture) -> None:
    async def work(job: Job) -> Body:
        job.begin(1)
        raise ZeroDivisionError("secret")

    known, metrics = jobs()
    job = Job(LABELS, "rise")
    await known.start(job, work, keep=True)
    await until(lambda: job.ended)
    assert job.body()["error"]["code"] == "internal"
    assert "secret" not in json.dumps(job.body())
    assert "secret" in caplog.text
    assert b'outcome="error",version="1"} 1.0' in metrics.render()


async def test_what_never_begins_is_never_found() -> None:
    async def work(job: Job) -> Body:
        raise KonkyoError("no")

    known, _ = jobs()
    job = Job(LABELS, "rise")
    with pytest.raises(KonkyoError, match="no"):
        await known.start(job, work, keep=True)
    with pytest.raises(UnknownJob):
        known.find(job.id)


async def test_a_slow_watcher_misses_what_was_overtaken_and_never_the_end() -> None:
    job = Job(LABELS, "rise")
    job.begin(9)
    watching = job.watch(60)
    assert await anext(watching)
    job.progress(3)
    job.progress(6)
    assert await anext(watching)
    assert (job.done, job.state) == (6, "running")
    job.progress(9)
    job.end("done", result={})
    assert await anext(watching)
    assert (job.state, job.result) == ("done", {})
    with pytest.raises(StopAsyncIteration):
        await anext(watching)


async def test_who_comes_late_sees_the_end_alone() -> None:
    job = Job(LABELS, "rise")
    job.end("cancelled")
    assert [changed async for changed in job.watch(60)] == [True]
