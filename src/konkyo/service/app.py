"""The application: ``create_app(settings)``. Nothing happens at import."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

import konkyo
from konkyo.errors import InvalidParameter, KonkyoError
from konkyo.service.access import REFUSALS, Access, describe_keys, needs, warn_if_open
from konkyo.service.audit import Audit
from konkyo.service.browsers import allow_origins
from konkyo.service.budget import MemoryBudget
from konkyo.service.engines import EngineFactory, make_engine
from konkyo.service.jobs import Jobs
from konkyo.service.metrics import Metrics
from konkyo.service.middleware import Observed, own_headers
from konkyo.service.perturbing import Perturbing
from konkyo.service.pipeline import Pipeline
from konkyo.service.repository import Repository
from konkyo.service.routes import docs, oip, ops, v1
from konkyo.service.routes import jobs as jobs_routes
from konkyo.service.routes import studies as studies_routes
from konkyo.service.settings import Settings
from konkyo.service.startup import Startup
from konkyo.service.state import State
from konkyo.service.studies import Studies
from konkyo.service.tracing import current, make_tracing
from konkyo.service.watching import watch

logger = logging.getLogger(__name__)

WEB = Path(__file__).parent / "web"
ROUTERS = (v1.router, jobs_routes.router, studies_routes.router, oip.router, ops.router)


def create_app(
    settings: Settings | None = None,
    *,
    make_engine: EngineFactory = make_engine,
    metrics: Metrics | None = None,
    load_first: Callable[[], bool] = lambda: False,
) -> FastAPI:
    """Build the application; models are loaded when it starts, while ``/livez`` already answers.

    Args:
        settings: None reads them from the environment.
        make_engine: builds the engine of each model; for engines of your own, and for faults in tests.
        metrics: None: those of this application alone.
        load_first: whether to start only once the models are loaded; asked when nothing else is to be done.
    """
    settings = settings or Settings()
    metrics = metrics or Metrics()
    startup = Startup(metrics)
    budget = MemoryBudget(settings.max_buffered_bytes)
    repository = Repository(settings, metrics, make_engine)
    audit = Audit(settings.audit_log, metrics)
    pipeline = Pipeline(settings, metrics, budget, audit)
    perturbing = Perturbing(settings, budget, pipeline)
    jobs = Jobs(settings, metrics, budget)
    access = Access(settings, metrics)
    studies = Studies(settings.studies)
    tracing = make_tracing(settings)
    state = State(
        settings, metrics, repository, budget, pipeline, perturbing, jobs, access, audit, studies, tracing,
        startup,
    )  # fmt: skip

    app = FastAPIOffline(  # for the files of the interactive documentation
        docs_url=None,
        redoc_url=None,
        static_url=docs.FILES,
        title="Konkyo",
        version=konkyo.__version__,
        description="Image classifiers that show why: the class and its map, in one answer.",
        lifespan=_lifespan,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # FastAPI's own, beside ours
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    app.state.konkyo = state
    app.state.load_first = load_first
    for router in ROUTERS:
        app.include_router(router)
    if settings.metrics_port is None:
        app.add_api_route(
            "/metrics",
            ops.metrics,
            tags=["operations"],
            response_class=Response,
            dependencies=[needs()],
            responses=REFUSALS,
        )
    app.add_api_route("/", _page, include_in_schema=False)
    app.add_api_route("/studies/{study}", _study_page, include_in_schema=False)
    app.add_api_route("/docs", docs.docs, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=WEB), name="static")
    app.openapi = partial(_openapi, app.openapi)  # type: ignore[method-assign]
    allow_origins(app, settings.cors_origins)
    app.add_middleware(Observed, state=state)
    app.add_exception_handler(KonkyoError, _konkyo_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    state: State = app.state.konkyo
    state.metrics.build.info(ops.build())
    if state.settings.processes == 1:  # else the supervisor does, once
        warn_if_open(state.settings)
    state.metrics.watch(state.metrics.ready, lambda: not (state.draining or state.repository.problems()))
    state.tracing.start()
    state.startup.done("application")
    loading = asyncio.get_running_loop().create_task(_load(state), name="loading")
    watching = asyncio.get_running_loop().create_task(
        watch(state.repository, state.settings), name="watching"
    )
    try:
        if app.state.load_first():
            await loading
        yield
    finally:
        loading.cancel()
        watching.cancel()
        await asyncio.gather(loading, watching, return_exceptions=True)
        await state.jobs.close()
        await state.repository.close()
        state.pipeline.close()
        await state.audit.close()
        await state.studies.close()
        await asyncio.to_thread(state.tracing.close)


async def _load(state: State) -> None:
    await state.repository.start()
    state.startup.ready(state.repository.models())


def _openapi(generate: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    document = generate()
    describe_keys(document)
    return document


async def _page() -> Response:
    return FileResponse(WEB / "index.html", media_type="text/html")


async def _study_page(request: Request, study: str) -> Response:
    """The same for every study, and for those that are not: what is in it, the page asks with its token."""
    state: State = request.app.state.konkyo
    state.studies.refuse_unless_served()
    return FileResponse(WEB / "study.html", media_type="text/html")


async def _konkyo_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, KonkyoError)
    current().set("konkyo.error.code", error.code)
    if error.status == 500:
        logger.error("%s: %s", error.code, error.message, exc_info=error.__cause__)
    body = {"error": error.message} if oip.speaks_oip(request) else error.body()
    text = json.dumps(body)  # ASCII: a caller's own words in it may be no valid Unicode
    return Response(text, error.status, error.headers(), media_type="application/json")


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    message = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
    return await _konkyo_error(request, InvalidParameter(message))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    body = _plain_error(request, code, str(error.detail))
    headers = {"allow": _allowed(request)} if error.status_code == 405 else error.headers
    return JSONResponse(body, status_code=error.status_code, headers=headers)


def _allowed(request: Request) -> str:
    """Methods of the path of a request, over all its routes; the router names those of the first alone."""
    known = (route for router in (*ROUTERS, request.app.router) for route in router.routes)
    matching = [
        route for route in known
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
    ]  # fmt: skip
    methods = {
        method for route in matching if route.path == matching[0].path for method in route.methods or ()
    }
    return ", ".join(sorted(methods or ("GET", "HEAD")))  # static files have no routes of their own


async def _unexpected(request: Request, error: Exception) -> Response:
    body = _plain_error(request, "internal", "an unexpected error; the log has it")
    response = JSONResponse(body, status_code=500)
    response.raw_headers += own_headers(request.scope, response.raw_headers)  # it is sent from outside
    return response


def _plain_error(request: Request, code: str, message: str) -> dict[str, Any]:
    """The body of an error that is none of the tree's."""
    if oip.speaks_oip(request):
        return {"error": message}
    return {"error": {"code": code, "message": message, "detail": {}}}
