"""Every setting of the service, validated once and passed in.

Each is an environment variable with the prefix ``KONKYO_``: ``KONKYO_MAX_BATCH=64``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

import konkyo
from konkyo.imaging import MAX_PIXELS
from konkyo.service.browsers import read_origin

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
    repository: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(ZOO,),
        min_length=1,
        description="folders of bundles, MODEL/VERSION/card.json; the option may be repeated, the variable "
        "separates them like PATH",
    )
    repository_watch: Literal["off", "poll", "events"] = Field(
        default="off",
        description="follow changes of the folders: poll compares what is there; events does as well as "
        "soon as the file system tells of a change",
    )
    repository_poll_seconds: float = Field(
        default=5, gt=0, description="between two looks at the folders, where they are watched"
    )
    repository_api: bool = Field(default=False, description="load and unload models by request")
    max_versions: int | None = Field(
        default=None, ge=1, description="versions of a model that are served, the newest that work"
    )
    parallel_loads: int = Field(default=4, ge=1, description="bundles that are loaded at the same time")
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
        default=False, description="answer the label alone where its map is refused under pressure"
    )
    default_deadline_ms: int | None = Field(
        default=None, gt=0, description="deadline of requests that name none"
    )

    work_capacity: int = Field(
        default=2048, ge=1, description="work on answers at once, in forward passes of one image"
    )
    long_work_capacity: int = Field(
        default=20_000, ge=1, description="images that all long explanations have still to send, together"
    )

    api_keys_file: Path | None = Field(
        default=None, description="file of API keys, made by konkyo key; without it everything is open"
    )
    cors_origins: Annotated[list[str], NoDecode] = Field(
        default=[],
        description="origins whose pages may ask, such as https://example.org, separated by commas",
    )

    studies: str | None = Field(
        default=None,
        description="database of human ranking studies to serve: a file that konkyo study create made, or "
        "a URL such as postgresql+psycopg://USER:PASSWORD@HOST/NAME",
    )

    audit_log: Path | None = Field(
        default=None, description="file that gets a JSON line for each result; - is standard output"
    )

    hang_seconds: float = Field(
        default=120, gt=0, description="a batch that takes longer hangs: not ready, and a restart is wanted"
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

    processes: int = Field(
        default=1,
        ge=1,
        le=256,
        description="worker processes; each has the models, queues and limits for itself",
    )
    worker_timeout_seconds: float = Field(
        default=30, gt=0, description="of several processes, one that gives no sign for so long is replaced"
    )
    max_connections: int = Field(
        default=1000,
        ge=1,
        description="open connections; above it the one that has waited longest gives way, or the new one "
        "gets 503",
    )
    max_requests: int | None = Field(
        default=None,
        ge=1,
        description="requests at work at once, above it 429 before anything is looked at; "
        "default: two queues and two batches",
    )
    max_header_bytes: int = Field(
        default=16_384, ge=512, description="largest request line and header fields together"
    )
    header_timeout_seconds: float = Field(
        default=10, gt=0, description="time for the header of a request to arrive, and for a TLS handshake"
    )
    keep_alive_seconds: float = Field(
        default=75, gt=0, description="how long a connection may stay open between requests"
    )
    write_timeout_seconds: float = Field(
        default=60, gt=0, description="time for a caller to take an answer that waits for it"
    )
    tls_certificate: Path | None = Field(
        default=None, description="PEM file of the certificate and its chain; with it the address is https"
    )
    tls_key: Path | None = Field(default=None, description="PEM file of its private key")
    tls_client_ca: Path | None = Field(
        default=None,
        description="PEM file of authorities, one of which a caller's certificate must come from",
    )

    drain_seconds: float = Field(
        default=2, ge=0, description="after SIGTERM: how long to go on serving while /readyz says 503"
    )
    shutdown_seconds: float = Field(
        default=30, gt=0, description="then: how long to wait for accepted requests"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="log level")
    log_format: Literal["text", "json"] = Field(
        default="text", description="text for people, or one JSON object a line"
    )
    access_log: bool = Field(default=False, description="log a line for every request")
    otlp_endpoint: str | None = Field(
        default=None,
        pattern="^https?://[^/]",
        description="send traces to the OpenTelemetry collector at this URL, by OTLP over HTTP",
    )

    @field_validator("repository", mode="before")
    @classmethod
    def _paths(cls, value: Any) -> Any:
        """One folder, several, or the text of a variable."""
        if isinstance(value, str):
            return [part for part in value.split(os.pathsep) if part]
        return (value,) if isinstance(value, Path) else value

    @field_validator("repository")
    @classmethod
    def _are_folders(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        for path in value:
            if not path.is_dir():
                raise ValueError(f"there is no folder {path}")
        return value

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("tls_client_ca needs tls_certificate and tls_key")
        return self

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """From a variable they come as one text."""
        parts = value.split(",") if isinstance(value, str) else value
        return [part.strip() for part in parts if part.strip()]

    @field_validator("cors_origins")
    @classmethod
    def _read_origins(cls, value: list[str]) -> list[str]:
        return [read_origin(text) for text in value]
