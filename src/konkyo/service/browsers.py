"""What browsers are told, and what is not taken from them.

Pages of other origins may neither read an answer (CORS is closed unless ``cors_origins`` names them) nor
have a visitor's browser send something here (``refuse_cross_origin``), which CORS alone does not prevent.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.types import Scope

from konkyo.errors import CrossOrigin

Header = tuple[bytes, bytes]

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_DATA_POLICY = b"default-src 'none'; frame-ancestors 'none'"

_ALWAYS: list[Header] = [
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
]
_PAGE: list[Header] = [
    (b"content-security-policy", PAGE_POLICY.encode()),
    (b"cache-control", b"no-cache"),  # ask each time, or an upgrade would mix old modules with new ones
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (
        b"permissions-policy",
        b"accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), magnetometer=(), "
        b"microphone=(), midi=(), payment=(), usb=()",
    ),
]
_SECURE: Header = (b"strict-transport-security", b"max-age=31536000")

_READABLE = (
    *("location", "retry-after", "server-timing", "www-authenticate", "inference-header-content-length"),
    *("x-batch-size", "x-index", "x-label", "x-maps", "x-model", "x-model-version", "x-request-id"),
    *("x-score", "x-status", "x-truth"),
)
_SENDABLE = ("authorization", "content-type", "inference-header-content-length", "x-api-key", "x-request-id")
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def security_headers(scope: Scope, sent: list[Header]) -> list[Header]:
    """What an answer carries beside its own headers.

    Args:
        scope: of the request.
        sent: what the answer has already, which stays as it is.
    """
    path: str = scope["path"]
    headers = list(_ALWAYS)
    if path in ("/", "/docs") or path.startswith(("/static/", "/studies/")):
        headers += _PAGE
    else:
        headers.append((b"content-security-policy", _DATA_POLICY))
    if scope["scheme"] == "https":
        headers.append(_SECURE)
    names = {name.lower() for name, _ in sent}
    return [header for header in headers if header[0] not in names]


def allow_origins(app: Starlette, origins: Sequence[str]) -> None:
    """Let pages of these origins read answers; keys are sent in headers, and cookies never."""
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=_SENDABLE,
            expose_headers=_READABLE,
        )


def refuse_cross_origin(request: Request, origins: Sequence[str]) -> None:
    """Refuse what a page of another origin has a browser send.

    As in Go's ``net/http.CrossOriginProtection``: by ``Sec-Fetch-Site``, which a page cannot forge, and where
    a browser leaves that out by comparing ``Origin`` with ``Host``. Programs send neither.

    Raises:
        CrossOrigin
    """
    if request.method in _SAFE:
        return
    headers = request.headers
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site in ("same-origin", "none") or origin in origins:
        return
    if site is None and (origin is None or _authority(origin) == headers.get("host", "").lower()):
        return
    raise CrossOrigin("pages of another origin may not ask; the setting cors_origins names those that may")


def read_origin(text: str) -> str:
    """An origin as a browser sends it.

    Raises:
        ValueError: it is none, such as ``*``.
    """
    parts = urlsplit(text)
    origin = f"{parts.scheme}://{parts.netloc}"
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in origin or text != origin:
        raise ValueError(f"{text!r} is no origin such as https://example.org:8443")
    return origin.lower()


def _authority(origin: str) -> str:
    """Host and port of an origin; an origin that is none, such as ``null``, has no host."""
    return origin.lower().partition("://")[2]
