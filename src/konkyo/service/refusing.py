"""What is answered where too many requests are at work already: as little as can be, as fast as can be.

A refusal by a full queue has been read, routed and checked before, a fifth of the work of a small answer; at
twice what a server can do that work would be taken from the answers. This one is decided by the header.
"""

from __future__ import annotations

import json

from starlette.types import Receive, Scope, Send

from konkyo.errors import TooManyRequests
from konkyo.service.middleware import make_request_id, own_headers

_ERROR = TooManyRequests("as many requests as may be are at work")
_BODY = json.dumps(_ERROR.body()).encode()
_OIP_BODY = json.dumps({"error": _ERROR.message}).encode()
_HEADERS = [
    (b"content-type", b"application/json"),
    *((name.encode(), value.encode()) for name, value in _ERROR.headers().items()),
]


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """An ASGI application that answers every request with 429."""
    body = _OIP_BODY if scope["path"].startswith("/v2/") else _BODY
    scope["konkyo.request_id"] = make_request_id(scope).decode()
    headers = [*_HEADERS, (b"content-length", b"%d" % len(body))]
    headers += own_headers(scope, headers)
    await send({"type": "http.response.start", "status": _ERROR.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
