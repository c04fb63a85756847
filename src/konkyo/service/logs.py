"""Logs: lines of text for a terminal, or one JSON object a line for a collector of logs.

Either way a record is one line, except for a traceback in text: what a caller sends, such as a path with a
line break in it, can neither begin a line nor end one.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from konkyo.service.settings import Settings
from konkyo.service.tracing import current

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160), 0x2028, 0x2029)}

request_id: ContextVar[str | None] = ContextVar("konkyo_request_id", default=None)
"""Id of the request in which this runs, as in its ``x-request-id``."""


class TextFormatter(logging.Formatter):
    """As ``logging.Formatter``, with control characters escaped outside of tracebacks."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class's name
        """The line."""
        return valid_unicode(super().formatMessage(record)).translate(_CONTROLS)


class JsonFormatter(logging.Formatter):
    """One JSON object a line, in ASCII.

    ``time`` (RFC 3339, UTC), ``level``, ``logger`` and ``message``; where there are, ``request_id``,
    ``trace_id``, ``span_id``, and ``exception``, the traceback; and whatever the record has as ``fields``.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (identity := request_id.get()) is not None:
            line["request_id"] = identity
        if (ids := current().ids) is not None:
            line["trace_id"], line["span_id"] = ids
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps({name: _clean(value) for name, value in line.items()}, default=str)


def configure(settings: Settings) -> None:
    """Send every record of the process, Python's warnings among them, to stderr as the settings say."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter(TEXT))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    # What Pillow remarks on a file is said to who sent it; each such warning would be kept for ever.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)


def valid_unicode(text: str) -> str:
    """The text, with a question mark for each half of a surrogate pair, which no UTF-8 can hold."""
    return text.encode("utf-8", "replace").decode()


def _clean(value: Any) -> Any:
    return valid_unicode(value) if isinstance(value, str) else value
