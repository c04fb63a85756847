"""Who may ask what: API keys and their scopes, before the body of a request is read.

    @router.post("/v1/models/{model}:explain", dependencies=[needs("explain")])

A key comes as ``Authorization: Bearer KEY`` or as ``X-API-Key: KEY`` (RFC 6750 gives the first, its statuses
and its ``WWW-Authenticate``). Where the setting ``api_keys_file`` is not given, everything is open.
"""

from __future__ import annotations

import ipaddress
import logging
from contextvars import ContextVar
from typing import Any

from fastapi import Depends
from starlette.requests import Request

from konkyo.errors import Forbidden, Unauthorized
from konkyo.service.browsers import refuse_cross_origin
from konkyo.service.keys import Key, KeyFile, Scope
from konkyo.service.metrics import Metrics
from konkyo.service.schemas import ErrorBody
from konkyo.service.settings import Settings

logger = logging.getLogger(__name__)

REFUSALS: dict[int | str, dict[str, Any]] = {401: {"model": ErrorBody}, 403: {"model": ErrorBody}}
"""For the ``responses`` of a route."""

_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key"},
}
"""As OpenAPI names the two ways to send a key; ``given_key`` reads them."""

SUBJECT = "subject"
_SUBJECT_SCHEME = {"type": "http", "scheme": "bearer", "description": "The token of a link into a study"}

key_name: ContextVar[str | None] = ContextVar("konkyo_key_name", default=None)
"""Name of the key of the request in which this runs, None where no key is asked for."""

_SCOPE_KEY = "konkyo.key"
"""Where the key of a request is remembered, in its ASGI scope."""


class Access:
    """Checks keys for one application."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._file = None if settings.api_keys_file is None else KeyFile(settings.api_keys_file)
        self._refused = metrics.unauthorized

    def check(self, request: Request, scope: Scope | None) -> None:
        """Let a request through if its key has the scope; None takes any key.

        Raises:
            Unauthorized, Forbidden
        """
        if self._file is None:
            return
        key = request.scope.get(_SCOPE_KEY) or self._identify(self._file, request)
        request.scope[_SCOPE_KEY] = key
        key_name.set(key.name)
        if scope is not None and scope not in key.scopes:
            self._refused.labels(reason="scope").inc()
            raise Forbidden(f"this API key does not have the scope {scope}", scope=scope)

    def _identify(self, file: KeyFile, request: Request) -> Key:
        given = given_key(request)
        if not given:
            self._refused.labels(reason="missing").inc()
            raise Unauthorized("an API key is needed: send Authorization: Bearer KEY, or X-API-Key: KEY")
        key = file.find(given)
        if key is None:
            self._refused.labels(reason="unknown").inc()
            raise Unauthorized("this API key is not known here", wrong=True)
        return key


def needs(scope: Scope | None = None) -> Any:
    """Dependency of a route: who asks needs a key with this scope, or any key at all.

    It raises ``Unauthorized``, ``Forbidden`` and ``CrossOrigin`` before the handler runs, and so before the
    body is read.
    """

    async def check(request: Request) -> None:
        refuse_cross_origin(request, request.app.state.konkyo.settings.cors_origins)
        permit(request, scope)

    return Depends(check)


def permit(request: Request, scope: Scope | None) -> None:
    """Inside a handler, once it is known what is asked for.

    Raises:
        Unauthorized: no key that is known.
        Forbidden: the key lacks the scope.
    """
    access: Access = request.app.state.konkyo.access
    access.check(request, scope)


def describe_keys(document: dict[str, Any]) -> None:
    """Add to an OpenAPI document how a key is sent, and that every route with ``REFUSALS`` takes one.

    Those of studies take the token of a subject, and say so themselves.

    FastAPI does so for dependencies that are schemes; solving two of those would cost each request some
    0.1 ms.
    """
    document["components"]["securitySchemes"] = {**_SCHEMES, SUBJECT: _SUBJECT_SCHEME}
    for operations in document["paths"].values():
        for operation in operations.values():
            if "401" in operation["responses"] and "security" not in operation:
                operation["security"] = [{name: []} for name in _SCHEMES]


def warn_if_open(settings: Settings) -> None:
    """Say loudly that anybody who reaches the address may ask, where that is not this machine alone."""
    if settings.api_keys_file is None and not _is_loopback(settings.host):
        unload = ", load and unload them" if settings.repository_api else ""
        for line in (
            "=" * 78,
            f"OPEN: listening on {settings.host}, and no API key is asked for.",
            f"Whoever reaches this address can use every model{unload}, and take all of this machine's time.",
            "Make keys with `konkyo key` and name their file in KONKYO_API_KEYS_FILE; see docs/security.md.",
            "=" * 78,
        ):
            logger.warning(line)


def given_key(request: Request) -> str:
    """The key as it was sent, empty if there is none."""
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    return request.headers.get("x-api-key", "").strip()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
