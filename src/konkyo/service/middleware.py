"""Around every request: an id, a duration, and what browsers are told."""

from __future__ import annotations

import logging
import re
import time
import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from konkyo.service import logs
from konkyo.service.browsers import Header, security_headers
from konkyo.service.state import State
from konkyo.service.tracing import active

logger = logging.getLogger("konkyo.access")

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")


class Observed:
    """Plain ASGI middleware: echoes or makes ``x-request-id``, and counts the request."""

    def __init__(self, app: ASGIApp, *, state: State) -> None:
        self._app = app
        self._http = state.metrics.http
        self._access_log = state.settings.access_log
        self._tracing = state.tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        scope["konkyo.request_id"] = make_request_id(scope).decode()
        status, sent = 500, 0

        async def send_observed(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message.setdefault("headers", [])
                headers.extend(own_headers(scope, headers))
            sent += len(message.get("body", b""))
            await send(message)

        token = logs.request_id.set(scope["konkyo.request_id"])
        try:
            with active(self._tracing.request(scope)) as span:
                try:
                    await self._app(scope, receive, send_observed)
                finally:
                    seconds = time.perf_counter() - started
                    route = getattr(scope.get("route"), "path", None)
                    method = scope["method"] if scope["method"] in METHODS else "other"
                    self._http.labels(method, route or "unmatched", str(status)).observe(seconds)
                    if self._access_log:
                        _log(scope, method, route, status, seconds, sent)
                    span.answered(method, route, status)
        finally:
            logs.request_id.reset(token)


def make_request_id(scope: Scope) -> bytes:
    """The caller's own ``x-request-id``, or a new one where there is none that can be echoed."""
    given: bytes = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex.encode()


def _log(scope: Scope, method: str, route: str | None, status: int, seconds: float, sent: int) -> None:
    path, milliseconds, identity = scope["path"], seconds * 1e3, scope["konkyo.request_id"]
    fields = {
        "method": method,
        "path": path,
        "route": route,
        "status": status,
        "ms": round(milliseconds, 3),
        "bytes": sent,
        "client": scope["client"][0] if scope.get("client") else None,
    }
    logger.info("%s %s %d %.1f ms %s", method, path, status, milliseconds, identity, extra={"fields": fields})


METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Any word may be a method; the label must stay bounded."""


def own_headers(scope: Scope, sent: list[Header]) -> list[Header]:
    """What every answer carries beside the headers it has."""
    return [(b"x-request-id", scope["konkyo.request_id"].encode()), *security_headers(scope, sent)]
