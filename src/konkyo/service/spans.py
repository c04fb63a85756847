"""Spans that OpenTelemetry records. Needs ``konkyo[otel]``; ``otel.py`` begins the first and sends all."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Sequence

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import (
    Link,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace.span import TraceState
from opentelemetry.util.types import Attributes as OtelAttributes

from konkyo.errors import KonkyoError
from konkyo.service.logs import valid_unicode
from konkyo.service.tracing import NOTHING, Attributes, Span


class Recorded(Span):
    """A span that OpenTelemetry records; or one that it does not sample, which has ids and nothing else.

    Args:
        joint: its images wait for their batch as one.
    """

    __slots__ = ("_joint", "_span", "_tracer")

    def __init__(self, tracer: Tracer, span: OtelSpan, *, joint: bool = False) -> None:
        self._tracer = tracer
        self._span = span
        self._joint = joint

    @property
    def ids(self) -> tuple[str, str]:
        """See ``Span``."""
        context = self.context
        return f"{context.trace_id:032x}", f"{context.span_id:016x}"

    @property
    def context(self) -> SpanContext:
        """Its ids, as OpenTelemetry passes them on."""
        return self._span.get_span_context()

    def child(self, name: str, attributes: Attributes) -> Span:
        """See ``Span``."""
        return Recorded(self._tracer, self.begin(name, attributes)) if self._span.is_recording() else self

    def together(self, name: str, attributes: Attributes) -> Span:
        """See ``Span``."""
        if not self._span.is_recording():
            return self
        return Recorded(self._tracer, self.begin(name, attributes), joint=True)

    def apart(self, name: str, attributes: Attributes) -> Span:
        """See ``Span``."""
        if not self._span.is_recording():
            return self
        return Recorded(self._tracer, _begin_root(self._tracer, name, [self.context], attributes))

    def queued(self) -> Span:
        """See ``Span``."""
        if not self._span.is_recording():
            return NOTHING
        return _Waiting(self._tracer, self, None if self._joint else self.begin("queue", {}))

    def begin(self, name: str, attributes: Attributes, link: SpanContext | None = None) -> OtelSpan:
        """A part of this, linked to another if told so."""
        return self._tracer.start_span(
            name,
            set_span_in_context(self._span, Context()),
            attributes=valid(attributes),
            links=[Link(link)] if link else [],
        )

    def set(self, name: str, value: str | int | float | bool) -> None:
        """See ``Span``."""
        self._span.set_attributes(valid({name: value}))

    def answered(self, method: str, route: str | None, status: int) -> None:
        """See ``Span``."""
        self._span.set_attribute("http.response.status_code", status)
        if route is not None:
            self._span.update_name(f"{method} {route}")
            self._span.set_attribute("http.route", route)
        if status >= 500:
            self._span.set_attribute("error.type", str(status))
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()

    def end(self, error: BaseException | None = None) -> None:
        """See ``Span``."""
        _end(self._span, error)


class _Waiting(Span):
    """What waits for a batch.

    Args:
        owner: whose part the batch is a part of.
        wait: the span of the waiting itself, if it has one.
    """

    __slots__ = ("_tracer", "owner", "wait")

    def __init__(self, tracer: Tracer, owner: Recorded, wait: OtelSpan | None) -> None:
        self._tracer = tracer
        self.owner = owner
        self.wait = wait

    def batched(self, waiting: Sequence[Span], stage: str, attributes: Attributes) -> Span:
        """See ``Span``."""
        items = [item for item in waiting if isinstance(item, _Waiting)]
        owners = {item.owner.context.span_id: item.owner.context for item in items}  # each once
        batch = _begin_root(self._tracer, "batch", owners.values(), attributes)
        parts = [batch]
        for item in items:
            if item.wait is not None:
                if item.wait.is_recording():  # not if half of a batch is tried again
                    item.wait.add_link(batch.get_span_context())
                    item.wait.end()
                parts.append(item.owner.begin(stage, {}, batch.get_span_context()))
        return _Batch(parts)

    def end(self, error: BaseException | None = None) -> None:
        """See ``Span``."""
        if self.wait is not None:
            _end(self.wait, error)


class _Batch(Span):
    """A batch, and the same time as a part of each request in it."""

    __slots__ = ("_parts",)

    def __init__(self, parts: Sequence[OtelSpan]) -> None:
        self._parts = parts

    def end(self, error: BaseException | None = None) -> None:
        """See ``Span``."""
        for part in self._parts:
            _end(part, error)


class WithTheirLinks(Sampler):
    """Samples what is linked to other traces if one of those is, and all else as another sampler does."""

    def __init__(self, other: Sampler) -> None:
        self._other = other

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: OtelAttributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """See ``Sampler``."""
        if links and not get_current_span(parent_context).get_span_context().is_valid:
            sampled = any(link.context.trace_flags.sampled for link in links)
            return SamplingResult(Decision.RECORD_AND_SAMPLE if sampled else Decision.DROP, attributes)
        return self._other.should_sample(
            parent_context, trace_id, name, kind, attributes, links, trace_state=trace_state
        )

    def get_description(self) -> str:
        """See ``Sampler``."""
        return f"WithTheirLinks({self._other.get_description()})"


def _begin_root(tracer: Tracer, name: str, linked: Iterable[SpanContext], attributes: Attributes) -> OtelSpan:
    links = [Link(context) for context in linked]
    return tracer.start_span(name, Context(), attributes=valid(attributes), links=links)


def _end(span: OtelSpan, error: BaseException | None) -> None:
    if error is not None and span.is_recording():
        span.set_status(Status(StatusCode.ERROR, valid_unicode(str(error))))
        if isinstance(error, KonkyoError):
            span.set_attribute("error.type", error.code)
        else:
            span.set_attribute("error.type", type(error).__qualname__)
            text = "".join(traceback.format_exception(error))
            span.record_exception(
                error, valid({"exception.message": str(error), "exception.stacktrace": text})
            )
    if span.is_recording():  # the end of one that has ended already is a warning in the log
        span.end()


def valid(attributes: Attributes) -> Attributes:
    """Protocol buffers take valid Unicode only; one text that is not would cost all spans sent with it."""
    return {
        name: valid_unicode(value) if isinstance(value, str) else value for name, value in attributes.items()
    }
