"""Health, metrics and what runs here."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

from fastapi import APIRouter, Request, Response

import konkyo
from konkyo.service.access import REFUSALS, needs
from konkyo.service.metrics import CONTENT_TYPE
from konkyo.service.schemas import Health, InfoBody
from konkyo.service.state import State, state_of

router = APIRouter(tags=["operations"])

RUNTIMES = ("onnxruntime-gpu", "onnxruntime", "torch", "numpy", "pillow", "opencv-python-headless", "fastapi")


@router.get("/livez", response_model=Health, responses={503: {"model": Health}})
async def livez(request: Request, response: Response) -> dict[str, Any]:
    """The event loop turns, no queue has stopped for good, no engine hangs; else a restart is wanted."""
    problems = [
        f"{model.name}/{model.version}: {why}"
        for model in state_of(request).repository.models()
        if (why := model.dead) is not None
    ]
    if not problems:
        return {"status": "ok"}
    response.status_code = 503
    return {"status": "unavailable", "problems": problems}


@router.get("/readyz", response_model=Health, responses={503: {"model": Health}})
async def readyz(request: Request, response: Response) -> dict[str, Any]:
    """Every model has a version whose canary gave a sound map, queues live, and nothing is draining."""
    problems = await readiness(state_of(request))
    if not problems:
        return {"status": "ok"}
    response.status_code = 503
    response.headers["retry-after"] = "1"
    return {"status": "unavailable", "problems": problems}


async def readiness(state: State) -> list[str]:
    """What keeps the service from being ready; empty if nothing does."""
    others = [] if state.others_ready else ["another worker process is not ready"]
    return [*await own_readiness(state), *others]


async def own_readiness(state: State) -> list[str]:
    """What keeps this process of it from being ready."""
    await state.repository.probe()
    await state.audit.probe()
    draining = ["draining"] if state.draining else []
    return [*draining, *state.audit.problems, *state.repository.problems()]


@router.get("/v1/info", response_model=InfoBody, dependencies=[needs()], responses=REFUSALS)
async def info(request: Request) -> dict[str, Any]:
    """Versions, engines as they really run, and the limits of a request."""
    state = state_of(request)
    settings = state.settings
    return {
        "name": "konkyo",
        "version": konkyo.__version__,
        "python": platform.python_version(),
        "runtimes": runtimes(),
        "engines": {
            f"{model.name}/{model.version}": f"{model.engine.name}/{model.engine.device}"
            for model in state.repository.models()
            if model.state == "ready"
        },
        "startup_seconds": state.startup.seconds,
        "limits": {
            "max_body_bytes": settings.max_body_bytes,
            "max_pixels": settings.max_pixels,
            "max_instances": settings.max_instances,
            "max_batch": settings.max_batch,
            "queue_capacity": settings.queue_capacity,
        },
    }


def runtimes() -> dict[str, str]:
    """Installed versions of what does the work."""
    found = {}
    for name in RUNTIMES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def build() -> dict[str, str]:
    """The labels of ``konkyo_build_info``."""
    return {"version": konkyo.__version__, **{k.replace("-", "_"): v for k, v in runtimes().items()}}


async def metrics(request: Request) -> Response:
    """The metrics, for Prometheus."""
    return Response(state_of(request).metrics.render(), media_type=CONTENT_TYPE)
