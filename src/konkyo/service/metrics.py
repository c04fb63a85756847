"""Prometheus metrics: base units, bounded labels, one registry per application.

Nothing here is global, so that several applications can live in one process, as in tests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from konkyo.errors import DeadlineExceeded, KonkyoError, Overloaded, RequestCancelled, Unavailable

LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
FINE = (0.0001, 0.00025, 0.0005, *LATENCY)
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PIXELS = (1e3, 1e4, 1e5, 1e6, 2e6, 5e6, 1e7, 2.5e7, 5e7, 1e8)
BYTES = (1e3, 1e4, 1e5, 1e6, 2e6, 5e6, 1e7, 2e7, 5e7, 1e8)

Outcome = Literal["success", "invalid", "rejected", "deadline", "cancelled", "shed", "error"]
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The metrics of one application; ``docs/metrics.md`` explains each."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        model = ("model", "version")

        def histogram(name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"konkyo_{name}", text, labels, registry=registry, buckets=buckets)

        def counter(name: str, text: str, labels: tuple[str, ...]) -> Counter:
            return Counter(f"konkyo_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, labels: tuple[str, ...]) -> Gauge:
            return Gauge(f"konkyo_{name}", text, labels, registry=registry)

        self.http = histogram(
            "http_request_duration_seconds", "HTTP requests", ("method", "route", "status"), LATENCY
        )
        self.requests = counter(
            "requests", "Images asked about, by how it ended", (*model, "kind", "outcome")
        )
        self.queue_seconds = histogram(
            "queue_seconds", "Time an image waited for the engine", (*model, "kind"), FINE
        )
        self.queue_depth = gauge("queue_depth", "Images waiting for the engine now", (*model, "kind"))
        self.queue_capacity = gauge("queue_capacity", "Images that may wait", (*model, "kind"))
        self.jobs = gauge("jobs", "Long explanations at work now", ())
        self.stage = histogram("stage_duration_seconds", "Stages of an answer", ("stage",), FINE)
        self.batch_size = histogram("batch_size", "Images in a forward pass", (*model, "kind"), BATCHES)
        self.inferences = counter("inferences", "Images that went through the network", (*model, "kind"))
        self.executions = counter("executions", "Forward passes", (*model, "kind"))
        self.rejected = counter("rejected", "Images refused, by error code", ("reason",))
        self.input_pixels = histogram("input_pixels", "Pixels of an image", (), PIXELS)
        self.input_bytes = histogram("input_bytes", "Bytes of an image file", (), BYTES)
        self.degenerate_maps = counter(
            "degenerate_maps", "Maps that show nothing, by status", ("method", "reason")
        )
        self.model_ready = gauge("model_ready", "1 if the model passed its canary", model)
        self.model_load_seconds = gauge(
            "model_load_seconds", "Time to verify, load and warm the model", model
        )
        self.gradient_load_seconds = gauge(
            "gradient_load_seconds",
            "Time to load torch and the network beside another runtime, at the first request that needs it",
            model,
        )
        self.gpu_memory = gauge(
            "gpu_memory_used_bytes", "Memory in use on the first GPU, by all processes", ()
        )
        self.oom = counter("oom", "Forward passes that ran out of memory", model)
        self.prediction_score = histogram("prediction_score", "Score of the predicted class", model, SHARES)
        self.predictions = counter("predictions", "Predicted classes", (*model, "label"))
        self.map_entropy = histogram(
            "map_entropy",
            "Entropy of the map as a share of its maximum; it drifts with the data",
            model,
            SHARES,
        )
        self.build = Info("konkyo_build", "Version of the service and its runtimes", registry=registry)

    def count(self, model: dict[str, str], kind: str, outcome: Outcome) -> None:
        """Count how an image ended."""
        self.requests.labels(**model, kind=kind, outcome=outcome).inc()

    @contextmanager
    def counting(self, model: dict[str, str], kind: str) -> Iterator[None]:
        """Count whatever ends the block early; what leaves it in order is not counted."""
        try:
            yield
        except asyncio.CancelledError:
            self.count(model, kind, "cancelled")
            raise
        except KonkyoError as error:
            outcome = _outcome(error)
            self.count(model, kind, outcome)
            if outcome == "rejected":
                self.rejected.labels(reason=error.code).inc()
            raise
        except Exception:
            self.count(model, kind, "error")
            raise

    def render(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.registry)


def _outcome(error: KonkyoError) -> Outcome:
    if isinstance(error, RequestCancelled):
        return "cancelled"
    if isinstance(error, DeadlineExceeded):
        return "deadline"
    if isinstance(error, Overloaded | Unavailable):
        return "rejected"
    return "invalid" if error.status < 500 else "error"
