"""TLS, with certificates made for the test and real clients."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from processes import Process, eventually, process
from services import FILES, PNG, PREDICT, one_model
from test_lifecycle import serve

from konkyo.service.settings import Settings
from konkyo.service.tls import Certificates


class Files:
    """A certificate for 127.0.0.1 and its key on the disk."""

    def __init__(self, folder: Path, authority: trustme.CA) -> None:
        self.certificate, self.key = folder / "server.pem", folder / "server.key"
        self.issue(authority)

    def issue(self, authority: trustme.CA) -> None:
        """Write new ones, each in one step, as Kubernetes does."""
        issued = authority.issue_cert("127.0.0.1")
        chain = b"".join(part.bytes() for part in issued.cert_chain_pems)
        for path, content in ((self.certificate, chain), (self.key, issued.private_key_pem.bytes())):
            new = path.with_suffix(".new")
            new.write_bytes(content)
            os.replace(new, path)  # noqa: PTH105 - Path.replace is the same, and less said

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "repository": one_model(), "tls_certificate": self.certificate, "tls_key": self.key,
            "header_timeout_seconds": 0.5,
        }  # fmt: skip


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("tls")
    with process(folder, **Files(folder, authority).settings) as started:
        assert started.address.startswith("https://")
        eventually(lambda: ask(started, trusting(authority), "GET", "/readyz")[0] == 200)
        yield started


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """What a client of that authority speaks."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context


def ask(
    server: Process, context: ssl.SSLContext, method: str, path: str, body: bytes | None = None
) -> tuple[int, Any]:
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=context, timeout=20)
    try:
        connection.request(method, path, body, PNG if body else {})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_are_spoken(server: Process, authority: trustme.CA, version: ssl.TLSVersion) -> None:
    context = trusting(authority)
    context.minimum_version = context.maximum_version = version
    assert ask(server, context, "GET", "/livez")[0] == 200
    assert ask(server, context, "GET", "/readyz")[0] == 200
    assert ask(server, context, "POST", PREDICT, FILES[0])[0] == 200


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_tls_1_1_is_not(server: Process, authority: trustme.CA) -> None:
    context = trusting(authority)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match=r"PROTOCOL_VERSION|EOF"):
        ask(server, context, "GET", "/livez")


def test_a_client_of_another_authority_does_not_trust_it(server: Process) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        ask(server, trusting(trustme.CA()), "GET", "/livez")


def test_what_is_no_tls_is_closed(server: Process) -> None:
    for hello in (b"GET /livez HTTP/1.1\r\nHost: konkyo\r\n\r\n", b"\x16\x03\x01"):  # which never goes on
        with server.connect() as connection:
            connection.sendall(hello)
            assert b"HTTP" not in connection.recv(100)


def test_limits_hold_inside(server: Process, authority: trustme.CA) -> None:
    context = trusting(authority)
    with server.connect() as plain, context.wrap_socket(plain, server_hostname="127.0.0.1") as inside:
        inside.sendall(b"GET /livez HTTP/1.1\r\nHost: konkyo\r\n")
        assert inside.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_who_must_show_a_certificate(tmp_path: Path, authority: trustme.CA) -> None:
    callers = trustme.CA()
    callers.cert_pem.write_to_path(str(tmp_path / "callers.pem"))
    files = Files(tmp_path, authority)
    with process(tmp_path, tls_client_ca=tmp_path / "callers.pem", **files.settings) as server:
        context = trusting(authority)
        callers.issue_cert("someone@konkyo").configure_cert(context)
        eventually(lambda: ask(server, context, "GET", "/readyz")[0] == 200)
        for stranger in (None, trustme.CA()):
            context = trusting(authority)
            if stranger is not None:
                stranger.issue_cert("someone@konkyo").configure_cert(context)
            with pytest.raises((ssl.SSLError, ConnectionError)):
                ask(server, context, "GET", "/livez")


def test_new_files_are_taken_without_a_restart(tmp_path: Path, authority: trustme.CA) -> None:
    files = Files(tmp_path, authority)
    with process(tmp_path, processes=2, **files.settings) as server:
        old, new = trusting(authority), trustme.CA()
        eventually(lambda: ask(server, old, "GET", "/readyz")[0] == 200)
        files.key.write_text("no key")
        eventually(lambda: server.whole_log().count("the certificates that were there stay in use") == 2)
        for _ in range(4):
            assert ask(server, old, "GET", "/livez")[0] == 200
        files.issue(new)
        eventually(lambda: server.whole_log().count("certificates read again") == 2)
        for _ in range(4):
            assert ask(server, trusting(new), "GET", "/livez")[0] == 200


def test_what_is_wrong_with_the_files_is_said(tmp_path: Path, authority: trustme.CA) -> None:
    files = Files(tmp_path, authority)
    other = tmp_path / "other"
    other.mkdir()
    options = {"certificate": str(files.certificate), "key": str(files.key)}
    for wrong, said in (
        ({"key": None}, "tls_certificate and tls_key belong together"),
        ({"key": str(tmp_path / "missing")}, f"tls_key {tmp_path / 'missing'}: [Errno 2] No such file"),
        ({"key": str(Files(other, authority).key)}, "KEY_VALUES_MISMATCH"),
        ({"client_ca": str(files.key)}, f"tls_client_ca {files.key}: "),
        ({"certificate": None, "key": None, "client_ca": "x"}, "tls_client_ca needs tls_certificate"),
    ):
        given = {f"tls_{name}": value for name, value in {**options, **wrong}.items()}
        with pytest.raises(ValueError, match=re.escape(said)):
            Certificates(Settings.model_validate(given))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl")
def test_a_key_with_a_password_is_refused_instead_of_asking(tmp_path: Path, authority: trustme.CA) -> None:
    files = Files(tmp_path, authority)
    locked = tmp_path / "locked.key"
    command = ["openssl", "ec", "-in", str(files.key), "-aes256", "-passout", "pass:secret"]
    subprocess.run([*command, "-out", str(locked)], check=True, capture_output=True)
    done = serve("--port=0", f"--tls-certificate={files.certificate}", f"--tls-key={locked}")
    assert done.returncode == 1
    assert done.stderr == "error: tls_key is encrypted; give it without a password\n"
