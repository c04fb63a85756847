"""What the header of a request may be, beyond what the parser refuses by itself.

The parser refuses what could be read in two ways: a length beside chunks, two lengths, line ends without a
carriage return, folded fields, spaces before a colon (RFC 9112, sections 2.2, 5 and 6).
"""

from __future__ import annotations

from konkyo.errors import HeadersTooLarge, InvalidRequest, UriTooLong

MAX_URL_BYTES = 8192
"""Path and query; RFC 9110, section 4.1, asks for 8,000."""

MAX_FIELDS = 100
"""Header fields of a request."""

INVALID = "this is no valid HTTP/1.1"

Fields = list[tuple[bytes, bytes]]
"""Names in small letters, and values."""


def check_url(url: bytes) -> None:
    """Raises ``UriTooLong``."""
    if len(url) > MAX_URL_BYTES:
        raise UriTooLong(f"path and query have over {MAX_URL_BYTES} bytes", limit_bytes=MAX_URL_BYTES)


def check_number(fields: Fields) -> None:
    """Whether there may be one more. Raises ``HeadersTooLarge``."""
    if len(fields) >= MAX_FIELDS:
        raise HeadersTooLarge(f"the header has over {MAX_FIELDS} fields", limit_fields=MAX_FIELDS)


def too_large(limit: int) -> HeadersTooLarge:
    """The error of a header over the limit."""
    return HeadersTooLarge(f"request line and header have over {limit} bytes", limit_bytes=limit)


def check_header(url: bytes, fields: Fields, version: str, limit: int) -> None:
    """Check a complete header.

    Args:
        version: of HTTP, such as ``1.1``.
        limit: bytes of URL and fields together.

    Raises:
        HeadersTooLarge: it is over the limit.
        InvalidRequest: another version, no host or several, or a transfer coding other than ``chunked``.
    """
    if len(url) + sum(len(name) + len(value) + 4 for name, value in fields) > limit:
        raise too_large(limit)
    if version not in ("1.0", "1.1") or b"#" in url:
        raise InvalidRequest(INVALID)
    hosts = sum(name == b"host" for name, _ in fields)
    if hosts > 1 or (not hosts and version == "1.1"):
        raise InvalidRequest("a request has one Host field")
    codings = [value.lower() for name, value in fields if name == b"transfer-encoding"]
    if codings and (codings != [b"chunked"] or version == "1.0"):
        raise InvalidRequest("the only transfer coding is chunked, once, and in HTTP/1.1")


def without_upgrade(fields: Fields, keep_alive: bool) -> Fields:
    """The fields of the same request, offering no other protocol."""
    rest = [(name, value) for name, value in fields if name not in (b"upgrade", b"connection")]
    return rest if keep_alive else [*rest, (b"connection", b"close")]
