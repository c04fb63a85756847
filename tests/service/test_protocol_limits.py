"""What callers can do to a real server over raw connections, and what it costs."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from processes import Process, eventually, process
from services import FILES, PREDICT, one_model

SHORT = "from konkyo.service import protocol; protocol.LINGER_SECONDS = 0.2"
IMPATIENT = ("-c", f"{SHORT}; from konkyo.cli import main; main()")
"""``konkyo``, which does not let callers send on for long."""

LABEL = "frog"
"""What the network takes the first image for."""

HOST = b"Host: konkyo\r\n"
LIVE = b"GET /livez HTTP/1.1\r\n" + HOST + b"\r\n"
POST = b"POST %s HTTP/1.1\r\n%sContent-Type: image/png\r\n" % (PREDICT.encode(), HOST)
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
PAGE = b"GET /static-offline-docs/swagger-ui-bundle.js HTTP/1.1\r\n" + HOST + b"\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("limits")
    settings = {
        "repository": one_model(), "header_timeout_seconds": 0.4, "keep_alive_seconds": 0.4,
        "write_timeout_seconds": 0.4, "body_timeout_seconds": 5, "max_body_bytes": 2**20,
    }  # fmt: skip
    with process(folder, IMPATIENT, **settings) as started:
        started.ready()
        yield started


def everything(connection: socket.socket) -> bytes:
    """What comes until the server closes the connection."""
    found = b""
    while piece := connection.recv(2**16):
        found += piece
    return found


def talk(server: Process, data: bytes) -> bytes:
    with server.connect() as connection:
        connection.sendall(data)
        return everything(connection)


def answer(connection: socket.socket) -> tuple[int, bytes]:
    """The next one, of which nothing must follow yet."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    with response:
        return response.status, response.read()


def statuses(answers: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]


def error(answer: bytes) -> tuple[int, str]:
    """Status and code of the one answer, which ends the connection."""
    header, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\nconnection: close" in header.lower()
    assert b"content-type: application/json" in header.lower()
    [status] = statuses(answer)
    return status, json.loads(body)["error"]["code"]


def metric(server: Process, name: str, **labels: str) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    wanted = ",".join(f'{key}="{value}"' for key, value in labels.items())
    found = re.search(rf"^konkyo_{name}{re.escape('{' + wanted + '}') if wanted else ''} (\S+)$", text, re.M)
    return float(found[1]) if found else 0.0


def resident(server: Process) -> float:
    """Megabytes."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{server.pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


# What is no HTTP/1.1

MALFORMED = {
    "a length and chunks": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and a length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "a list of lengths": POST + b"Content-Length: 5, 5\r\n\r\nhello",
    "a negative length": POST + b"Content-Length: -5\r\n\r\n",
    "a length with a sign": POST + b"Content-Length: +5\r\n\r\nhello",
    "a length beyond 64 bits": POST + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "an unknown coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a coding we cannot undo": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked, but not last": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked after a tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": POST + b"Content-Length : 5\r\n\r\nhello",
    "a folded field": b"GET /livez HTTP/1.1\r\n" + HOST + b"A: b\r\n c\r\n\r\n",
    "a zero byte": b"GET /livez HTTP/1.1\r\n" + HOST + b"A: b\x00c\r\n\r\n",
    "bare line feeds": LIVE.replace(b"\r\n", b"\n"),
    "bare carriage returns": LIVE.replace(b"\r\n", b"\r"),
    "no host": b"GET /livez HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /livez HTTP/1.1\r\n" + 2 * HOST + b"\r\n",
    "HTTP/0.9": b"GET /livez\r\n\r\n",
    "HTTP/2.0": b"GET /livez HTTP/2.0\r\n" + HOST + b"\r\n",
    "an unknown method": b"STEAL /livez HTTP/1.1\r\n" + HOST + b"\r\n",
    "a method in small letters": b"get /livez HTTP/1.1\r\n" + HOST + b"\r\n",
    "a tunnel": b"CONNECT konkyo:80 HTTP/1.1\r\n" + HOST + b"\r\n",
    "a tunnel to a path": b"CONNECT /livez HTTP/1.1\r\n" + HOST + b"\r\n",
    "a tunnel to a protocol": b"CONNECT / HTTP/1.1\r\nUpgrade: a\r\nConnection: upgrade\r\n" + HOST + b"\r\n",
    "a fragment": b"GET /livez#here HTTP/1.1\r\n" + HOST + b"\r\n",
    "a space in the path": b"GET /live z HTTP/1.1\r\n" + HOST + b"\r\n",
    "a path beyond ASCII": b"GET /\xc3\xa9 HTTP/1.1\r\n" + HOST + b"\r\n",
    "an address without a path": b"GET http://konkyo HTTP/1.1\r\n" + HOST + b"\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "the hello of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
    "a chunk without a size": CHUNKED + b"xyz\r\n",
    "a chunk beyond 64 bits": CHUNKED + b"fffffffffffffffff\r\n",
    "chunks with bare line feeds": CHUNKED + b"1\nx\n0\n\n",
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_requests_get_400_and_the_connection_ends(server: Process, data: bytes) -> None:
    assert error(talk(server, data)) == (400, "invalid_request")


def test_what_is_read_in_one_way_only_is_read(server: Process) -> None:
    body = FILES[0]
    chunks = b"".join(b"1;name=value\r\n%c\r\n" % byte for byte in body)
    whole = b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    for request in (
        CHUNKED.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
        + chunks
        + b"0\r\nX-Trailer: dropped\r\n\r\n",
        POST.replace(b"POST /", b"POST http://konkyo/") + whole,
        POST + b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings, close\r\n" + whole[19:],
        POST.replace(HOST, b"").replace(b"HTTP/1.1", b"HTTP/1.0") + whole,
    ):
        found = talk(server, request)
        assert statuses(found) == [200], (request[:300], found)
        assert json.loads(found.partition(b"\r\n\r\n")[2])["label"] == LABEL


# Headers


def test_a_path_over_the_limit_is_414(server: Process) -> None:
    line = b"GET /livez?%s HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
    assert statuses(talk(server, line % (b"a" * (8192 - 7)))) == [200]
    assert error(talk(server, line % (b"a" * (8192 - 6)))) == (414, "uri_too_long")


def test_too_many_fields_are_431(server: Process) -> None:
    begin = b"GET /livez HTTP/1.1\r\nConnection: close\r\n" + HOST
    assert statuses(talk(server, begin + 98 * b"A: b\r\n" + b"\r\n")) == [200]
    assert error(talk(server, begin + 99 * b"A: b\r\n" + b"\r\n")) == (431, "headers_too_large")


@pytest.mark.parametrize("field", [b"A: %s\r\n\r\n", b"A: %s", b"%s: b\r\n\r\n"])
def test_a_header_over_the_limit_is_431_even_if_it_never_ends(server: Process, field: bytes) -> None:
    begin = b"GET /livez HTTP/1.1\r\nConnection: close\r\n" + HOST
    assert statuses(talk(server, begin + b"A: " + b"b" * 16_000 + b"\r\n\r\n")) == [200]
    assert error(talk(server, begin + field % (b"b" * 17_000))) == (431, "headers_too_large")


def test_a_header_that_does_not_arrive_is_408(server: Process) -> None:
    assert error(talk(server, LIVE[:-2])) == (408, "header_timeout")


def test_so_is_the_second_one(server: Process) -> None:
    answers = talk(server, LIVE + LIVE[:-2])
    assert statuses(answers) == [200, 408]


def test_a_connection_that_says_nothing_is_closed(server: Process) -> None:
    assert talk(server, b"") == b""
    assert statuses(talk(server, LIVE)) == [200]
    assert statuses(talk(server, LIVE + b"\r\n")) == [200]  # which is less than a request


# Several requests on a connection


def test_pipelined_requests_are_answered_in_order(server: Process) -> None:
    missing = b"GET /missing HTTP/1.1\r\n" + HOST + b"\r\n"
    assert statuses(talk(server, LIVE + missing + LIVE)) == [200, 404, 200]


def test_a_flood_of_them_is_answered_in_part(server: Process) -> None:
    before = metric(server, "http_refused_total", reason="invalid_request")
    answers = talk(server, 1000 * LIVE)
    assert statuses(answers) == [200] * 17  # one at work, and 16 that wait
    assert answers.count(b"\r\nconnection: close") == 1
    assert metric(server, "http_refused_total", reason="invalid_request") == before + 1


def test_garbage_after_a_request_does_not_disturb_its_answer(server: Process) -> None:
    length = b"Content-Length: %d\r\n\r\n" % len(FILES[0])
    answers = talk(server, POST + length + FILES[0] + b"\x00 garbage")
    assert statuses(answers) == [200]
    assert b"\r\nconnection: close" in answers
    assert json.loads(answers.partition(b"\r\n\r\n")[2])["label"] == LABEL


def test_a_body_that_breaks_off_wrongly_is_answered_once(server: Process) -> None:
    with server.connect() as connection:
        connection.sendall(CHUNKED + b"5\r\nhello\r\n")
        eventually(lambda: metric(server, "http_connections") == 2)  # this one, and who asks
        connection.sendall(b"no size\r\n")
        assert error(everything(connection)) == (400, "invalid_request")


# Bodies


def test_an_endless_body_that_nobody_reads_ends_the_connection(server: Process) -> None:
    begin = b"GET /livez HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    with server.connect() as connection:
        connection.sendall(begin)
        sent = send_until_closed(connection, b"400\r\n" + 1024 * b"x" + b"\r\n")
    assert sent > 0


def test_a_body_over_the_limit_is_answered_before_it_has_come(server: Process) -> None:
    with server.connect() as connection:
        connection.sendall(POST + b"Content-Length: 1048577\r\n\r\n")
        status, body = answer(connection)
        assert (status, json.loads(body)["error"]["code"]) == (413, "body_too_large")
        send_until_closed(connection, 1024 * b"x")


@pytest.mark.parametrize(
    "flood",
    [
        100 * (b"1;" + 100 * b"extension" + b"\r\nx\r\n"),
        100_000 * b"0",
        b"0\r\n" + 10_000 * b"Trailer: x\r\n",
    ],
    ids=["extensions", "zeros of a size", "trailers"],
)
def test_chunks_that_are_more_frame_than_body_are_refused(server: Process, flood: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(CHUNKED + b"1\r\nx\r\n")
        eventually(lambda: metric(server, "http_connections") == 2)  # this one, and who asks
        connection.sendall(flood)
        assert error(everything(connection)) == (400, "invalid_request")


def send_until_closed(connection: socket.socket, piece: bytes) -> int:
    """How often it could be sent before the server had closed the connection."""
    sent = 0
    try:
        while True:
            connection.sendall(piece)
            sent += 1
    except (BrokenPipeError, ConnectionResetError):
        return sent


# Answers that nobody takes


@contextmanager
def deaf(server: Process) -> Iterator[socket.socket]:
    """A caller whose system takes little and who reads nothing."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(20)
        connection.connect(("127.0.0.1", server.port))
        yield connection


def test_an_answer_that_is_not_taken_is_dropped(server: Process) -> None:
    before = metric(server, "http_refused_total", reason="write_timeout")
    with ExitStack() as callers:
        for _ in range(3):
            callers.enter_context(deaf(server)).sendall(16 * PAGE)
        eventually(lambda: metric(server, "http_refused_total", reason="write_timeout") == before + 3)
        assert metric(server, "http_connections") == 1  # who asks


def test_answers_that_wait_count_as_memory_held(tmp_path: Path) -> None:
    whole = b"GET /openapi.json HTTP/1.1\r\n" + HOST + b"\r\n"  # in one piece, unlike files
    with process(tmp_path, repository=one_model(), max_buffered_bytes=50_000) as server:
        server.ready()
        with deaf(server) as connection:

            def overloaded() -> bool:
                with suppress(BrokenPipeError, ConnectionResetError):
                    connection.sendall(whole)
                return metric(server, "http_refused_total", reason="overloaded") == 1

            eventually(overloaded)
            assert metric(server, "http_connections") == 1


# Memory


def test_memory_is_bounded_whatever_comes(server: Process) -> None:
    """Many megabytes, of every kind above, at once and one after the other."""
    for data in MALFORMED.values():
        talk(server, data)
    before = resident(server)
    with ExitStack() as callers:
        waiting = [callers.enter_context(server.connect()) for _ in range(20)]
        for connection in waiting:
            connection.sendall(CHUNKED + 3000 * b"1\r\nx\r\n")
        for connection in waiting:
            send_until_closed(connection, b"GET / HTTP/1.1\r\nA: " + 2**18 * b"x")
    for flood in (
        b"GET / HTTP/1.1\r\nA: " + 2**20 * b"x",
        b"GET /" + 2**20 * b"x",
        2**17 * b"\r\n",
        2**14 * LIVE,
        CHUNKED + b"1;" + 2**20 * b"x",
        CHUNKED + b"0\r\n" + 2**16 * b"A: b\r\n",
        POST + b"Content-Length: 1000000000\r\n\r\n" + 2**20 * b"x",
    ):
        for _ in range(8):
            with server.connect() as connection:
                send_until_closed_or_done(connection, flood)
    assert resident(server) - before < 20
    assert server.request("GET", "/livez")[0] == 200


def send_until_closed_or_done(connection: socket.socket, data: bytes) -> None:
    try:
        connection.sendall(data)
        everything(connection)
    except (BrokenPipeError, ConnectionResetError):
        pass


# How many there may be


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with process(tmp_path_factory.mktemp("small"), repository=one_model(), max_connections=4) as started:
        started.ready()
        yield started


def at_work(server: Process, stack: ExitStack) -> socket.socket:
    """A connection with a request at work: half of its body has come."""
    connection = stack.enter_context(server.connect())
    length = b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(FILES[0])
    connection.sendall(POST + length)
    assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
    return connection


def test_at_the_limit_who_has_waited_longest_gives_way(small: Process) -> None:
    with ExitStack() as stack:
        slow = stack.enter_context(small.connect())
        slow.sendall(LIVE[:-2])
        idle = [stack.enter_context(small.connect()) for _ in range(3)]
        for connection in idle:
            connection.sendall(LIVE)
            assert answer(connection)[0] == 200
        fifth = stack.enter_context(small.connect())
        for connection in (fifth, *idle):
            connection.sendall(LIVE)
            assert answer(connection)[0] == 200
        assert everything(slow) == b""


def test_where_all_are_at_work_health_is_answered_and_the_rest_503(small: Process) -> None:
    with ExitStack() as stack:
        working = [at_work(small, stack) for _ in range(4)]
        for path in (b"/livez", b"/readyz", b"/v2/health/ready", b"/metrics"):
            found = talk(small, LIVE.replace(b"/livez", path))
            assert statuses(found) == [200]
            assert b"\r\nconnection: close" in found
        refused = talk(small, b"GET /v1/models HTTP/1.1\r\n" + HOST + b"\r\n")
        assert error(refused) == (503, "too_many_connections")
        assert b"\r\nretry-after: 1" in refused
        for connection in working:
            connection.sendall(FILES[0])
            assert answer(connection)[0] == 200
    assert small.request("GET", "/v1/models")[0] == 200


def test_there_is_an_end_to_those_over_the_limit(small: Process) -> None:
    before = metric(small, "http_refused_total", reason="gave_way")
    with ExitStack() as stack:
        for _ in range(4):
            at_work(small, stack)
        over = [stack.enter_context(small.connect()) for _ in range(100)]
        for connection in over:
            connection.sendall(LIVE)
        answered = sum(answer_or_nothing(connection) for connection in over)
        assert answered >= 64
        assert metric(small, "http_refused_total", reason="gave_way") - before == 100 - answered


def answer_or_nothing(connection: socket.socket) -> int:
    try:
        return int(everything(connection).startswith(b"HTTP/1.1 200 "))
    except ConnectionResetError:
        return 0


# The end


def test_connections_end_with_their_answer_while_the_server_drains(tmp_path: Path) -> None:
    with process(tmp_path, repository=one_model(), drain_seconds=600) as server, ExitStack() as stack:
        server.ready()
        idle = stack.enter_context(server.connect())
        idle.sendall(LIVE)
        assert answer(idle)[0] == 200
        working = at_work(server, stack)
        server.signal(signal.SIGTERM)
        eventually(lambda: server.request("GET", "/readyz")[0] == 503)
        idle.sendall(LIVE)
        working.sendall(FILES[0])
        for connection in (idle, working):
            found = everything(connection)
            assert statuses(found) == [200]
            assert b"\r\nconnection: close" in found
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0, server.log()


def test_who_has_just_come_when_the_server_ends_is_answered(tmp_path: Path) -> None:
    with process(tmp_path, repository=one_model(), drain_seconds=0) as server, server.connect() as newcomer:
        server.ready()
        server.signal(signal.SIGTERM)
        eventually(lambda: "Shutting down" in server.log())
        newcomer.sendall(LIVE)
        found = everything(newcomer)
        assert statuses(found) == [200]
        assert b"\r\nconnection: close" in found
        assert server.exit_code() == 0, server.log()
