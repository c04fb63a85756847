"""How many requests a real server lets in at once, and how it answers those above."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from processes import PATIENCE, Process, eventually, process
from services import FILES, PNG, PREDICT, one_model

HANGING = ("-m", "chaos.faulty")
"""``konkyo`` whose engine waits while there is a file ``hang``."""


@contextmanager
def held(folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: object) -> Iterator[Process]:
    monkeypatch.setenv("FAULTS", str(folder))
    with process(folder, HANGING, port=0, repository=one_model(), **settings) as server:
        server.ready()
        (folder / "hang").touch()
        yield server


def connect(server: Process, stack: ExitStack) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    stack.callback(connection.close)
    return connection


def send(server: Process, stack: ExitStack, number: int = 1) -> http.client.HTTPConnection:
    """A connection on which a prediction is asked for."""
    connection = connect(server, stack)
    connection.request("POST", PREDICT, FILES[number], PNG)
    return connection


def counted(server: Process) -> int:
    return int(metric(server, 'konkyo_http_refused_total{reason="too_many_requests"}'))


def waiting(server: Process, kind: str = "predict") -> int:
    return int(metric(server, f'konkyo_queue_depth{{kind="{kind}",model="gcm-cifar10",version="1"}}'))


def metric(server: Process, series: str) -> float:
    with ExitStack() as stack:
        connection = connect(server, stack)
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{series} ")), 0.0)


def test_those_above_it_are_refused_unseen_and_the_rest_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(tmp_path, monkeypatch, max_requests=3, max_batch=1) as server, ExitStack() as stack:
        accepted = [send(server, stack, number) for number in range(3)]
        eventually(lambda: waiting(server) == 2)
        above = connect(server, stack)
        said = "as many requests as may be are at work"
        for path, body in (
            (PREDICT, {"code": "too_many_requests", "message": said, "detail": {}}),
            ("/v2/models/gcm-cifar10/infer", said),
        ):
            for _ in range(2):  # the connection is kept
                above.request("POST", path, FILES[1], PNG)
                response = above.getresponse()
                assert (response.status, response.headers["retry-after"]) == (429, "1")
                assert len(response.headers["x-request-id"]) == 32
                assert response.headers["x-content-type-options"] == "nosniff"
                assert json.loads(response.read()) == {"error": body}
        assert counted(server) == 4
        above.request("POST", PREDICT, FILES[1], {**PNG, "x-request-id": "line-7"})
        response = above.getresponse()
        assert (response.status, response.headers["x-request-id"]) == (429, "line-7")
        response.read()
        assert counted(server) == 5
        assert waiting(server) == 2
        for path in ("/livez", "/readyz"):
            assert server.request("GET", path)[0] == 200
        (tmp_path / "hang").unlink()
        assert [connection.getresponse().status for connection in accepted] == [200] * 3
        above.request("POST", PREDICT, FILES[1], PNG)
        assert above.getresponse().status == 200


def test_who_has_not_sent_everything_takes_nobodys_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(tmp_path, monkeypatch, max_requests=1) as server, ExitStack() as stack:
        (tmp_path / "hang").unlink()
        slow = [connect(server, stack) for _ in range(5)]
        for connection in slow:
            connection.putrequest("POST", PREDICT)
            connection.putheader("content-length", str(len(FILES[1])))
            connection.endheaders(FILES[1][:10])
        assert server.request("POST", PREDICT, FILES[1])[0] == 200
        for connection in slow:
            connection.send(FILES[1][10:])
            assert connection.getresponse().status == 200
        assert counted(server) == 0


def test_who_leaves_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with held(tmp_path, monkeypatch, max_requests=2, max_batch=1) as server, ExitStack() as stack:
        send(server, stack)
        leaving = send(server, stack)
        eventually(lambda: waiting(server) == 1)
        assert server.request("POST", PREDICT, FILES[1])[0] == 429
        leaving.close()
        eventually(lambda: waiting(server) == 0)
        last = send(server, stack)
        (tmp_path / "hang").unlink()
        assert last.getresponse().status == 200


def test_without_a_setting_two_queues_and_two_batches_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"queue_capacity": 3, "max_batch": 1}
    explain = PREDICT.replace("predict", "explain")
    with held(tmp_path, monkeypatch, **settings) as server, ExitStack() as stack:
        for number in range(4):  # one at work and three that wait
            send(server, stack, number)
            eventually(lambda expected=number: waiting(server, "predict") == expected)
        for number in range(3):
            connect(server, stack).request("POST", explain, FILES[number], PNG)
        eventually(lambda: waiting(server, "explain") == 3)
        status, body = server.request("POST", PREDICT, FILES[1])
        assert (status, body["error"]["code"]) == (429, "queue_full")
        connect(server, stack).request(
            "POST", f"{explain}?method=occlusion", FILES[1], {**PNG, "accept": "text/event-stream"}
        )
        eventually(lambda: waiting(server, "perturb") > 0)
        status, body = server.request("POST", PREDICT, FILES[1])
        assert (status, body["error"]["code"]) == (429, "too_many_requests")
        (tmp_path / "hang").unlink()
