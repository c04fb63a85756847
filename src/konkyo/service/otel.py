"""Traces by OpenTelemetry, sent by OTLP over HTTP. Needs ``konkyo[otel]``.

Spans are sampled as the caller's trace is and, where there is none, by ``OTEL_TRACES_SAMPLER``; a batch is if
one of the requests in it is. They are sent in the background: who does not take them loses them, and costs
no request anything. Attributes of requests are those of
https://opentelemetry.io/docs/specs/semconv/http/http-spans/.
"""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Mapping

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import Scope

import konkyo
from konkyo.service.middleware import METHODS
from konkyo.service.settings import Settings
from konkyo.service.spans import Recorded, WithTheirLinks, valid
from konkyo.service.tracing import NOTHING, Attributes, Span

FLUSH_SECONDS = 5
"""How long the end of the process waits for a collector that does not answer."""

UNTRACED = frozenset({"/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"})
"""What is asked every few seconds, and would hide the rest."""

_propagator = TraceContextTextMapPropagator()


class OpenTelemetry:
    """The traces of one application; see ``Tracing``."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._provider = TracerProvider(
            resource=_resource(),
            shutdown_on_exit=False,
            span_limits=SpanLimits(max_links=max(128, settings.max_batch)),
        )
        self._provider.sampler = WithTheirLinks(self._provider.sampler)
        self._tracer = self._provider.get_tracer("konkyo", konkyo.__version__)

    def request(self, scope: Scope) -> Span:
        """See ``Tracing``."""
        if scope["path"] in UNTRACED:
            return NOTHING
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        span = self._tracer.start_span(
            scope["method"],
            _propagator.extract(headers, Context()),
            SpanKind.SERVER,
            attributes=_of_request(scope, headers),
        )
        return Recorded(self._tracer, span)

    def start(self) -> None:
        """See ``Tracing``."""
        endpoint = self._settings.otlp_endpoint
        if endpoint is not None and not endpoint.endswith("/v1/traces"):
            endpoint = endpoint.rstrip("/") + "/v1/traces"
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))

    def close(self) -> None:
        """See ``Tracing``."""
        flushing = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        flushing.start()
        flushing.join(FLUSH_SECONDS)


def _resource() -> Resource:
    """What all spans have in common; the variables of OpenTelemetry go before."""
    own = Resource(
        {
            SERVICE_NAME: "konkyo",
            "service.version": konkyo.__version__,
            "service.instance.id": str(uuid.uuid4()),
            "host.name": socket.gethostname(),
            "process.pid": os.getpid(),
        }
    )
    return own.merge(OTELResourceDetector().detect())


def _of_request(scope: Scope, headers: Mapping[str, str]) -> Attributes:
    """Attributes that are known when a request begins; not the query, which may hold anything."""
    method = scope["method"]
    found: dict[str, str | int] = {
        "http.request.method": method if method in METHODS else "_OTHER",
        "url.scheme": scope["scheme"],
        "url.path": scope["path"],
        "konkyo.request_id": scope["konkyo.request_id"],
        "network.protocol.version": scope["http_version"],
    }
    if method not in METHODS:
        found["http.request.method_original"] = method
    if scope.get("client"):
        found["client.address"] = scope["client"][0]
    if scope.get("server") and scope["server"][1] is not None:
        found["server.address"], found["server.port"] = scope["server"]
    if "user-agent" in headers:
        found["user_agent.original"] = headers["user-agent"]
    return valid(found)
