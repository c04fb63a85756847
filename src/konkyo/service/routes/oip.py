"""The Open Inference Protocol, version 2. Translates, nothing more."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

import konkyo
from konkyo.errors import EmptyBody, ImageError, ImageTooLarge, InvalidRequest, NotReady
from konkyo.service.access import needs, permit
from konkyo.service.body import parse_json, read_body, read_json
from konkyo.service.http import cancel_on_disconnect
from konkyo.service.model import Model
from konkyo.service.oip import schemas
from konkyo.service.oip.metadata import metadata
from konkyo.service.oip.openapi import HEADER, INDEX, INFER, LOOK, LOOK_AT_READY, REPOSITORY, errors
from konkyo.service.oip.questions import Images, make_questions, milliseconds, read_images, read_options
from konkyo.service.oip.request import Asked, faults, json_part, read_request
from konkyo.service.oip.response import BINARY_COPIES, JSON_COPIES, encode
from konkyo.service.oip.statistics import statistics
from konkyo.service.pipeline import Answered
from konkyo.service.question import Question
from konkyo.service.routes.ops import readiness
from konkyo.service.routes.v1 import ModelName, Version
from konkyo.service.state import State, request_id, state_of

router = APIRouter(tags=["Open Inference Protocol"])

EXTENSIONS = ["binary_tensor_data", "classification", "model_repository", "statistics"]

INLINE_BYTES = 64 * 1024
"""Answers of more numbers, or larger pictures, are written in a thread."""


def speaks_oip(request: Request) -> bool:
    """Whether whoever asks expects the errors of this protocol."""
    path: str = request.scope["path"]
    return path == "/v2" or path.startswith("/v2/")


@router.get("/v2", response_model=schemas.Server)
@router.get("/v2/", response_model=schemas.Server)
async def server_metadata() -> dict[str, Any]:
    """What runs here, and which extensions of the protocol it knows."""
    return {"name": "konkyo", "version": konkyo.__version__, "extensions": EXTENSIONS}


@router.get("/v2/health/live", response_model=schemas.Live)
async def live() -> dict[str, bool]:
    """The process answers."""
    return {"live": True}


@router.get("/v2/health/ready", response_model=schemas.Ready, responses=errors(503))
async def ready(request: Request) -> dict[str, bool]:
    """Every model is ready, as ``/readyz`` has it."""
    problems = await readiness(state_of(request))
    if problems:
        raise NotReady("; ".join(problems))
    return {"live": True, "ready": True}


@router.get("/v2/models/stats", response_model=schemas.Statistics, dependencies=[needs()], **LOOK)
async def all_statistics(request: Request) -> dict[str, Any]:
    """What every model has done."""
    state = state_of(request)
    return {"model_stats": statistics(state.metrics, state.repository.models())}


@router.get("/v2/models/{model}/stats", response_model=schemas.Statistics, dependencies=[needs()], **LOOK)
async def model_statistics(request: Request, model: ModelName) -> dict[str, Any]:
    """What each version of a model has done."""
    state = state_of(request)
    return {"model_stats": statistics(state.metrics, list(state.repository.versions(model).values()))}


@router.get(
    "/v2/models/{model}/versions/{version}/stats",
    response_model=schemas.Statistics,
    dependencies=[needs()],
    **LOOK,
)
async def version_statistics(request: Request, model: ModelName, version: Version) -> dict[str, Any]:
    """What a version has done."""
    state = state_of(request)
    return {"model_stats": statistics(state.metrics, [state.repository.find(model, version)])}


_METADATA: dict[str, Any] = {
    "response_model": schemas.ModelMetadata,
    "response_model_exclude_none": True,
    "dependencies": [needs()],
    **LOOK_AT_READY,
}
_READY: dict[str, Any] = {"response_model": schemas.ModelReady, "dependencies": [needs()], **LOOK_AT_READY}


@router.get("/v2/models/{model}", **_METADATA)
async def model_metadata(request: Request, model: ModelName) -> dict[str, Any]:
    """The tensors that go into a model and come out."""
    return _metadata(request, model, None)


@router.get("/v2/models/{model}/versions/{version}", **_METADATA)
async def version_metadata(request: Request, model: ModelName, version: Version) -> dict[str, Any]:
    """The tensors that go into a version of a model and come out."""
    return _metadata(request, model, version)


@router.get("/v2/models/{model}/ready", **_READY)
async def model_ready(request: Request, model: ModelName) -> dict[str, Any]:
    """Whether a version of the model can answer."""
    return _ready(request, model, None)


@router.get("/v2/models/{model}/versions/{version}/ready", **_READY)
async def version_ready(request: Request, model: ModelName, version: Version) -> dict[str, Any]:
    """Whether a version can answer."""
    return _ready(request, model, version)


@router.post("/v2/models/{model}/infer", dependencies=[needs("predict")], **INFER)
async def infer(request: Request, model: ModelName) -> Response:
    """The class of each image and, where a map is asked for, on what it rests."""
    return await _infer(request, model, None)


@router.post("/v2/models/{model}/versions/{version}/infer", dependencies=[needs("predict")], **INFER)
async def infer_version(request: Request, model: ModelName, version: Version) -> Response:
    """The same, by a version of the model."""
    return await _infer(request, model, version)


@router.post(
    "/v2/repository/index", response_model=list[schemas.IndexedModel], dependencies=[needs()], **INDEX
)
async def index(request: Request) -> list[dict[str, str]]:
    """Every version of every model in the repository, or those that are ready."""
    asked = await _repository_body(request)
    return [
        {"name": entry.name, "version": entry.version, "state": entry.state.upper(), "reason": entry.reason}
        for entry in await state_of(request).repository.index()
        if entry.state == "ready" or not asked.ready
    ]


@router.post(
    "/v2/repository/models/{model}/load",
    response_model=schemas.Loaded,
    dependencies=[needs("admin")],
    **REPOSITORY,
)
async def load(request: Request, model: ModelName) -> dict[str, str]:
    """Load a model, or what is new of it; answers once that is ready."""
    asked = await _repository_body(request)
    if asked.parameters:
        raise InvalidRequest("a model is loaded as it lies in the repository; parameters are not taken")
    await state_of(request).repository.load(model)
    return {"name": model, "state": "READY"}


@router.post(
    "/v2/repository/models/{model}/unload",
    response_model=schemas.Loaded,
    dependencies=[needs("admin")],
    **REPOSITORY,
)
async def unload(request: Request, model: ModelName) -> dict[str, str]:
    """Unload a model, once it has finished what it accepted."""
    await _repository_body(request)
    await state_of(request).repository.unload(model)
    return {"name": model, "state": "UNAVAILABLE"}


def _metadata(request: Request, name: str, version: str | None) -> dict[str, Any]:
    repository = state_of(request).repository
    return metadata(repository.find(name, version), list(repository.versions(name)))


def _ready(request: Request, name: str, version: str | None) -> dict[str, Any]:
    model = state_of(request).repository.find(name, version)
    problems = model.problems()
    if problems:
        raise NotReady("; ".join(problems))
    return {"name": model.name, "ready": True}


async def _repository_body(request: Request) -> schemas.RepositoryBody:
    state = state_of(request)
    async with read_body(request, state.settings, state.budget) as body:
        try:
            given = await parse_json(body, partial(read_json, body), state.budget) if body else {}
            return schemas.RepositoryBody.model_validate(given)
        except ValidationError as error:
            raise InvalidRequest(faults(error)) from None


async def _infer(request: Request, name: str, version: str | None) -> Response:
    state = state_of(request)
    arrived = asyncio.get_running_loop().time()
    async with AsyncExitStack() as stack:
        model = stack.enter_context(state.repository.use(name, version))
        with state.metrics.counting(model.labels, "predict"):  # what is asked for is not known yet
            body = await stack.enter_async_context(read_body(request, state.settings, state.budget))
            header = request.headers.getlist(HEADER)
            asked, images = await _read(state, model, body, ",".join(header) if header else None)
        with state.metrics.counting(model.labels, "explain" if asked.explains else "predict"):
            if asked.explains:
                permit(request, "explain")
            options = read_options(asked)
            time = milliseconds(asked, options) or state.settings.default_deadline_ms
            deadline = arrived + time / 1e3 if time else None
            questions = make_questions(asked, images, options, request_id(request), deadline)
            edits = 0 if images.attention is None else images.attention.nbytes
            stack.enter_context(state.budget.hold(edits))

        async def ask(index: int, question: Question) -> Answered:
            answered = await _ask(state, model, question, index)
            stack.enter_context(state.budget.hold(_kept_bytes(asked, answered)))  # until all are sent
            return answered

        with cancel_on_disconnect(request):
            answers = await _together([ask(index, question) for index, question in enumerate(questions)])
            return await _respond(state, model, asked, answers, asked.id or request_id(request))


async def _read(state: State, model: Model, body: bytes, header: str | None) -> tuple[Asked, Images]:
    """The request and its tensors."""

    def read() -> tuple[Asked, Images]:
        asked = read_request(body, header)
        return asked, read_images(asked, model.bundle.card, state.settings.max_instances)

    return await parse_json(json_part(body, header), read, state.budget)


def _kept_bytes(asked: Asked, answered: Answered) -> int:
    """Memory for an answer until it is sent, and for what is written of it; 0 where it is little."""
    if _sent_bytes(answered) <= INLINE_BYTES:
        return 0
    copies = BINARY_COPIES if all(output.binary for output in asked.outputs) else JSON_COPIES
    return copies * _sent_bytes(answered)


def _sent_bytes(answered: Answered) -> int:
    given = answered.given
    return given.logits.nbytes + given.maps.nbytes + len(answered.picture or b"")


async def _together(work: Sequence[Coroutine[Any, Any, Answered]]) -> list[Answered]:
    """The results in order; the first that fails ends the others."""
    if len(work) == 1:
        return [await work[0]]
    tasks = [asyncio.create_task(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _ask(state: State, model: Model, question: Question, index: int) -> Answered:
    """The answer about one image of several.

    Raises:
        InvalidRequest, ImageTooLarge: the image is at fault; the message names it.
        KonkyoError: as ``Pipeline.answer``.
    """
    try:
        return await state.pipeline.answer(model, question)
    except (ImageError, EmptyBody) as error:
        message = f"image_bytes[{index}]: {error.message}"
        raise (ImageTooLarge if isinstance(error, ImageTooLarge) else InvalidRequest)(message) from None


async def _respond(
    state: State, model: Model, asked: Asked, answers: Sequence[Answered], identity: str
) -> Response:
    head = {"model_name": model.name, "model_version": model.version, "id": identity}
    card = model.bundle.card
    size = sum(map(_sent_bytes, answers))
    with state.metrics.stage.labels(stage="encode").time():
        if size <= INLINE_BYTES:
            body, length = encode(head, asked.outputs, answers, card)
        else:
            body, length = await asyncio.to_thread(encode, head, asked.outputs, answers, card)
    headers = {"x-model": model.name, "x-model-version": model.version}
    if length is None:
        return Response(body, media_type="application/json", headers=headers)
    return Response(body, media_type="application/octet-stream", headers={HEADER: str(length), **headers})
