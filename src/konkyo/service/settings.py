"""Every setting of the service, validated once and passed in.

Each is an environment variable with the prefix ``KONKYO_``: ``KONKYO_MAX_BATCH=64``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

import konkyo
from konkyo.imaging import MAX_PIXELS

ZOO = Path(konkyo.__file__).parent / "zoo"
"""The trained bundles that ship with the package."""


class Settings(BaseSettings):
    """Frozen settings; a value out of range is refused at start by its name."""

    model_config = SettingsConfigDict(env_prefix="KONKYO_", frozen=True, extra="forbid")

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    metrics_port: int | None = Field(
        default=None, ge=0, le=65535, description="serve /metrics on this port and not on the main one"
    )
    repository: Path = Field(default=ZOO, description="folder of bundles: MODEL/VERSION/card.json")
    engine: Literal["auto", "onnx", "torch", "fake"] = Field(
        default="auto", description="runtime; auto takes onnx where the bundle has a graph, else torch"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto takes CUDA where it works, else the CPU; cuda insists"
    )
    threads: int = Field(default=0, ge=0, description="threads of a forward pass on the CPU; 0: one a core")

    max_batch: int = Field(default=32, ge=1, le=4096, description="images in one forward pass")
    gradient_batch: int = Field(
        default=8,
        ge=1,
        le=4096,
        description="images times classes in one batch of an explanation that takes a gradient",
    )
    perturbation_batch: int = Field(
        default=8,
        ge=1,
        le=4096,
        description="perturbed images in one forward pass, for which a prediction may have to wait",
    )
    queue_capacity: int = Field(default=256, ge=1, description="requests waiting, for each model and kind")
    shed: bool = Field(
        default=False, description="answer the label without a map when the explain queue is full"
    )
    default_deadline_ms: int | None = Field(
        default=None, gt=0, description="deadline of requests that name none"
    )

    job_capacity: int = Field(
        default=8, ge=1, description="long explanations (occlusion, RISE) at work at once, streams included"
    )
    job_results: int = Field(default=64, ge=1, description="results of jobs kept; the oldest gives way")
    job_ttl_seconds: float = Field(default=600, gt=0, description="how long the result of a job is kept")
    max_perturbations: int = Field(
        default=10_000, ge=1, description="images that one long explanation may send through the network"
    )

    max_body_bytes: int = Field(default=20 * 2**20, ge=1, description="largest body of a request")
    max_buffered_bytes: int = Field(
        default=2**30,
        ge=1,
        description="bytes of bodies and decoded images held at once, all requests together",
    )
    max_pixels: int = Field(
        default=MAX_PIXELS, ge=1, le=89_000_000, description="largest image, before decoding"
    )
    max_instances: int = Field(default=32, ge=1, description="images in one request")
    max_render_pixels: int = Field(
        default=4_000_000, ge=1024, description="larger overlays and map pictures are scaled down to this"
    )
    body_timeout_seconds: float = Field(
        default=30, gt=0, description="time for the body of a request to arrive"
    )
    workers: int = Field(default=2, ge=1, description="threads that decode and render")

    drain_seconds: float = Field(
        default=2, ge=0, description="after SIGTERM: how long to go on serving while /readyz says 503"
    )
    shutdown_seconds: float = Field(
        default=30, gt=0, description="then: how long to wait for accepted requests"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="log level")
    access_log: bool = Field(default=False, description="log a line for every request")
