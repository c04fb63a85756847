"""The audit log: a line for each result, before the answer, whatever becomes of the disk."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import multiprocessing
import os
import re
import select
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from faults import Clock, Gate, until
from processes import process
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
    attention_models,
    hold,
    serving,
    zoo_settings,
)

from konkyo.service import audit as audit_module
from konkyo.service.app import create_app
from konkyo.service.appending import Appender
from konkyo.service.keys import append_key, make_key
from konkyo.service.records import OWN_BYTES
from konkyo.service.settings import ZOO

Entry = dict[str, Any]
CARD = json.loads((ZOO / NAME / "1" / "card.json").read_text())
FIELDS = [
    *("event", "time", "request_id", "item", "trace_id", "key", "image", "model", "preprocessing"),
    *("runtime", "verb", "method", "targets", "answer", "outcome", "error", "latency_ms"),
]
OCCLUSION = {"method": "occlusion", "patch": 8, "stride": 6}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def read(log: Path) -> list[Entry]:
    """Every line, all of them whole."""
    text = log.read_text("ascii")
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def text_of(log: Path) -> str:
    return log.read_text("ascii")


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def post(service: Service, path: str = PREDICT, number: int = 0, **parameters: Any) -> httpx.Response:
    headers = {**PNG, "x-request-id": "mine"}
    return await service.client.post(path, content=FILES[number], headers=headers, params=parameters)


# What a record says


async def test_a_prediction(log: Path) -> None:
    async with serving(zoo_settings(audit_log=log)) as service:
        body = (await post(service, number=3)).json()
        digest = service.model.bundle.digest
    [entry] = read(log)
    assert list(entry) == FIELDS
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", entry.pop("time"))
    assert entry.pop("latency_ms") > 0
    assert entry == {
        "event": "result",
        "request_id": "mine",
        "item": 0,
        "trace_id": None,
        "key": None,
        "image": {"sha256": sha(FILES[3]), "of": "file", "bytes": len(FILES[3])},
        "model": {"name": NAME, "version": "1", "digest": digest},
        "preprocessing": entry["preprocessing"],
        "runtime": {"engine": "fake", "device": "cpu"},
        "verb": "predict",
        "method": None,
        "targets": None,
        "answer": {"label": body["label"], "index": body["index"], "score": body["score"]},
        "outcome": "success",
        "error": None,
    }


async def test_the_preprocessing_is_that_of_the_card(log: Path) -> None:
    async with serving(zoo_settings(audit_log=log)) as service:
        await post(service)
    section = json.dumps(CARD["input"], sort_keys=True, separators=(",", ":"))
    assert read(log)[0]["preprocessing"] == "sha256:" + sha(section.encode())


async def test_an_explanation(log: Path) -> None:
    async with serving(zoo_settings(audit_log=log)) as service:
        body = (await post(service, EXPLAIN, targets="dog,3,frog")).json()
    [entry] = read(log)
    assert (entry["verb"], entry["method"], entry["targets"]) == ("explain", "gcm", [5, 3, 6])
    assert entry["answer"] == {
        **{key: body[key] for key in ("label", "index", "score")},
        "explanation": body["explanation"]["status"],
    }


async def test_the_predicted_class_is_named_where_it_is_the_target(log: Path) -> None:
    async with serving(zoo_settings(audit_log=log)) as service:
        body = (await post(service, EXPLAIN)).json()
    [entry] = read(log)
    assert entry["targets"] == [entry["answer"]["index"]] == [body["index"]]


async def test_several_images_have_a_record_each(log: Path) -> None:
    instances = [{"image_bytes": {"b64": base64.b64encode(file).decode()}} for file in FILES[:4]]
    instances[2] = {"image_bytes": {"b64": base64.b64encode(FILES[2][:60]).decode()}}
    async with serving(zoo_settings(audit_log=log)) as service:
        response = await service.client.post(PREDICT, json={"instances": instances})
    answers = response.json()["predictions"]
    entries = sorted(read(log), key=lambda entry: int(entry["item"]))
    assert [entry["item"] for entry in entries] == [0, 1, 2, 3]
    assert {entry["request_id"] for entry in entries} == {response.headers["x-request-id"]}
    for number in (0, 1, 3):
        assert entries[number]["image"]["sha256"] == sha(FILES[number])
        assert entries[number]["answer"]["score"] == answers[number]["score"]
    assert (entries[2]["outcome"], entries[2]["error"]) == ("invalid", "broken_image")
    assert entries[2]["answer"] is None
    assert entries[2]["image"]["sha256"] == sha(FILES[2][:60])


async def test_pixels_are_hashed_as_pixels(log: Path) -> None:
    tensor = {
        "name": "image",
        "datatype": "UINT8",
        "shape": [2, 32, 32, 3],
        "data": np.stack(IMAGES[:2]).ravel().tolist(),
    }
    async with serving(zoo_settings(audit_log=log)) as service:
        response = await service.client.post(f"/v2/models/{NAME}/infer", json={"inputs": [tensor]})
        assert response.status_code == 200, response.text
    entries = sorted(read(log), key=lambda entry: int(entry["item"]))
    for number in (0, 1):
        assert entries[number]["image"] == {
            "sha256": sha(IMAGES[number].tobytes()),
            "of": "pixels",
            "bytes": 32 * 32 * 3,
        }
        assert entries[number]["outcome"] == "success"


async def test_the_name_of_the_key(log: Path, tmp_path: Path) -> None:
    secrets = {}
    for name in ("line-1", "line-2"):
        secrets[name], key = make_key(name, ["predict"])
        append_key(tmp_path / "keys", key)
    async with serving(zoo_settings(audit_log=log, api_keys_file=tmp_path / "keys")) as service:
        for secret in secrets.values():
            headers = {**PNG, "x-api-key": secret}
            assert (await service.client.post(PREDICT, content=FILES[0], headers=headers)).status_code == 200
    assert [entry["key"] for entry in read(log)] == ["line-1", "line-2"]


async def test_an_edited_map_is_known_by_its_hash(log: Path) -> None:
    rows = [[0.5, -1.0], [0.25, 1.0]]
    async with serving(zoo_settings(audit_log=log, repository=attention_models())) as service:
        response = await service.client.post(
            "/v1/models/one:explain", files={"image": FILES[0]}, data={"attention": json.dumps(rows)}
        )
        assert response.status_code == 200, response.text
    [entry] = read(log)
    assert entry["attention"] == {"sha256": sha(np.asarray(rows, "<f4").tobytes()), "shape": [2, 2]}
    assert entry["answer"]["score"] == response.json()["score"]


async def test_neither_image_nor_map_is_in_it(log: Path) -> None:
    async with serving(zoo_settings(audit_log=log)) as service:
        body = (await post(service, EXPLAIN, map="float32", overlay="blend")).json()
    text = text_of(log)
    assert len(text) < 1500
    for data in (body["explanation"]["map"]["data"], body["explanation"]["overlay"]["data"]):
        assert data[:40] not in text
    assert base64.b64encode(FILES[0]).decode()[:40] not in text


# What gets one

REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "class": ({"target": "zebra"}, "invalid", "unknown_class"),
    "method": ({"method": "magic"}, "invalid", "unsupported_method"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_refusals_are_results(log: Path, case: str) -> None:
    parameters, outcome, code = REFUSED[case]
    async with serving(zoo_settings(audit_log=log)) as service:
        response = await post(service, EXPLAIN, **parameters)
    [entry] = read(log)
    assert (
        (entry["outcome"], entry["error"]) == (outcome, code) == (outcome, response.json()["error"]["code"])
    )
    assert entry["answer"] is None
    assert entry["method"] == parameters.get("method")


async def test_failures_are_results(log: Path) -> None:
    async with serving(zoo_settings(audit_log=log)) as service:

        def fault(images: Any, outputs: Any) -> Any:
            raise RuntimeError("injected")

        service.engine.fault = fault
        assert (await post(service)).status_code == 500
    [entry] = read(log)
    assert (entry["outcome"], entry["error"]) == ("error", "inference_failed")


async def test_a_full_queue_and_a_shed_map(log: Path) -> None:
    async with serving(zoo_settings(audit_log=log, queue_capacity=1, shed=True)) as service:
        held = await hold(service)
        waiting = ask(service, 1)
        await until(lambda: service.depth("explain") == 1)
        shed = ask(service, 2)
        await until(lambda: service.depth("predict") == 1)
        assert (await ask(service, 3, PREDICT)).status_code == 429
        service.engine.gate.open()
        await asyncio.gather(held, waiting, shed)
    entries = {entry["image"]["sha256"]: entry for entry in read(log)}
    found = {number: entries[sha(FILES[number])] for number in range(4)}
    assert [found[number]["outcome"] for number in range(4)] == ["success", "success", "shed", "rejected"]
    assert found[2]["answer"]["explanation"] == "shed"
    assert found[2]["targets"] == []
    assert found[3]["error"] == "queue_full"


async def test_who_has_left_leaves_a_record(log: Path) -> None:
    async with serving(zoo_settings(audit_log=log)) as service:
        held = await hold(service)
        caller = Caller(service.app, EXPLAIN, headers=[("content-type", "image/png")])
        caller.send(FILES[1])
        await until(lambda: service.depth("explain") == 1)
        caller.leave()
        await caller.done
        service.engine.gate.open()
        await held
    gone, answered = read(log)
    assert (gone["outcome"], gone["error"], gone["answer"]) == ("cancelled", "cancelled", None)
    assert gone["image"]["sha256"] == sha(FILES[1])
    assert answered["outcome"] == "success"


async def test_a_job_has_one_record_when_it_is_done(log: Path) -> None:
    async with serving(zoo_settings(audit_log=log)) as service:
        begun = await post(service, EXPLAIN, number=1, **OCCLUSION)
        assert begun.status_code == 202
        job = service.state.jobs.find(begun.headers["location"].rpartition("/")[2])
        await until(lambda: job.ended)
        result = (await service.client.get(begun.headers["location"])).json()["result"]
        await service.client.get(begun.headers["location"])
    [entry] = read(log)
    assert (entry["request_id"], entry["method"], entry["outcome"]) == ("mine", "occlusion", "success")
    assert entry["image"]["sha256"] == sha(FILES[1])
    assert entry["answer"]["score"] == result["score"]
    assert entry["targets"] == [result["index"]]
    assert job.id not in text_of(log)  # who knows it can read the result


async def test_jobs_that_fail_or_are_cancelled(log: Path, clock: Clock) -> None:
    async with serving(zoo_settings(audit_log=log)) as service:
        service.engine.gate.shut()
        jobs = []
        for parameters in ({"deadline_ms": 1000}, {}):
            response = await post(service, EXPLAIN, **OCCLUSION, **parameters)
            jobs.append(service.state.jobs.find(response.headers["location"].rpartition("/")[2]))
        await clock.advance(2)
        await until(lambda: jobs[0].ended)
        cancelling = asyncio.create_task(service.client.delete(f"/v1/jobs/{jobs[1].id}"))
        await until(lambda: jobs[1].ended)
        service.engine.gate.open()
        await cancelling
    assert [(entry["outcome"], entry["error"]) for entry in read(log)] == [
        ("deadline", "deadline_exceeded"),
        ("cancelled", "cancelled"),
    ]


async def test_what_never_was_a_result_has_none(log: Path) -> None:
    """A body that is no request, a path that is none: the access log has them."""
    async with serving(zoo_settings(audit_log=log)) as service:
        for path, content in ((PREDICT, b""), ("/v1/models/none:predict", FILES[0]), ("/nowhere", FILES[0])):
            assert (await service.client.post(path, content=content, headers=PNG)).status_code >= 400
        await service.client.get("/v1/models")
    assert read(log) == []


async def test_without_the_setting_nothing_is_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    def hashing(data: object) -> str:
        raise AssertionError

    monkeypatch.setattr("konkyo.service.records._hash", hashing)
    async with serving(zoo_settings()) as service:
        assert (await post(service)).status_code == 200
        assert service.count("audit_records_total") == 0


# Before the answer, and beside the event loop


class Slow(Appender):
    """A disk that takes its time."""

    gate: Gate

    def append(self, line: bytes) -> None:
        self.gate.pass_through()
        super().append(line)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> type[Slow]:
    monkeypatch.setattr(Slow, "gate", Gate(), raising=False)
    monkeypatch.setattr(audit_module, "Appender", Slow)
    return Slow


async def test_no_answer_leaves_before_its_record(log: Path, slow: type[Slow]) -> None:
    async with serving(zoo_settings(audit_log=log)) as service:
        slow.gate.shut()
        asked = [ask(service, number, PREDICT) for number in range(5)]
        await slow.gate.entered()
        await until(lambda: service.count("inferences_total", kind="predict") >= 6)  # the canary was one
        assert (await service.client.get("/livez")).status_code == 200  # the loop goes on
        assert not any(task.done() for task in asked)
        assert text_of(log) == ""
        slow.gate.open()
        assert {(await task).status_code for task in asked} == {200}
    assert len(read(log)) == 5


async def test_a_disk_that_hangs_is_waited_for_and_then_given_up(
    log: Path, slow: type[Slow], clock: Clock
) -> None:
    async with serving(zoo_settings(audit_log=log)) as service:
        slow.gate.shut()
        asked = ask(service, 0, PREDICT)
        await slow.gate.entered()
        await until(lambda: service.count("inferences_total", kind="predict") >= 2)
        await clock.advance(audit_module.PATIENCE_SECONDS + 1)
        response = await asked
        assert response.status_code == 503
        assert service.state.audit.problems == ["the audit log cannot be written: not within 10 s"]
        slow.gate.open()
        assert (await service.client.get("/readyz")).status_code == 200
    assert len(read(log)) == 1  # it came in the end


async def test_a_caller_who_leaves_takes_no_record_along(log: Path, slow: type[Slow]) -> None:
    async with serving(zoo_settings(audit_log=log)) as service:
        slow.gate.shut()
        first = ask(service, 0, PREDICT)
        await slow.gate.entered()
        caller = Caller(service.app, PREDICT, headers=[("content-type", "image/png")])
        caller.send(FILES[1])
        await until(lambda: service.count("prediction_score_count") >= 2)  # its record waits behind the first
        caller.leave()
        await caller.done
        slow.gate.open()
        await first
    assert [entry["outcome"] for entry in read(log)] == ["success", "success"]


async def test_what_waits_for_a_disk_that_hangs_is_bounded(
    log: Path, slow: type[Slow], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else callers who ask and leave would fill the memory with images to be hashed."""
    monkeypatch.setattr(audit_module, "PENDING_BYTES", 2 * (OWN_BYTES + len(FILES[0])) + 100)
    async with serving(zoo_settings(audit_log=log)) as service:
        slow.gate.shut()
        held = ask(service, 0, PREDICT)
        await slow.gate.entered()
        engine = service.engine.gate
        engine.shut()
        waiting = []
        for _ in range(3):
            waiting.append(Caller(service.app, PREDICT, headers=[("content-type", "image/png")]))
            waiting[-1].send(FILES[0])
        await engine.entered()
        for caller in waiting:
            caller.leave()
            await caller.done
        engine.open()
        assert service.count("audit_records_total", outcome="failed") == 2  # who had left: one fits
        refused = await post(service)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "audit_failed")
        unknown = await post(service, EXPLAIN, target="zebra")
        assert unknown.status_code == 404
        slow.gate.open()
        assert (await held).status_code == 200
        assert (await post(service, number=3)).status_code == 200
        assert service.count("audit_records_total", outcome="failed") == 4
    outcomes = [entry.get("outcome", entry.get("missing")) for entry in read(log)]
    assert outcomes == ["success", "cancelled", 4, "success"]


# A disk that is full


async def test_what_cannot_be_recorded_is_not_answered(tmp_path: Path) -> None:
    log = tmp_path / "audit"
    log.symlink_to("/dev/full")
    async with serving(zoo_settings(audit_log=log)) as service:
        for _ in range(3):
            response = await post(service)
            assert response.status_code == 503
            assert response.headers["retry-after"] == "1"
            assert response.json()["error"]["code"] == "audit_failed"
        unknown = await post(service, EXPLAIN, target="zebra")
        assert unknown.status_code == 404  # no answer, and so nothing to hold back
        ready = await service.client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["problems"] == ["the audit log cannot be written: No space left on device"]
        assert (await service.client.get("/livez")).status_code == 200  # a restart would not help
        assert service.count("requests_total", outcome="rejected") == 3
        assert service.count("rejected_total", reason="audit_failed") == 3
        assert service.count("audit_records_total", outcome="failed") == 4
        assert service.count("audit_records_total", outcome="written") == 0

        (tmp_path / "room").touch()
        (tmp_path / "new").symlink_to(tmp_path / "room")
        (tmp_path / "new").rename(log)
        assert (await service.client.get("/readyz")).status_code == 200
        assert (await post(service)).status_code == 200
    resumed, entry = read(log)
    assert (resumed["event"], resumed["missing"]) == ("resumed", 4)
    assert (entry["event"], entry["outcome"]) == ("result", "success")


async def test_it_goes_on_without_being_asked_whether_it_is_ready(tmp_path: Path) -> None:
    log = tmp_path / "audit"
    log.symlink_to("/dev/full")
    async with serving(zoo_settings(audit_log=log)) as service:
        assert (await post(service)).status_code == 503
        log.unlink()
        assert [(await post(service)).status_code for _ in range(2)] == [200, 200]
        assert service.state.audit.problems == []
    assert [entry["event"] for entry in read(log)] == ["resumed", "result", "result"]


async def test_it_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = tmp_path / "audit"
    log.symlink_to("/dev/full")
    async with serving(zoo_settings(audit_log=log)) as service:
        for _ in range(3):
            await post(service)
    assert caplog.text.count("the audit log cannot be written") == 1


@pytest.mark.parametrize("path", ["nowhere/audit", "."])
def test_a_file_that_cannot_be_opened_ends_the_start(tmp_path: Path, path: str) -> None:
    with pytest.raises(ValueError, match="audit_log"):
        create_app(zoo_settings(audit_log=tmp_path / path))


# The file


def rotate(log: Path, to: Path, *, create: bool = False, copy: bool = False) -> None:
    if copy:
        to.write_bytes(log.read_bytes())
        log.write_bytes(b"")
        return
    log.rename(to)
    if create:
        log.touch()


async def test_it_may_be_moved_away(log: Path, tmp_path: Path) -> None:
    """As logrotate does it, without a signal; and as it does it with ``copytruncate``."""
    async with serving(zoo_settings(audit_log=log)) as service:
        await post(service, number=0)
        rotate(log, tmp_path / "audit.1")
        await post(service, number=1)
        rotate(log, tmp_path / "audit.2", create=True)
        await post(service, number=2)
        rotate(log, tmp_path / "audit.3", copy=True)
        await post(service, number=3)
    names = ("audit.1", "audit.2", "audit.3", log.name)
    found = [[entry["image"]["sha256"] for entry in read(tmp_path / name)] for name in names]
    assert found == [[sha(FILES[number])] for number in range(4)]


def test_only_its_owner_reads_it(log: Path) -> None:
    Appender(log)
    assert log.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("before", [b"", b"whole\n", b"whole\ntor"])
def test_a_torn_line_stays_alone(log: Path, before: bytes) -> None:
    log.write_bytes(before)
    appender = Appender(log)
    appender.append(b"one\n")
    appender.append(b"two\n")
    kept = before if not before or before.endswith(b"\n") else before + b"\n"
    assert log.read_bytes() == kept + b"one\ntwo\n"


def test_a_line_the_disk_took_half_of_is_torn(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    appender = Appender(log)
    write, answers = os.write, iter([3, OSError(28, "No space left on device")])

    def half(file: int, data: memoryview) -> int:
        answer = next(answers, len(data))
        if isinstance(answer, OSError):
            raise answer
        return write(file, data[:answer])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match="No space"):
        appender.append(b"first\n")
    appender.append(b"second\n")
    assert log.read_bytes() == b"fir\nsecond\n"


def _append(path: Path, number: int, lines: int) -> None:
    appender = Appender(path)
    for index in range(lines):
        appender.append(json.dumps([number, index, "x" * 700]).encode() + b"\n")


def test_several_processes_share_a_file(log: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_append, args=(log, number, 300)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    entries: list[Any] = read(log)  # type: ignore[assignment]
    for number in range(3):
        assert [index for who, index, _ in entries if who == number] == list(range(300))


def test_standard_output(tmp_path: Path) -> None:
    with process(tmp_path, audit_log="-") as server:
        server.ready()
        status, body = server.request("POST", f"/v1/models/{NAME}:predict", FILES[0])
        assert status == 200
        stdout = server._process.stdout
        assert stdout is not None
        assert select.select([stdout], [], [], 20)[0]
        entry = json.loads(stdout.readline())
    assert entry["answer"] == {key: body[key] for key in ("label", "index", "score")}
    assert entry["runtime"] == {"engine": "onnx", "device": "cpu"}
