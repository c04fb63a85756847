"""Asks the server on this machine how it is, for probes that can run a command and not a request."""

from __future__ import annotations

import http.client
import json
import ssl

from konkyo.errors import NotReady
from konkyo.service.settings import Settings

WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "localhost"}  # noqa: S104 - asked about, not listened on


def ask_health(settings: Settings, path: str, seconds: float) -> None:
    """Return if the server answers ``path`` with 200.

    Args:
        settings: those the server was started with: host, port and TLS.
        path: ``/readyz`` or ``/livez``.
        seconds: how long connecting, and then the answer, may take.

    Raises:
        NotReady: it answers otherwise, or not at all; the message says what it says.
    """
    host = WILDCARDS.get(settings.host, settings.host)
    connection = _connection(settings, host, seconds)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise NotReady(f"no answer on port {settings.port} of {host}: {error!r}") from None
    finally:
        connection.close()
    if response.status != http.HTTPStatus.OK:
        raise NotReady(f"{path} answers {response.status}: {_problems(body)}")


def _connection(settings: Settings, host: str, seconds: float) -> http.client.HTTPConnection:
    if settings.tls_certificate is None:
        return http.client.HTTPConnection(host, settings.port, timeout=seconds)
    context = ssl.create_default_context()
    # The certificate is for the name the world knows, and whether it is out of date is for others to say.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if settings.tls_client_ca is not None:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    return http.client.HTTPSConnection(host, settings.port, timeout=seconds, context=context)


def _problems(body: bytes) -> str:
    try:
        return "; ".join(json.loads(body)["problems"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")
