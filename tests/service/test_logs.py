"""Log lines: what is in them, and that callers cannot forge or break one."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from collector import collecting
from faults import broken
from hypothesis import given
from hypothesis import strategies as st
from processes import process
from services import EXPLAIN, FILES, NAME, PNG, PREDICT, Caller, serving, zoo_settings

from konkyo.service import logs
from konkyo.service.logs import TEXT, JsonFormatter, TextFormatter


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    """What is logged as JSON from now on, read line by line."""
    found: list[dict[str, Any]] = []

    class Reader(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            line = self.format(record)
            assert "\n" not in line
            found.append(json.loads(line))

    reader, root = Reader(), logging.getLogger()
    level = root.level
    reader.setFormatter(JsonFormatter())
    root.addHandler(reader)
    root.setLevel("INFO")
    yield found
    root.removeHandler(reader)
    root.setLevel(level)


def record(message: str, *arguments: object, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("konkyo.test", logging.WARNING, "file.py", 1, message, arguments, None)
    made.created = datetime(2026, 3, 1, 12, 30, 0, 250_000, UTC).timestamp()
    if fields:
        made.fields = fields
    return made


def test_a_line() -> None:
    line = JsonFormatter().format(record("%d of %s", 3, "four", status=200, route=None))
    assert json.loads(line) == {
        "time": "2026-03-01T12:30:00.250Z",
        "level": "warning",
        "logger": "konkyo.test",
        "message": "3 of four",
        "status": 200,
        "route": None,
    }


def test_an_exception_is_one_field() -> None:
    failed = record("it failed")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        failed.exc_info = sys.exc_info()
    line = JsonFormatter().format(failed)
    assert "\n" not in line
    exception = json.loads(line)["exception"]
    assert exception.startswith("Traceback (most recent call last):\n")
    assert exception.endswith("ValueError: two\nlines")


anything = st.text(st.characters(codec=None, exclude_categories=()))  # halves of surrogate pairs among them


@given(anything, anything)
def test_nothing_a_caller_sends_breaks_a_json_line(message: str, path: str) -> None:
    line = JsonFormatter().format(record("%s", message, path=path))
    assert line.isascii()
    assert line.isprintable()
    read = json.loads(line)
    read["path"].encode()  # is valid Unicode, as strict readers insist
    assert read["path"] == path.encode("utf-8", "replace").decode()
    assert read["message"] == message.encode("utf-8", "replace").decode()


@given(anything)
def test_nothing_a_caller_sends_breaks_a_line_of_text(message: str) -> None:
    line = TextFormatter(TEXT).format(record("%s", message))
    assert line.splitlines() == [line]
    line.encode()
    assert line.partition(" WARNING konkyo.test: ")[1]


def test_text_stays_as_it_was() -> None:
    said = record("a/1 is ready, with a ümlaut")
    assert TextFormatter(TEXT).format(said) == logging.Formatter(TEXT).format(said)


def test_a_traceback_in_text_keeps_its_lines() -> None:
    failed = record("it failed")
    try:
        raise ValueError("once")
    except ValueError:
        failed.exc_info = sys.exc_info()
    first, second, *_, last = TextFormatter(TEXT).format(failed).splitlines()
    assert first.endswith("WARNING konkyo.test: it failed")
    assert (second, last) == ("Traceback (most recent call last):", "ValueError: once")


async def test_the_access_log(lines: list[dict[str, Any]]) -> None:
    async with serving(zoo_settings(access_log=True)) as service:
        response = await service.client.post(
            EXPLAIN, content=FILES[1], headers={**PNG, "x-request-id": "request-7"}
        )
        await service.client.get("/nowhere%0A%7B%22level%22:%22error%22%7D")
    explained, nowhere = (line for line in lines if line["logger"] == "konkyo.access")
    assert explained.pop("ms") > 0
    assert explained.pop("time").endswith("Z")
    assert explained.pop("message").startswith(f"POST {EXPLAIN} 200 ")
    assert explained == {
        "level": "info",
        "logger": "konkyo.access",
        "request_id": "request-7",
        "method": "POST",
        "path": EXPLAIN,
        "route": "/v1/models/{model}:explain",
        "status": 200,
        "bytes": len(response.content),
        "client": "127.0.0.1",
    }
    assert (nowhere["path"], nowhere["route"], nowhere["status"]) == (
        '/nowhere\n{"level":"error"}', None, 404,
    )  # fmt: skip


async def test_a_failure_is_logged_with_the_request(lines: list[dict[str, Any]]) -> None:
    async with serving(zoo_settings()) as service:
        service.engine.fault = broken
        for number in (1, 2):
            headers = {**PNG, "x-request-id": f"request-{number}"}
            await service.client.post(PREDICT, content=FILES[number], headers=headers)
    failures = [line for line in lines if line["level"] == "error"]
    assert [line["request_id"] for line in failures] == ["request-1", "request-2"]
    assert all("RuntimeError: injected" in line["exception"] for line in failures)
    assert logs.request_id.get() is None


async def test_threads_and_jobs_know_their_request(
    lines: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from konkyo.service import preparing

    decoded = preparing.decoded

    def tells(*arguments: Any) -> Any:
        logging.getLogger("test.worker").info("decoding")
        return decoded(*arguments)

    monkeypatch.setattr(preparing, "decoded", tells)
    monkeypatch.setattr("konkyo.service.pipeline.INLINE_PIXELS", 0)  # so even these go to a thread
    async with serving(zoo_settings()) as service:
        asked = (
            (f"{EXPLAIN}?method=occlusion", {"accept": "text/event-stream"}, "job"),
            (EXPLAIN, {}, "plain"),
        )
        await asyncio.gather(
            *(
                service.client.post(url, content=FILES[1], headers={**PNG, **more, "x-request-id": name})
                for url, more, name in asked
            )
        )
    told = [line["request_id"] for line in lines if line["logger"] == "test.worker"]
    assert sorted(told) == ["job", "plain"]


async def test_the_ids_of_the_trace(lines: list[dict[str, Any]]) -> None:
    with collecting() as collector:
        async with serving(zoo_settings(access_log=True, otlp_endpoint=collector.url)) as service:
            await service.client.post(PREDICT, content=FILES[1], headers=PNG)
            quiet = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
            await service.client.post(PREDICT, content=FILES[1], headers={**PNG, "traceparent": quiet})
        [request] = collector.spans("POST /v1/models/{model}:predict")
    sampled, unsampled = (line for line in lines if line["logger"] == "konkyo.access")
    assert (sampled["trace_id"], sampled["span_id"]) == (request.trace, request.id)
    assert unsampled["trace_id"] == "0af7651916cd43dd8448eb211c80319c"  # the caller may have kept its part
    assert not [line for line in lines if "trace_id" in line and line["logger"] != "konkyo.access"]


async def test_without_traces_there_are_no_ids(lines: list[dict[str, Any]]) -> None:
    async with serving(zoo_settings(access_log=True)) as service:
        caller = Caller(service.app, PREDICT)
        caller.send(FILES[1])
        await caller.done
        assert caller.status == 200
    [line] = (line for line in lines if line["logger"] == "konkyo.access")
    assert len(line["request_id"]) == 32
    assert "trace_id" not in line


def test_every_line_of_a_process_is_json(tmp_path: Path) -> None:
    with process(tmp_path, log_format="json", access_log=True, drain_seconds=0) as server:
        server.ready()
        assert server.request("POST", PREDICT, FILES[1])[0] == 200
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0, server.log()
        log = (tmp_path / "log").read_text()
    found = [json.loads(line) for line in log.splitlines()]
    assert {"konkyo.access", "uvicorn.error"} <= {line["logger"] for line in found}
    assert "Application startup complete." in [line["message"] for line in found]
    assert any(line["message"].startswith(f"{NAME}/1 is ready") for line in found)


WARNS = """
import logging
import warnings
from konkyo.service import logs
from konkyo.service.settings import Settings

logs.configure(Settings(log_format="{format}"))
warnings.warn_explicit("a remark", UserWarning, "TiffImagePlugin.py", 1, module="PIL.TiffImagePlugin")
warnings.warn_explicit("a warning", UserWarning, "other.py", 1, module="other")
logging.getLogger("PIL.TiffImagePlugin").error("a remark")
"""


@pytest.mark.parametrize("kind", ["json", "text"])
def test_warnings_are_log_lines_but_remarks_on_files_are_none(kind: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WARNS.format(format=kind)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    [line] = done.stderr.splitlines()
    assert "a warning" in line
    assert "py.warnings" in line


def test_configuring_replaces_what_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    root, capture = logging.getLogger(), io.StringIO()
    before, level, filters = root.handlers[:], root.level, warnings.filters[:]
    root.handlers.clear()  # pytest's own, which the next call would close
    monkeypatch.setattr(sys, "stderr", capture)
    try:
        for _ in range(2):
            logs.configure(zoo_settings(log_format="json", log_level="error"))
        logging.getLogger("konkyo").warning("quiet")
        logging.getLogger("konkyo").error("loud")
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = before
        root.setLevel(level)
        warnings.filters[:] = filters
    [line] = capture.getvalue().splitlines()
    assert json.loads(line)["message"] == "loud"
