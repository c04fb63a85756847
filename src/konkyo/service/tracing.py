"""Traces: what each request spent its time on, and which requests shared a batch.

::

    POST /v1/models/{model}:explain      batch, in a trace of its own
    ├── decode                             ▲
    ├── queue ─────────── linked ──────────┤
    ├── forward, or explain ── linked ─────┤   and the batch to every request in it
    └── render

Nothing here knows who records them: ``otel.py`` and ``spans.py`` do, imported only where tracing is on. Where
it is off, ``current()`` is a span that does nothing, and that is all there is to pay for.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar, Token
from types import MappingProxyType, TracebackType
from typing import Protocol

from starlette.types import Scope

from konkyo.service.settings import Settings

logger = logging.getLogger(__name__)

Attributes = Mapping[str, str | int | float | bool]
NO_ATTRIBUTES: Attributes = MappingProxyType({})

VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""Those of OpenTelemetry that name a collector, and so also turn tracing on.

https://opentelemetry.io/docs/specs/otel/protocol/exporter/
"""


class Span:
    """A span that records nothing; those of ``spans.py`` are of this class and do."""

    __slots__ = ()

    @property
    def ids(self) -> tuple[str, str] | None:
        """Ids of the trace and of the span, in hexadecimal."""
        return None

    def child(self, name: str, attributes: Attributes) -> Span:
        """Begin a part of this."""
        return self

    def apart(self, name: str, attributes: Attributes) -> Span:
        """Begin what may outlive this: a trace of its own, linked to this."""
        return self

    def together(self, name: str, attributes: Attributes) -> Span:
        """Begin a part of this that waits for its batch as one, however many images it has."""
        return self

    def queued(self) -> Span:
        """Begin to wait for a batch."""
        return self

    def batched(self, waiting: Sequence[Span], stage: str, attributes: Attributes) -> Span:
        """Begin a batch in which this is; the wait of all ends.

        Args:
            waiting: what ``queued`` gave for each item.
            stage: what the time of a batch is spent on, for the parts of the requests.
        """
        return self

    def set(self, name: str, value: str | int | float | bool) -> None:
        """Set an attribute."""

    def answered(self, method: str, route: str | None, status: int) -> None:
        """End the span of an HTTP request; without a route none was found."""

    def end(self, error: BaseException | None = None) -> None:
        """End it, unless it has ended already."""


NOTHING = Span()
_current: ContextVar[Span] = ContextVar("konkyo_span", default=NOTHING)


class Tracing(Protocol):
    """Where the traces of an application begin and go."""

    def request(self, scope: Scope) -> Span:
        """Begin the span of an HTTP request, as a part of the caller's trace if it names one."""
        ...

    def start(self) -> None:
        """Begin to send."""
        ...

    def close(self) -> None:
        """Send what is left, within bounds of time, and stop."""
        ...


class Off:
    """No traces."""

    def request(self, scope: Scope) -> Span:
        """See ``Tracing``."""
        return NOTHING

    def start(self) -> None:
        """See ``Tracing``."""

    def close(self) -> None:
        """See ``Tracing``."""


def make_tracing(settings: Settings) -> Tracing:
    """What the settings ask for; without them what OpenTelemetry's own variables do.

    Raises:
        ValueError: the settings ask for traces, and OpenTelemetry is not installed.
    """
    named = settings.otlp_endpoint or any(os.environ.get(name) for name in VARIABLES)
    switched_off = (
        os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
        or os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none"
    )
    if not named or switched_off:
        return Off()
    try:
        from konkyo.service.otel import OpenTelemetry
    except ModuleNotFoundError as error:
        if settings.otlp_endpoint:
            raise ValueError(f"otlp_endpoint is set, but traces need konkyo[otel]: {error}") from error
        logger.warning("OpenTelemetry's variables name a collector, but traces need konkyo[otel]: %s", error)
        return Off()  # platforms set the variables for whatever they run
    return OpenTelemetry(settings)


def current() -> Span:
    """The span in which this runs."""
    return _current.get()


class _Active:
    """A span as the current one for the length of a block, with whose error it ends."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span) -> None:
        self._span = span
        self._token: Token[Span] | None = None

    def __enter__(self) -> Span:
        self._token = _current.set(self._span)
        return self._span

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._token is not None:
            _current.reset(self._token)
        self._span.end(error)


_IDLE = nullcontext(NOTHING)


def active(span: Span) -> AbstractContextManager[Span]:
    """Make a span the current one for the length of a block."""
    return _IDLE if span is NOTHING else _Active(span)


def span(name: str, attributes: Attributes = NO_ATTRIBUTES) -> AbstractContextManager[Span]:
    """A part of the current span, for the length of a block."""
    return active(current().child(name, attributes))


def span_apart(name: str, attributes: Attributes) -> AbstractContextManager[Span]:
    """A trace of its own, linked to the current span, for the length of a block."""
    return active(current().apart(name, attributes))


def span_together(name: str, attributes: Attributes) -> AbstractContextManager[Span]:
    """A part of the current span, which waits for its batch as one, for the length of a block."""
    return active(current().together(name, attributes))


def batched(waiting: Sequence[Span], stage: str, attributes: Attributes) -> Span:
    """Begin a batch of what waits; see ``Span.batched``."""
    for wait in waiting:
        if wait is not NOTHING:
            return wait.batched(waiting, stage, attributes)
    return NOTHING
