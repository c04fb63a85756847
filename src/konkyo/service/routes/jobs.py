"""Explanations that take many passes: as a stream of events, or as a job to poll."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from pydantic_core import to_json
from starlette.types import Receive, Scope, Send

from konkyo.errors import Draining, InvalidParameter, KonkyoError, NotAcceptable
from konkyo.service.access import REFUSALS, needs
from konkyo.service.http import Parsed, cancel_on_disconnect
from konkyo.service.jobs import KIND, Job, Jobs
from konkyo.service.long_options import LongOptions
from konkyo.service.model import Model
from konkyo.service.question import Question
from konkyo.service.schemas import ErrorBody, JobBody
from konkyo.service.state import request_id, state_of

router = APIRouter(tags=["jobs"], dependencies=[needs("explain")])

KEEP_ALIVE_SECONDS = 15
"""Without a word for so long, proxies may close a stream."""

JobId = Annotated[str, Path(description="id of the job, as in the answer that began it")]
_ERRORS: dict[int | str, dict[str, Any]] = {**REFUSALS, 404: {"model": ErrorBody}}


@router.get("/v1/jobs/{job}", response_model=JobBody, responses=_ERRORS)
async def get_job(request: Request, job: JobId) -> Response:
    """How far a job is, and its result once it is done."""
    return _answer(state_of(request).jobs.find(job))


@router.delete("/v1/jobs/{job}", response_model=JobBody, responses=_ERRORS)
async def delete_job(request: Request, job: JobId) -> Response:
    """Cancel a job that is at work; forget one that has ended."""
    jobs = state_of(request).jobs
    found = jobs.find(job)
    await jobs.cancel(found)
    return _answer(found)


async def explain_long(
    request: Request, model: Model, parsed: Parsed, options: LongOptions, arrived: float
) -> Response:
    """Begin a long explanation; answer with its events where they are accepted, else with a job.

    Args:
        arrived: when the request came, in the event loop's time.

    Raises:
        InvalidParameter: several images, a picture or an edit.
        NotAcceptable: a job is wanted, and there are several processes.
        TooManyJobs, Draining: refused; nothing was done.
        KonkyoError: whatever else is found before the work begins.
    """
    state = state_of(request)
    with state.metrics.counting(model.labels, KIND):
        if state.draining:
            raise Draining("the service is shutting down")
        streams = _wants_events(request)
        if not streams and state.settings.processes > 1:
            raise NotAcceptable(
                "the server has several processes, and a job would be found in one of them only; accept "
                "text/event-stream"
            )
        image = _image(parsed, options, streams)
    deadline = arrived + options.deadline_ms / 1e3 if options.deadline_ms else None
    question = Question(request_id(request), image, options, deadline=deadline)
    job = Job(model.labels, str(options.method))
    with cancel_on_disconnect(request):
        await state.jobs.start(job, state.perturbing.work(model, question), keep=not streams)
    headers = {"x-model": model.name, "x-model-version": model.version}
    if streams:
        return _Events(job, state.jobs, headers)
    return _answer(job, 202, {"location": f"/v1/jobs/{job.id}", **headers})


def _image(parsed: Parsed, options: LongOptions, streams: bool) -> bytes:
    """The one image of the request.

    Raises:
        InvalidParameter: there are several, or the options are not for this.
        KonkyoError: it could not be read.
    """
    if len(parsed.images) > 1:
        raise InvalidParameter(f"{options.method} explains one image a request")
    if options.attention is not None:
        raise InvalidParameter(
            f"{options.method} explains what the network decides by itself; leave attention out",
            parameter="attention",
        )
    if options.interim and not streams:
        raise InvalidParameter("interim is for event streams; accept text/event-stream", parameter="interim")
    [image] = parsed.images
    if isinstance(image, KonkyoError):
        raise image
    return image


def _wants_events(request: Request) -> bool:
    """Whether ``Accept`` names events before JSON.

    Raises:
        InvalidParameter: it names a picture first.
    """
    for part in request.headers.get("accept", "").split(","):
        media_type = part.partition(";")[0].strip().lower()
        if media_type == "text/event-stream":
            return True
        if media_type.startswith("image/"):
            raise InvalidParameter(
                "a long explanation is no single picture; give overlay, and accept text/event-stream or "
                "application/json"
            )
        if "json" in media_type or media_type == "*/*":
            return False
    return False


class _Events(EventSourceResponse):
    """The events of a job, which ends with the connection at the latest."""

    def __init__(self, job: Job, jobs: Jobs, headers: dict[str, str]) -> None:
        super().__init__(
            _events(job), headers={**headers, "cache-control": "no-cache", "x-accel-buffering": "no"}
        )
        self._job = job
        self._jobs = jobs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them until the job ends or the caller goes."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._jobs.cancel(self._job)


async def _events(job: Job) -> AsyncIterator[bytes]:
    async for changed in job.watch(KEEP_ALIVE_SECONDS):
        if not changed:
            yield KEEPALIVE_COMMENT
        elif not job.ended:
            progress: dict[str, Any] = {"done": job.done, "total": job.total}
            if job.interim is not None:
                progress["explanation"] = job.interim
            yield _event("progress", progress)
        elif job.result is not None:
            yield _event("result", job.result)
        else:
            yield _event("error", (job.error or Draining("the service is shutting down")).body())


def _event(name: str, body: dict[str, Any]) -> bytes:
    return format_sse_event(event=name, data_str=to_json(body, inf_nan_mode="null").decode())


def _answer(job: Job, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    content = to_json(job.body(), inf_nan_mode="null")
    return Response(content, status, headers, media_type="application/json")
