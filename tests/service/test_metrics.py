"""What is counted, and that callers cannot make it grow."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import get_args

import httpx
import numpy as np
from faults import broken, until
from PIL import Image
from processes import process
from prometheus_client.parser import text_string_to_metric_families
from services import Caller, Service, one_model, pictures, serving, zoo_settings

from konkyo.service.metrics import Outcome

EXPLAIN, PREDICT = "/v1/models/gcm-cifar10:explain", "/v1/models/gcm-cifar10:predict"


def png(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


PNG = png(next(pictures(1)))


def outcomes(service: Service, kind: str) -> dict[str, float]:
    """Requests by how they ended, without the zeros."""
    counts = {
        outcome: service.count("requests_total", kind=kind, outcome=outcome) for outcome in get_args(Outcome)
    }
    return {outcome: count for outcome, count in counts.items() if count}


async def test_answers_and_refusals_are_counted_once() -> None:
    async with serving(zoo_settings()) as service:
        for _ in range(3):
            await service.client.post(PREDICT, content=PNG)
        await service.client.post(PREDICT, content=b"no image")
        await service.client.post(PREDICT, content=PNG[:60])
        await service.client.post(PREDICT, content=PNG, params={"deadline_ms": 1e-9})
        await service.client.post(EXPLAIN, content=PNG)
        await service.client.post(EXPLAIN, content=PNG, params={"target": "unicorn"})
        await service.client.post(EXPLAIN, content=PNG, params={"method": "lime"})
        assert outcomes(service, "predict") == {"success": 3, "invalid": 2, "deadline": 1}
        assert outcomes(service, "explain") == {"success": 1, "invalid": 2}


async def test_an_engine_that_fails_is_an_error() -> None:
    async with serving(zoo_settings()) as service:
        service.engine.fault = broken
        await service.client.post(PREDICT, content=PNG)
        assert outcomes(service, "predict") == {"error": 1}


async def test_a_full_queue_is_rejected_or_shed() -> None:
    async with serving(zoo_settings(queue_capacity=1, shed=True)) as service:
        service.engine.gate.shut()
        tasks = [asyncio.create_task(service.client.post(EXPLAIN, content=PNG))]
        await service.engine.gate.entered()
        tasks.append(asyncio.create_task(service.client.post(EXPLAIN, content=PNG)))
        await until(lambda: service.depth("explain") == 1)
        tasks.append(asyncio.create_task(service.client.post(EXPLAIN, content=PNG)))  # loses its map
        await until(lambda: service.depth("predict") == 1)
        assert service.count("queue_depth", kind="explain") == 1
        assert service.count("queue_capacity", kind="explain") == 1
        assert (await service.client.post(PREDICT, content=PNG)).status_code == 429
        service.engine.gate.open()
        await asyncio.gather(*tasks)
        assert outcomes(service, "explain") == {"success": 2, "shed": 1}
        assert outcomes(service, "predict") == {"rejected": 1}
        assert service.count("rejected_total", reason="queue_full") == 1
        assert service.count("queue_depth") == 0


async def test_a_caller_who_leaves_is_cancelled() -> None:
    async with serving(zoo_settings()) as service:
        service.engine.gate.shut()
        caller = Caller(service.app, PREDICT)
        caller.send(PNG)
        await service.engine.gate.entered()
        caller.leave()
        await caller.done
        assert outcomes(service, "predict") == {"cancelled": 1}


async def test_what_an_answer_leaves_behind() -> None:
    image = np.asarray(Image.fromarray(next(pictures(1))).resize((64, 40)))
    async with serving(zoo_settings()) as service:
        canaries = service.count("inferences_total", kind="explain")
        await service.client.post(EXPLAIN, content=png(image), params={"targets": "cat,dog"})
        assert service.count("inferences_total", kind="explain") == canaries + 1
        assert service.count("executions_total", kind="explain") == canaries + 1
        assert service.count("batch_size_sum", kind="explain") == canaries + 1
        assert service.count("input_pixels_sum") == 64 * 40
        assert service.count("input_bytes_sum") == len(png(image))
        assert service.count("queue_seconds_count", kind="explain") == 1
        assert service.count("prediction_score_count") == 1
        assert service.count("predictions_total", label="truck") == 1
        assert service.count("map_entropy_count") == 2
        for stage in ("decode", "render"):
            assert service.count("stage_duration_seconds_count", stage=stage) == 1
        assert service.count("http_request_duration_seconds_count", method="POST", status="200") == 1
        assert service.count("model_ready") == 1
        assert service.count("model_load_seconds") > 0
        assert service.count("build_info") == 1


async def test_maps_that_show_nothing_are_counted() -> None:
    async with serving(zoo_settings()) as service:
        grey = png(np.full((32, 32, 3), 90, np.uint8))
        await service.client.post(EXPLAIN, content=grey, params={"target": 0})
        assert service.count("degenerate_maps_total", method="gcm", reason="flat") == 1


async def test_hostile_requests_make_no_new_series() -> None:
    async with serving(zoo_settings()) as service:

        async def series() -> int:
            text = (await service.client.get("/metrics")).text
            return sum(1 for line in text.splitlines() if not line.startswith("#"))

        async def attack(number: int) -> None:
            for method in ("GET", f"X{number}"):
                await service.client.request(method, f"/nowhere/{number}")
                await service.client.request(method, f"/v1/models/m{number}")
                await service.client.request(method, f"/static/{number}")
            await service.client.post(f"/v1/models/m{number}:explain", content=PNG)
            await service.client.post(f"/v1/models/gcm-cifar10/versions/{number + 2}:explain", content=PNG)
            await service.client.post(EXPLAIN, content=PNG, params={"target": f"class{number}"})
            await service.client.post(EXPLAIN, content=PNG, params={"method": f"method{number}"})

        await attack(0)
        await series()
        before = await series()
        for number in range(1, 30):
            await attack(number)
        assert await series() == before
        routes = {
            sample.labels["route"]
            for family in service.state.metrics.registry.collect()
            for sample in family.samples
            if "route" in sample.labels
        }
        assert routes == {
            "unmatched", "/metrics", "/v1/models/{model}", "/v1/models/{model}:explain",
            "/v1/models/{model}/versions/{version}:explain",
        }  # fmt: skip


async def test_the_exposition_can_be_read() -> None:
    async with serving(zoo_settings()) as service:
        response = await service.client.get("/metrics")
        assert response.headers["content-type"].startswith("text/plain")
        names = {family.name for family in text_string_to_metric_families(response.text)}
        assert "konkyo_requests" in names
        assert "process_resident_memory_bytes" in names
        assert all(name.startswith(("konkyo_", "process_")) for name in names)


def test_metrics_on_a_port_of_their_own(tmp_path: Path, free_port: int) -> None:
    with process(tmp_path, repository=one_model(), metrics_port=free_port) as server:
        server.ready()
        assert server.request("GET", "/metrics")[0] == 404
        response = httpx.get(f"http://127.0.0.1:{free_port}/metrics", trust_env=False)
        assert response.status_code == 200
        assert 'konkyo_model_ready{model="gcm-cifar10",version="1"} 1.0' in response.text


async def test_what_is_refused_before_there_is_an_image_is_counted() -> None:
    settings = zoo_settings(engine="fake", max_body_bytes=1000, max_pixels=100, max_buffered_bytes=2000)
    async with serving(settings) as service:
        path = f"/v1/models/{service.model.name}:predict"
        assert (await service.client.post(path, content=bytes(2000))).status_code == 413
        assert (await service.client.post(path, content=b"")).status_code == 400
        with service.state.budget.hold(1999):
            assert (await service.client.post(path, content=b"much")).status_code == 429
        assert service.count("requests_total", outcome="invalid") == 2
        assert service.count("requests_total", outcome="rejected") == 1
        assert service.count("rejected_total", reason="overloaded") == 1
