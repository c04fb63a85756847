"""Storms: whatever is asked at once, fails, is late or leaves, what was held for it is given back."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import PATIENCE, until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from services import EXPLAIN, FILES, IMAGES, NAME, PREDICT, Caller, Service, ask, right, serving, zoo_settings
from tensors import HEADER, Binary, infer_path

from konkyo.service.engines.base import Outputs, UInt8

INFER = infer_path(NAME)
BROKEN = FILES[3][:200]
REASONS = {
    "audit_failed", "broken_image", "cancelled", "deadline_exceeded", "deadline_unreachable",
    "inference_failed", "overloaded", "queue_full", "too_many_jobs", "too_much_work", "unknown_class",
}  # fmt: skip
"""Why an answer of a storm may be an error; any other code is a bug."""


def _photograph() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (1200, 900), (90, 120, 30)).save(file, "jpeg")
    return file.getvalue()


PHOTOGRAPH = _photograph()
INSTANCES = [
    {"image_bytes": {"b64": base64.b64encode(file).decode()}} for file in (FILES[1], BROKEN, FILES[2])
]
TENSORS = Binary().add("image", np.stack(IMAGES[4:7])).request(outputs=[{"name": "label"}, {"name": "map"}])


@dataclass(frozen=True)
class Request:
    """A request of a storm: path, query, headers and body."""

    path: str
    query: str = ""
    headers: tuple[tuple[str, str], ...] = (("content-type", "application/octet-stream"),)
    body: bytes = FILES[1]


OCCLUSION = "method=occlusion&patch=8&stride=6"
REQUESTS = {
    "predict": Request(PREDICT),
    "explain": Request(EXPLAIN, "targets=cat,dog&overlay=blend&map=float32"),
    "picture": Request(EXPLAIN, "target=frog", (("accept", "image/png"),)),
    "photograph": Request(EXPLAIN, "overlay=contour&frame=original", body=PHOTOGRAPH),
    "broken": Request(PREDICT, body=BROKEN),
    "no such class": Request(EXPLAIN, "target=zebra"),
    "hurried": Request(EXPLAIN, "deadline_ms=1", body=PHOTOGRAPH),
    "several": Request(
        EXPLAIN, "", (("content-type", "application/json"),), json.dumps({"instances": INSTANCES}).encode()
    ),
    "tensors": Request(INFER, "", tuple(TENSORS["headers"].items()), TENSORS["content"]),
    "file": Request(INFER, "", ((HEADER, "0"),), PHOTOGRAPH),
    "broken file": Request(INFER, "", ((HEADER, "0"),), BROKEN),
    "stream": Request(EXPLAIN, f"{OCCLUSION}&interim=true", (("accept", "text/event-stream"),)),
    "job": Request(EXPLAIN, OCCLUSION),
}


@dataclass(frozen=True)
class Arrival:
    """A caller of a storm; ``pause``, ``whole`` and ``stay`` are turns of the event loop.

    Attributes:
        pause: before it comes.
        whole: from half of the body to the other half; None leaves in between.
        stay: how long it waits for the answer; None until it comes.
    """

    request: str
    pause: int
    whole: int | None
    stay: int | None


TURNS = st.integers(0, 40)
ARRIVALS = st.lists(
    st.builds(
        Arrival,
        request=st.sampled_from(sorted(REQUESTS)),
        pause=st.sampled_from([0, 0, 0, 1, 5, 30]),
        whole=st.sampled_from([0, 0, 0, 0, 1, 10, None]),
        stay=st.none() | st.none() | TURNS,
    ),
    min_size=5,
    max_size=40,
)


async def turn(times: int) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


async def arrive(service: Service, arrival: Arrival) -> Caller:
    """The caller, once it has its answer or has left."""
    request = REQUESTS[arrival.request]
    headers = [("content-length", str(len(request.body))), *request.headers]
    caller = Caller(service.app, request.path, headers=headers, query=request.query)
    half = len(request.body) // 2
    caller.send(request.body[:half], more=True)
    if arrival.whole is None:
        caller.leave()
    else:
        await turn(arrival.whole)
        caller.send(request.body[half:])
        if arrival.stay is not None:
            await turn(arrival.stay)
            caller.leave()
    async with asyncio.timeout(PATIENCE):
        await caller.done
    return caller


def codes(body: bytes) -> set[str]:
    """Of the errors in an answer: ``error.code`` wherever it is; the protocol's own errors have none."""
    found: set[str] = set()

    def look(node: Any) -> None:
        if isinstance(node, dict):
            error = node.get("error")
            if isinstance(error, dict):
                found.add(error["code"])
            for value in node.values():
                look(value)
        elif isinstance(node, list):
            for value in node:
                look(value)

    look(json.loads(body))
    return found


def fails_on(image: UInt8) -> Callable[[UInt8, Outputs], Outputs]:
    """A fault: a batch with this image fails."""

    def fault(images: UInt8, outputs: Outputs) -> Outputs:
        if (images == image).all(axis=(1, 2, 3)).any():
            raise RuntimeError("injected")
        return outputs

    return fault


async def storm(
    arrivals: list[Arrival], log: Path, limits: dict[str, Any], *, fault: bool, gate: bool, full: bool
) -> int:
    """Returns how many of those who asked about one image were answered."""
    answered = 0
    async with serving(zoo_settings(audit_log=log, job_capacity=3, max_batch=4, **limits)) as service:
        state, engine = service.state, service.engine
        engine.fault = fails_on(IMAGES[5]) if fault else None
        if gate:  # nobody is answered before all have come
            engine.gate.shut()
        coming = []
        for arrival in arrivals:
            await turn(arrival.pause)
            coming.append(asyncio.create_task(arrive(service, arrival)))
        await turn(50)
        engine.gate.open()
        callers = await asyncio.gather(*coming)
        for arrival, caller in zip(arrivals, callers, strict=True):
            assert caller.status in (200, 202, 400, 404, 429, 499, 500, 503, 504), caller.body
            if arrival.request == "several" or caller.status >= 400:
                assert codes(caller.body) <= REASONS, caller.body
            answered += caller.status == 200 and arrival.request in ("predict", "explain", "picture", "file")
        await until(lambda: service.count("jobs") == 0)
        for job in list(state.jobs._known.values()):
            await state.jobs.cancel(job)
        admission = state.pipeline.admission
        assert (admission.answers.held, admission.long.held, state.budget.held) == (0, 0, 0)
        assert service.count("queue_depth") == 0
        assert service.model._usage._users == 0
        if not full:
            assert state.audit.problems == []
            for number in range(6, 6 + AFTERWARDS):  # an idle server refuses nobody
                assert right(await ask(service, number, PREDICT, deadline_ms=60_000), number)
    return answered


AFTERWARDS = 8
"""Images that are asked about when the storm is over."""

LIMITS: dict[str, dict[str, Any]] = {
    "wide": {},
    "few wait": {"queue_capacity": 3},
    "little work": {"work_capacity": 4, "long_work_capacity": 30},
    "shedding": {"work_capacity": 4, "queue_capacity": 4, "shed": True},
    "little memory": {"max_buffered_bytes": 9_000_000},
}


@pytest.mark.parametrize("limits", LIMITS.values(), ids=list(LIMITS))
@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(arrivals=ARRIVALS, fault=st.booleans(), gate=st.booleans(), full=st.booleans())
def test_everything_is_given_back(
    tmp_path_factory: pytest.TempPathFactory,
    limits: dict[str, Any],
    arrivals: list[Arrival],
    fault: bool,
    gate: bool,
    full: bool,
) -> None:
    log = tmp_path_factory.mktemp("audit") / "log"
    if full:
        log.symlink_to("/dev/full")
    answered = asyncio.run(storm(arrivals, log, limits, fault=fault, gate=gate, full=full))
    if full:
        assert answered == 0
    else:
        entries = [json.loads(line) for line in log.read_text("ascii").splitlines()]
        recorded = sum(entry["outcome"] in ("success", "shed") for entry in entries)
        assert recorded >= answered + AFTERWARDS
