"""Around every request: an id, a duration, and headers that keep the page to itself."""

from __future__ import annotations

import logging
import re
import time
import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from konkyo.service.state import State

logger = logging.getLogger("konkyo.access")

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE_HEADERS = [
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-cache"),  # ask each time, or an upgrade would mix old modules with new ones
]


class Observed:
    """Plain ASGI middleware: echoes or makes ``x-request-id``, and counts the request."""

    def __init__(self, app: ASGIApp, *, state: State) -> None:
        self._app = app
        self._http = state.metrics.http
        self._access_log = state.settings.access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = uuid.uuid4().hex.encode()
        scope["konkyo.request_id"] = request_id.decode()
        path: str = scope["path"]
        status = 500

        async def send_observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message.setdefault("headers", [])
                headers.append((b"x-request-id", request_id))
                if path == "/" or path.startswith("/static/"):
                    headers.extend(_PAGE_HEADERS)
            await send(message)

        try:
            await self._app(scope, receive, send_observed)
        finally:
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", "unmatched")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._http.labels(method, route, str(status)).observe(seconds)
            if self._access_log:
                logger.info(
                    "%s %s %d %.1f ms %s", method, path, status, seconds * 1e3, scope["konkyo.request_id"]
                )


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Any word may be a method; the label must stay bounded."""
