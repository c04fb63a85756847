"""``konkyo health``, as a probe runs it, beside a real server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trustme
from processes import eventually, process
from services import one_model

from konkyo.errors import NotReady
from konkyo.service.health import ask_health
from konkyo.service.settings import Settings


def health(*options: str, **settings: object) -> tuple[int, str]:
    """Exit code, and what it says."""
    environment = {f"KONKYO_{name.upper()}": str(value) for name, value in settings.items()}
    result = subprocess.run(
        [sys.executable, "-m", "konkyo", "health", *options],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return result.returncode, result.stdout + result.stderr


def test_a_server_that_is_ready_and_then_drains(tmp_path: Path) -> None:
    with process(tmp_path, repository=one_model(), drain_seconds=60) as server:
        server.ready()
        assert health(port=server.port) == (0, "")
        assert health("--live", port=server.port) == (0, "")
        assert health(port=server.port, host="0.0.0.0") == (0, ""), "not an address to connect to"
        server.signal(signal.SIGTERM)
        eventually(lambda: server.request("GET", "/readyz")[0] == 503)
        assert health(port=server.port) == (1, "error: /readyz answers 503: draining\n")
        assert health("--live", port=server.port) == (0, "")


@pytest.mark.parametrize("mutual", [False, True])
def test_over_tls(mutual: bool, tmp_path: Path) -> None:
    """By a certificate for another name, which is no matter; where callers need one, by the server's own."""
    authority = trustme.CA()
    issued = authority.issue_cert("konkyo.example")
    certificate, key, others = (tmp_path / name for name in ("tls.crt", "tls.key", "ca.crt"))
    certificate.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    others.write_bytes(authority.cert_pem.bytes())
    tls = {"tls_certificate": certificate, "tls_key": key, **({"tls_client_ca": others} if mutual else {})}
    with process(tmp_path, repository=one_model(), **tls) as server:
        eventually(lambda: health(port=server.port, **tls) == (0, ""))
        code, said = health(port=server.port)
        assert code == 1
        assert said.startswith(f"error: no answer on port {server.port} of 127.0.0.1: ")


def test_no_server(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    code, said = health(port=port)
    assert code == 1
    assert said.startswith(f"error: no answer on port {port} of 127.0.0.1: ConnectionRefusedError")


def test_a_server_that_does_not_answer_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = Settings(port=silent.getsockname()[1])
        with pytest.raises(NotReady, match="TimeoutError"):
            ask_health(settings, "/readyz", 0.05)


def test_something_else_on_the_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        settings = Settings(port=other.getsockname()[1])
        asking = subprocess.Popen(
            [sys.executable, "-m", "konkyo", "health"],
            env={"PATH": os.environ["PATH"], "KONKYO_PORT": str(settings.port)},
            stderr=subprocess.PIPE,
            text=True,
        )
        connection, _ = other.accept()
        with connection:
            connection.sendall(b"220 mail\r\n")
            _, said = asking.communicate(timeout=60)
    assert asking.returncode == 1
    assert "BadStatusLine('220 mail\\r\\n')" in said
