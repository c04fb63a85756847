"""Prometheus metrics: base units, bounded labels, one registry per application.

Nothing here is global, so that several applications can live in one process, as in tests. Or one
application lives in several processes, which add to the same metrics: ``sharing`` does that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from konkyo.errors import DeadlineExceeded, KonkyoError, Overloaded, RequestCancelled, Unavailable
from konkyo.service.sharing import NOTHING, Processes, Shared, Sharing

LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
FINE = (0.0001, 0.00025, 0.0005, *LATENCY)
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PIXELS = (1e3, 1e4, 1e5, 1e6, 2e6, 5e6, 1e7, 2.5e7, 5e7, 1e8)
BYTES = (1e3, 1e4, 1e5, 1e6, 2e6, 5e6, 1e7, 2e7, 5e7, 1e8)

Outcome = Literal["success", "invalid", "rejected", "deadline", "cancelled", "shed", "error"]
CONTENT_TYPE = CONTENT_TYPE_LATEST
Mode = Literal["livesum", "livemin", "livemax"]
"""What a gauge is over several processes."""


class Metrics:
    """The metrics of one application; ``docs/metrics.md`` explains each.

    Args:
        shared: with whom; None: they are those of this process.

    Attributes:
        registry: what this process counts.
        exposition: what is shown: the same, or the sums over all processes.
    """

    def __init__(self, shared: Sharing | None = None) -> None:
        # Several processes have no series of when a counter began, and one does not need them.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        self._shared = shared
        self._gauges: dict[Gauge, Mode] = {}
        self._watched: dict[tuple[Gauge, frozenset[tuple[str, str]]], Callable[[], float]] = {}
        model = ("model", "version")

        def histogram(name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"konkyo_{name}", text, labels, registry=registry, buckets=buckets)

        def counter(name: str, text: str, labels: tuple[str, ...]) -> Counter:
            return Counter(f"konkyo_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, labels: tuple[str, ...], mode: Mode) -> Gauge:
            made = Gauge(f"konkyo_{name}", text, labels, registry=registry, multiprocess_mode=mode)
            self._gauges[made] = mode
            if shared is not None and not labels:
                made.set(NOTHING[mode])  # until it is known, or a process that starts would say 0
            return made

        self.http = histogram(
            "http_request_duration_seconds", "HTTP requests", ("method", "route", "status"), LATENCY
        )
        self.requests = counter(
            "requests", "Images asked about, by how it ended", (*model, "kind", "outcome")
        )
        self.queue_seconds = histogram(
            "queue_seconds", "Time an image waited for the engine", (*model, "kind"), FINE
        )
        self.queue_depth = gauge(
            "queue_depth", "Images waiting for the engine now", (*model, "kind"), "livesum"
        )
        self.queue_capacity = gauge("queue_capacity", "Images that may wait", (*model, "kind"), "livesum")
        self.connections = gauge("http_connections", "Connections open now", (), "livesum")
        self.refused = counter(
            "http_refused",
            "Connections ended by the server before their request or answer was, by reason",
            ("reason",),
        )
        self.jobs = gauge("jobs", "Long explanations at work now", (), "livesum")
        self.stage = histogram("stage_duration_seconds", "Stages of an answer", ("stage",), FINE)
        self.batch_size = histogram("batch_size", "Images in a forward pass", (*model, "kind"), BATCHES)
        self.inferences = counter("inferences", "Images that went through the network", (*model, "kind"))
        self.executions = counter("executions", "Forward passes", (*model, "kind"))
        self.execution_errors = counter("execution_errors", "Forward passes that failed", (*model, "kind"))
        self.inference_seconds = counter(
            "inference_seconds", "Time that images took, by what for", (*model, "phase")
        )
        self.last_inference = gauge(
            "last_inference_timestamp_seconds", "When the last image was answered", model, "livemax"
        )
        self.batches = counter("batches", "Forward passes, by the number of images", (*model, "size"))
        self.batch_seconds = counter(
            "batch_seconds", "Time of forward passes, by the number of images", (*model, "size")
        )
        self.rejected = counter("rejected", "Images refused, by error code", ("reason",))
        self.unauthorized = counter(
            "unauthorized", "Requests without a key that may ask this, by reason", ("reason",)
        )
        self.work = gauge("work", "Work let in and not done, in forward passes", ("kind",), "livesum")
        self.work_capacity = gauge("work_capacity", "Work that is let in", ("kind",), "livesum")
        self.audit_records = counter(
            "audit_records", "Audit records, by whether they are written", ("outcome",)
        )
        self.input_pixels = histogram("input_pixels", "Pixels of an image", (), PIXELS)
        self.input_bytes = histogram("input_bytes", "Bytes of an image file", (), BYTES)
        self.degenerate_maps = counter(
            "degenerate_maps", "Maps that show nothing, by status", ("method", "reason")
        )
        self.ready = gauge("ready", "1 if the service is ready, as /readyz says", (), "livemin")
        self.model_ready = gauge("model_ready", "1 if the model passed its canary", model, "livemin")
        self.model_load_seconds = gauge(
            "model_load_seconds", "Time to verify, load and warm the model", model, "livemax"
        )
        self.model_load_failures = counter(
            "model_load_failures", "Versions, or newer files of them, that could not be loaded", model
        )
        self.startup_seconds = gauge(
            "startup_seconds", "Time from the start of the process until ready, by part", ("part",), "livemax"
        )
        self.gradient_load_seconds = gauge(
            "gradient_load_seconds",
            "Time to load torch and the network beside another runtime, at the first request that needs it",
            model,
            "livemax",
        )
        self.gpu_memory = gauge(
            "gpu_memory_used_bytes", "Memory in use on the first GPU, by all processes", (), "livemax"
        )
        self.gpu_memory_total = gauge("gpu_memory_total_bytes", "Memory of the first GPU", (), "livemax")
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
        self.exposition = registry
        if shared is None:
            ProcessCollector(registry=registry)
        else:
            self.exposition = CollectorRegistry()
            self.exposition.register(Shared(shared.folder))
            self.exposition.register(Processes(shared.supervisor))
            self.exposition.register(self.build)  # the same in every process

    def watch(self, gauge: Gauge, function: Callable[[], float], **labels: str) -> None:
        """Let a gauge show what the function returns: at every look, or of several processes every second."""
        if self._shared is None:
            (gauge.labels(**labels) if labels else gauge).set_function(function)
        else:
            self._watched[gauge, frozenset(labels.items())] = function

    def sample(self) -> None:
        """Ask the watched functions, where several processes can see only what is written down."""
        for (gauge, labels), function in list(self._watched.items()):
            (gauge.labels(**dict(labels)) if labels else gauge).set(function())

    def forget(self, **labels: str) -> None:
        """End the gauges that have these labels; what was counted under them stays."""
        for gauge, mode in self._gauges.items():
            if labels.keys() <= set(gauge._labelnames):
                if self._shared is None:
                    gauge.remove_by_labels(labels)
                    continue
                for sample in next(iter(gauge.collect())).samples:
                    if labels.items() <= sample.labels.items():
                        gauge.labels(**sample.labels).set(NOTHING[mode])
        for watched in [key for key in self._watched if labels.items() <= set(key[1])]:
            del self._watched[watched]

    def drop(self, **labels: str) -> None:
        """End all that has these labels, as what they name is gone; what several processes count stays."""
        self.forget(**labels)
        if self._shared is None:
            for metric in vars(self).values():
                if isinstance(metric, Counter | Histogram) and labels.keys() <= set(metric._labelnames):
                    metric.remove_by_labels(labels)

    def count(self, model: dict[str, str], kind: str, outcome: Outcome) -> None:
        """Count how an image ended."""
        self.requests.labels(*model.values(), kind, outcome).inc()

    @contextmanager
    def counting(self, model: dict[str, str], kind: str) -> Iterator[None]:
        """Count whatever ends the block early, and its time; what leaves it in order is not counted."""
        started = time.perf_counter()
        try:
            yield
        except (Exception, asyncio.CancelledError) as error:
            outcome = outcome_of(error)
            self.count(model, kind, outcome)
            self.inference_seconds.labels(**model, phase="fail").inc(time.perf_counter() - started)
            if isinstance(error, KonkyoError) and outcome == "rejected":
                self.rejected.labels(reason=error.code).inc()
            raise

    def render(self) -> bytes:
        """The exposition text."""
        self.sample()
        return generate_latest(self.exposition)


def outcome_of(error: BaseException) -> Outcome:
    """How what ends in this error has ended."""
    if isinstance(error, RequestCancelled | asyncio.CancelledError):
        return "cancelled"
    if not isinstance(error, KonkyoError):
        return "error"
    if isinstance(error, DeadlineExceeded):
        return "deadline"
    if isinstance(error, Overloaded | Unavailable):
        return "rejected"
    return "invalid" if error.status < 500 else "error"
