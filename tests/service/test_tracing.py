"""Traces, as a collector receives them."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import pytest
from collector import Collector, Received, collecting, values
from faults import Clock, broken, until
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan
from processes import process
from pydantic import ValidationError
from services import (
    EXPLAIN,
    FILES,
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

from konkyo.service import otel
from konkyo.service.tracing import NOTHING, Off, current, make_tracing

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"  # of the W3C's own examples
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


@asynccontextmanager
async def traced(collector: Collector, **settings: Any) -> AsyncIterator[Service]:
    """A service whose spans have all arrived once the block is left."""
    async with serving(zoo_settings(otlp_endpoint=collector.url, **settings)) as service:
        yield service


def one(spans: list[Received]) -> Received:
    [span] = spans
    return span


def names(spans: list[Received]) -> list[str]:
    return [span.name for span in spans]


async def test_the_tree_of_one_request(collector: Collector) -> None:
    async with traced(collector) as service:
        headers = {**PNG, "x-request-id": "seven", "user-agent": "a test"}
        response = await service.client.post(f"{EXPLAIN}?top_k=3", content=FILES[1], headers=headers)
        assert response.status_code == 200
        # nothing of the canary, and nothing of what is asked every few seconds
        assert (await service.client.get("/readyz")).status_code == 200
        assert (await service.client.get("/livez")).status_code == 200
    route = "/v1/models/{model}:explain"
    request, batch = one(collector.spans(f"POST {route}")), one(collector.spans("batch"))
    assert request.span.kind == OtlpSpan.SPAN_KIND_SERVER
    assert request.parent == ""
    assert not request.failed
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": route,
        "http.response.status_code": 200,
        "url.scheme": "http",
        "url.path": EXPLAIN,
        "network.protocol.version": "1.1",
        "client.address": "127.0.0.1",
        "user_agent.original": "a test",
        "konkyo.request_id": "seven",
        "konkyo.model": "gcm-cifar10",
        "konkyo.version": "1",
    }
    decode, queue, forward, render = parts = collector.children(request)
    assert names(parts) == ["decode", "queue", "forward", "render"]
    assert len(collector.spans()) == 6
    assert batch.trace != request.trace
    assert batch.parent == ""
    assert batch.links == [request.id]
    assert queue.links == forward.links == [batch.id]
    assert decode.links == render.links == []
    assert batch.attributes == {
        "konkyo.model": "gcm-cifar10",
        "konkyo.version": "1",
        "konkyo.kind": "explain",
        "konkyo.batch.size": 1,
    }
    for before, after in pairwise(parts):
        assert before.span.end_time_unix_nano <= after.span.start_time_unix_nano
    assert request.resource["service.name"] == "konkyo"
    assert request.resource["process.pid"] == os.getpid()
    assert request.resource["service.version"]


async def test_requests_of_one_batch_are_linked_from_it(collector: Collector) -> None:
    async with traced(collector) as service:
        first = await hold(service)
        others = [ask(service, number) for number in (1, 2, 3)]
        await until(lambda: service.depth("explain") == 3)
        service.engine.gate.open()
        answers = await asyncio.gather(first, *others)
        assert all(right(answer, number) for number, answer in enumerate(answers))
    alone, joint = collector.spans("batch")
    assert (alone.attributes["konkyo.batch.size"], joint.attributes["konkyo.batch.size"]) == (1, 3)
    requests = collector.spans("POST /v1/models/{model}:explain")
    assert alone.links == [requests[0].id]
    assert sorted(joint.links) == sorted(request.id for request in requests[1:])
    assert len({request.trace for request in requests}) == 4
    for request in requests[1:]:
        assert [part.links for part in collector.children(request)[1:3]] == [[joint.id], [joint.id]]


async def test_several_images_of_a_request_are_one_link(collector: Collector) -> None:
    async with traced(collector) as service:
        files = [("image", (f"{number}.png", FILES[number], "image/png")) for number in (1, 2, 3)]
        response = await service.client.post(PREDICT, files=files)
        assert len(response.json()["predictions"]) == 3
    request = one(collector.spans("POST /v1/models/{model}:predict"))
    assert [batch.links for batch in collector.spans("batch")] == [[request.id]]
    assert one(collector.spans("batch")).attributes["konkyo.batch.size"] == 3
    assert (
        sorted(names(collector.children(request)))
        == ["decode"] * 3 + ["forward"] * 3 + ["queue"] * 3 + ["render"] * 3
    )


async def test_the_trace_of_the_caller_goes_on(collector: Collector) -> None:
    async with traced(collector) as service:
        headers = {**PNG, "traceparent": SAMPLED, "tracestate": "vendor=1"}
        await service.client.post(PREDICT, content=FILES[1], headers=headers)
        await service.client.get("/v1/models", headers={"traceparent": "00-zz-not-one"})
    request = one(collector.spans("POST /v1/models/{model}:predict"))
    assert (request.trace, request.parent) == (TRACE, PARENT)
    assert request.span.trace_state == "vendor=1"
    assert {span.trace for span in collector.children(request)} == {TRACE}
    listed = one(collector.spans("GET /v1/models"))
    assert listed.parent == ""
    assert listed.trace != TRACE


async def test_what_the_caller_does_not_sample_is_not_sent(collector: Collector) -> None:
    async with traced(collector) as service:
        service.engine.gate.shut()
        first = asyncio.create_task(
            service.client.post(EXPLAIN, content=FILES[0], headers={**PNG, "traceparent": UNSAMPLED})
        )
        await service.engine.gate.entered()
        quiet = asyncio.create_task(
            service.client.post(EXPLAIN, content=FILES[1], headers={**PNG, "traceparent": UNSAMPLED})
        )
        told = ask(service, 2)
        await until(lambda: service.depth("explain") == 2)
        service.engine.gate.open()
        assert {answer.status_code for answer in await asyncio.gather(first, quiet, told)} == {200}
    request = one(collector.spans("POST /v1/models/{model}:explain"))
    batch = one(collector.spans("batch"))  # the first had nobody who is sampled
    assert batch.links == [request.id]
    assert batch.attributes["konkyo.batch.size"] == 2
    assert len(collector.spans()) == 6


@pytest.mark.parametrize(("share", "spans"), [("0", 0), ("1", 6)])
async def test_the_sampler_is_that_of_the_variables(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, share: str, spans: int
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", share)
    async with traced(collector) as service:
        assert right(await ask(service, 1), 1)
    assert len(collector.spans()) == spans


async def test_a_failing_engine_is_an_error_of_each_part(collector: Collector) -> None:
    async with traced(collector) as service:
        first = await hold(service)
        pair = [ask(service, number) for number in (1, 2)]
        await until(lambda: service.depth("explain") == 2)
        service.engine.fault = broken
        service.engine.gate.open()
        assert {answer.status_code for answer in await asyncio.gather(first, *pair)} == {500}
    batches = collector.spans("batch")
    assert [batch.attributes["konkyo.batch.size"] for batch in batches] == [1, 2, 1, 1]
    assert all(batch.failed and batch.attributes["error.type"] == "RuntimeError" for batch in batches)
    assert [event.name for event in batches[0].span.events] == ["exception"]
    for request in collector.spans("POST /v1/models/{model}:explain")[1:]:
        assert request.failed
        assert request.attributes["http.response.status_code"] == 500
        assert request.attributes["error.type"] == "500"
        assert request.attributes["konkyo.error.code"] == "inference_failed"
        decode, queue, together, apart = collector.children(request)
        assert (decode.failed, queue.failed, together.failed, apart.failed) == (False, False, True, True)
        assert together.links == [batches[1].id]
        assert queue.links == [batches[1].id]


async def test_who_leaves_the_queue_without_an_answer(collector: Collector, clock: Clock) -> None:
    async with traced(collector) as service:
        first = await hold(service)
        late = ask(service, 1, deadline_ms=1000)
        await until(lambda: service.depth("explain") == 1)
        await clock.advance(2)
        assert (await late).status_code == 504
        caller = Caller(service.app, EXPLAIN, headers=[("content-type", "image/png")])
        caller.send(FILES[2])
        await until(lambda: service.depth("explain") == 1)
        caller.leave()
        await caller.done
        service.engine.gate.open()
        assert right(await first, 0)
    served, late_queue, left = collector.spans("queue")
    assert not served.failed
    assert (late_queue.failed, late_queue.attributes["error.type"]) == (True, "deadline_exceeded")
    assert (left.failed, left.attributes["error.type"]) == (True, "CancelledError")
    assert one(collector.spans("batch")).attributes["konkyo.batch.size"] == 1


async def test_errors_before_the_queue(collector: Collector) -> None:
    async with traced(collector) as service:
        assert (await service.client.post(PREDICT, content=b"no image", headers=PNG)).status_code == 415
        assert (await service.client.get("/nowhere")).status_code == 404
        assert (await service.client.request("BREW", "/v1/models")).status_code == 405
    broken_image, nowhere, brew = (span for span in collector.spans() if span.parent == "")
    assert not broken_image.failed  # the caller's error is none of the server
    assert broken_image.attributes["konkyo.error.code"] == "unsupported_image"
    decode = one(collector.children(broken_image))
    assert (decode.name, decode.attributes["error.type"]) == ("decode", "unsupported_image")
    assert nowhere.name == "GET"
    assert "http.route" not in nowhere.attributes
    assert brew.attributes["http.request.method"] == "_OTHER"
    assert brew.attributes["http.request.method_original"] == "BREW"


async def test_words_that_are_no_valid_unicode_cost_no_other_span(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pytest's processes cannot tell each other of a log with such words
    monkeypatch.setattr(logging.getLogger("konkyo.service.app"), "disabled", True)
    body = b'{"instances": [], "parameters": {}, "\\ud800": 1}'
    async with traced(collector) as service:
        json_type = {"content-type": "application/json"}
        assert (await service.client.post(PREDICT, content=body, headers=json_type)).status_code == 400
        target = "%ED%A0%80"
        refused = await service.client.post(f"{EXPLAIN}?target={target}", content=FILES[1], headers=PNG)
        assert refused.status_code == 404
        strange = {**PNG, "user-agent": b"\xff\xfe\x80"}
        assert (await service.client.post(PREDICT, content=FILES[1], headers=strange)).status_code == 200

        def fails(images: object, outputs: object) -> NoReturn:
            raise RuntimeError("half a character: \ud800")

        service.engine.fault = fails
        assert (await service.client.post(PREDICT, content=FILES[1], headers=PNG)).status_code == 500
    assert len([span for span in collector.spans() if span.parent == ""]) == 6  # and two batches
    [event] = collector.spans("batch")[1].span.events
    assert values(event.attributes)["exception.message"] == "half a character: ?"


async def test_a_job_is_a_trace_of_its_own(collector: Collector) -> None:
    async with traced(collector, perturbation_batch=8) as service:
        headers = {**PNG, "accept": "text/event-stream"}
        url = f"{EXPLAIN}?method=occlusion"
        response = await service.client.post(url, content=FILES[1], headers=headers)
        assert response.text.split("event: ")[-1].startswith("result")
    request, job = one(collector.spans("POST /v1/models/{model}:explain")), one(collector.spans("job"))
    assert job.trace != request.trace
    assert job.links == [request.id]
    assert job.attributes["konkyo.method"] == "occlusion"
    parts = collector.children(job)
    steps = [part for part in parts if part.name == "step"]
    assert names(parts) == ["decode", *["step"] * len(steps), "render"]
    assert len(steps) >= 2
    assert [batch.links for batch in collector.spans("batch")] == [[step.id] for step in steps]
    assert all(collector.children(step) == [] for step in steps)


async def test_a_gradient_is_called_explain(collector: Collector, networks: Path) -> None:
    settings = zoo_settings(otlp_endpoint=collector.url, repository=networks, engine="torch")
    from konkyo.service.engines import make_engine

    async with serving(settings, make_engine=make_engine) as service:
        path = "/v1/models/graph:explain?method=gradcam"
        assert (await service.client.post(path, content=FILES[1], headers=PNG)).status_code == 200
    request = one(collector.spans("POST /v1/models/{model}:explain"))
    assert names(collector.children(request)) == ["decode", "queue", "explain", "render"]
    assert one(collector.spans("batch")).attributes["konkyo.kind"] == "gradcam"


@pytest.mark.parametrize("silent", [False, True], ids=["refused", "silent"])
async def test_a_collector_that_is_away_costs_no_request(
    monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    monkeypatch.setattr(otel, "FLUSH_SECONDS", 0.1)
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")  # and what does not fit is dropped
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        if silent:
            deaf.listen()  # takes the connection, never answers
        settings = zoo_settings(otlp_endpoint=f"http://127.0.0.1:{deaf.getsockname()[1]}")
        async with serving(settings) as service:
            answers = await asyncio.gather(*(ask(service, number) for number in range(20)))
            assert all(right(answer, number) for number, answer in enumerate(answers))


def test_a_process_sends_what_is_left_when_it_ends(collector: Collector, tmp_path: Path) -> None:
    with process(tmp_path, otlp_endpoint=f"{collector.url}/v1/traces", drain_seconds=0) as server:
        server.ready()
        assert server.request("POST", PREDICT, FILES[1])[0] == 200
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0, server.log()
    request = one(collector.spans("POST /v1/models/{model}:predict"))
    assert request.attributes["network.protocol.version"] == "1.1"
    assert names(collector.children(request)) == ["decode", "queue", "forward", "render"]


def test_every_process_of_a_server_sends(collector: Collector, tmp_path: Path) -> None:
    with process(tmp_path, otlp_endpoint=collector.url, processes=2, drain_seconds=0) as server:
        server.ready()
        for number in range(1, 9):
            assert server.request("POST", PREDICT, FILES[number])[0] == 200
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0, server.log()
    requests = collector.spans("POST /v1/models/{model}:predict")
    assert len({request.id for request in requests}) == 8
    for request in requests:
        assert names(collector.children(request)) == ["decode", "queue", "forward", "render"]
        assert request.resource["process.pid"] != server.pid  # but a worker's
    resources = [request.resource for request in requests]
    instances = {(resource["process.pid"], resource["service.instance.id"]) for resource in resources}
    assert len(dict(instances)) == len(instances)


# What turns it on


def test_off_costs_an_object_that_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(make_tracing(zoo_settings()), Off)
    assert current() is NOTHING
    assert NOTHING.child("decode", {}) is NOTHING
    assert NOTHING.queued() is NOTHING
    assert NOTHING.ids is None


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
async def test_the_standard_variables_turn_it_on(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, collector.url + ("/v1/traces" if "TRACES" in name else ""))
    monkeypatch.setenv("OTEL_SERVICE_NAME", "inspection")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    async with serving(zoo_settings()) as service:
        assert (await service.client.get("/v1/models")).status_code == 200
    resource = one(collector.spans()).resource
    assert resource["service.name"] == "inspection"
    assert resource["deployment.environment.name"] == "test"


@pytest.mark.parametrize(("name", "value"), [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")])
def test_the_standard_variables_turn_it_off(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert isinstance(make_tracing(zoo_settings(otlp_endpoint="http://127.0.0.1:1")), Off)


WITHOUT = "import sys; sys.modules['opentelemetry.sdk'] = None; from konkyo.cli import main; main()"


def test_without_the_extra_it_is_one_clear_line() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, "serve", "--port=0", "--otlp-endpoint=http://127.0.0.1:1"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("error: otlp_endpoint is set, but traces need konkyo[otel]: ")


async def test_without_the_extra_the_variables_are_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "konkyo.service.otel", None)
    async with serving(zoo_settings()) as service:
        assert right(await ask(service, 1), 1)
    [record] = [record for record in caplog.records if record.name == "konkyo.service.tracing"]
    assert "konkyo[otel]" in record.getMessage()


def test_an_endpoint_that_is_no_url_is_refused() -> None:
    with pytest.raises(ValidationError, match="otlp_endpoint"):
        zoo_settings(otlp_endpoint="collector:4318")
