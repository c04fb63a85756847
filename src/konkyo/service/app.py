"""The application: ``create_app(settings)``. Nothing happens at import."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline
from prometheus_client import start_http_server
from starlette.exceptions import HTTPException

import konkyo
from konkyo.errors import InvalidParameter, KonkyoError
from konkyo.service.budget import MemoryBudget
from konkyo.service.engines import EngineFactory, make_engine
from konkyo.service.jobs import Jobs
from konkyo.service.metrics import Metrics
from konkyo.service.middleware import Observed
from konkyo.service.perturbing import Perturbing
from konkyo.service.pipeline import Pipeline
from konkyo.service.repository import Repository
from konkyo.service.routes import jobs as jobs_routes
from konkyo.service.routes import ops, v1
from konkyo.service.settings import Settings
from konkyo.service.state import State

logger = logging.getLogger(__name__)

WEB = Path(__file__).parent / "web"


def create_app(settings: Settings | None = None, *, make_engine: EngineFactory = make_engine) -> FastAPI:
    """Build the application; models are loaded when it starts, while ``/livez`` already answers.

    Args:
        settings: None reads them from the environment.
        make_engine: builds the engine of each model; for engines of your own, and for faults in tests.
    """
    settings = settings or Settings()
    metrics = Metrics()
    budget = MemoryBudget(settings.max_buffered_bytes)
    repository = Repository(settings, metrics, make_engine)
    pipeline = Pipeline(settings, metrics, budget)
    perturbing = Perturbing(settings, budget, pipeline)
    jobs = Jobs(settings, metrics, budget)
    state = State(settings, metrics, repository, budget, pipeline, perturbing, jobs)

    # The interactive documentation comes with its own files instead of a CDN's.
    app = FastAPIOffline(
        redoc_url=None,
        favicon_url="/static/icon.svg",
        title="Konkyo",
        version=konkyo.__version__,
        description="Image classifiers that show why: the class and its map, in one answer.",
        lifespan=_lifespan,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    app.state.konkyo = state
    app.include_router(v1.router)
    app.include_router(jobs_routes.router)
    app.include_router(ops.router)
    if settings.metrics_port is None:
        app.add_api_route("/metrics", ops.metrics, tags=["operations"], response_class=Response)
    app.add_api_route("/", _page, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=WEB), name="static")
    app.add_middleware(Observed, state=state)
    app.add_exception_handler(KonkyoError, _konkyo_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    state: State = app.state.konkyo
    state.metrics.build.info(
        {"version": konkyo.__version__, **{k.replace("-", "_"): v for k, v in ops.runtimes().items()}}
    )
    exporter = None
    if state.settings.metrics_port is not None:
        exporter, _ = start_http_server(
            state.settings.metrics_port, addr=state.settings.host, registry=state.metrics.registry
        )
    loading = asyncio.get_running_loop().create_task(state.repository.load(), name="loading")
    try:
        yield
    finally:
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        await state.jobs.close()
        await state.repository.close()
        state.pipeline.close()
        if exporter is not None:
            exporter.shutdown()
            exporter.server_close()


async def _page() -> Response:
    return FileResponse(WEB / "index.html", media_type="text/html")


async def _konkyo_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, KonkyoError)
    if error.status == 500:
        logger.error("%s: %s", error.code, error.message, exc_info=error.__cause__)
    headers = {"retry-after": str(error.retry_after)} if error.retry_after is not None else None
    text = json.dumps(error.body())  # ASCII: a caller's own words in it may be no valid Unicode
    return Response(text, error.status, headers, media_type="application/json")


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    message = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
    return await _konkyo_error(request, InvalidParameter(message))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    body = {"error": {"code": code, "message": str(error.detail), "detail": {}}}
    return JSONResponse(body, status_code=error.status_code, headers=error.headers)


async def _unexpected(request: Request, error: Exception) -> Response:
    body = {"error": {"code": "internal", "message": "an unexpected error; the log has it", "detail": {}}}
    return JSONResponse(body, status_code=500)
