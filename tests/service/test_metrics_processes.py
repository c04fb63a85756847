"""The metrics of several processes are those of one."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
import pytest
from processes import Process, eventually, process
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from services import EXPLAIN, FILES, PREDICT, one_model

from konkyo.service.sharing import Processes

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(server: Process, port: int | None = None) -> Samples:
    """Every sample of ours by its name and labels."""
    with httpx.Client(trust_env=False) as client:
        text = client.get(f"http://127.0.0.1:{port or server.port}/metrics").text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(found: Samples, name: str, **labels: str) -> float:
    return sum(
        value
        for (named, having), value in found.items()
        if named == f"konkyo_{name}" and labels.items() <= dict(having).items()
    )


def ask(server: Process, number: int) -> None:
    """Requests of every outcome, each on a connection of its own, as a balancer would spread them."""
    for n in range(number):
        for path, body, status in (
            (PREDICT, FILES[n], 200),
            (EXPLAIN, FILES[n], 200),
            (f"{EXPLAIN}?targets=cat,dog", FILES[n], 200),
            (PREDICT, b"no image", 415),
            ("/v1/models/missing:predict", FILES[n], 404),
        ):
            assert server.request("POST", path, body)[0] == status
    assert server.request("STEAL", "/")[0] == 400


def counts(found: Samples) -> Samples:
    """What is counted, without what is measured in seconds."""
    return {
        (name, labels): value
        for (name, labels), value in found.items()
        if name.startswith("konkyo_")
        and (name.endswith("_count") or (name.endswith(("_total", "_bucket")) and "seconds" not in name))
        and not {("route", "/metrics"), ("route", "/readyz")} & labels
    }


def growth(server: Process, number: int) -> Samples:
    before = counts(samples(server))
    ask(server, number)
    after = counts(samples(server))
    return {key: value - before.get(key, 0) for key, value in after.items() if value != before.get(key, 0)}


def test_the_same_traffic_counts_the_same(tmp_path: Path) -> None:
    grown = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        with process(folder, repository=one_model(), processes=processes) as server:
            server.ready()
            found = growth(server, 8)
            grown.append(found)
            assert total(found, "requests_total", outcome="success") == 24
            assert total(found, "predictions_total") == 24
            assert total(found, "http_request_duration_seconds_count", status="415") == 8
            assert total(found, "http_refused_total", reason="invalid_request") == 1
            assert total(found, "map_entropy_count") == 24
            assert total(samples(server), "queue_capacity", kind="predict") == processes * 256
            assert total(samples(server), "queue_depth") == 0
            assert total(samples(server), "model_ready") == 1
            assert total(samples(server), "build_info") == 1
    assert grown[0] == grown[1]


def test_nothing_is_lost_with_a_worker(tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    begin = f"import tempfile; tempfile.tempdir = {str(temporary)!r}"
    program = ("-c", f"{begin}; from konkyo.cli import main; main()")
    with process(tmp_path, program, repository=one_model(), processes=2) as server:
        server.ready()
        ask(server, 4)
        before = samples(server)
        victim = min(server.workers())
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: server.whole_log().count("Application startup complete") >= 3)
        server.ready()
        found = counts(samples(server))
        assert not [key for key, value in counts(before).items() if found[key] < value]
        ask(server, 4)
        found = samples(server)
        assert total(found, "requests_total", outcome="success") == 24
        assert total(found, "http_request_duration_seconds_count", status="415") == 8
        assert total(found, "queue_capacity", kind="predict") == 512  # of two, not of three
        assert total(found, "model_ready") == 1
        [folder] = temporary.iterdir()
        assert len({re.sub(r"\D", "", file.name) for file in folder.iterdir()}) == 2  # files of two places
        server.signal(signal.SIGINT)
        assert server.exit_code() == 0, server.log()
        assert not list(temporary.iterdir())


def test_a_port_of_its_own_has_all_of_them(tmp_path: Path, free_port: int) -> None:
    with process(tmp_path, repository=one_model(), processes=2, metrics_port=free_port) as server:
        server.ready()
        ask(server, 4)
        assert server.request("GET", "/metrics")[0] == 404
        found = samples(server, free_port)
        assert total(found, "requests_total", outcome="success") == 12
        assert found["process_resident_memory_bytes", frozenset()] > sum(map(resident, server.workers()))


def resident(pid: int) -> int:
    """Bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool")
def test_promtool_finds_nothing_wrong(tmp_path: Path) -> None:
    with process(tmp_path, repository=one_model(), processes=2) as server:
        server.ready()
        ask(server, 1)
        text = httpx.get(f"{server.address}/metrics", trust_env=False).text
    command: list[Any] = ["promtool", "check", "metrics"]
    done = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_time_of_a_child_that_ends_while_it_is_read_counts_once() -> None:
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    with subprocess.Popen([sys.executable, "-c", burn]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is a child still

        class Ending(Processes):
            def _of(self, process: int) -> Iterable[Metric]:
                found = list(super()._of(process))
                if process == child.pid:
                    child.wait()
                return found

        def seconds(processes: Processes) -> float:
            [found] = [family for family in processes.collect() if family.name == "process_cpu_seconds"]
            return float(found.samples[0].value)

        assert seconds(Ending(os.getpid())) <= seconds(Processes(os.getpid()))
        assert child.returncode == 0
