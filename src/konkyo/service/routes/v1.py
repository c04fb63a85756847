"""Our own API: ``:predict``, ``:explain`` and the models. Translates, nothing more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from contextlib import AsyncExitStack
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Path, Request, Response
from pydantic_core import to_json

from konkyo.errors import InvalidParameter, KonkyoError
from konkyo.service.access import REFUSALS, needs
from konkyo.service.attention import read_attention
from konkyo.service.body import read_body
from konkyo.service.engines.base import Float32
from konkyo.service.http import Parsed, cancel_on_disconnect, parse, validate
from konkyo.service.long_options import LONG_OPTIONS, LongOptions, options_for
from konkyo.service.methods import Method
from konkyo.service.model import Model
from konkyo.service.pipeline import Answered
from konkyo.service.question import ImageFormat, Question
from konkyo.service.routes.jobs import explain_long
from konkyo.service.schemas import (
    ErrorBody,
    Explained,
    ExplainOptions,
    Explanations,
    JobBody,
    ModelDetail,
    ModelList,
    Prediction,
    Predictions,
    PredictOptions,
)  # fmt: skip
from konkyo.service.state import request_id, state_of

router = APIRouter(tags=["v1"])

ModelName = Annotated[str, Path(description="name of the model", examples=["gcm-cifar10"])]
Version = Annotated[str, Path(description="version of the model", examples=["1"])]

_PICTURES: dict[str, ImageFormat] = {"image/png": "png", "image/jpeg": "jpeg", "image/webp": "webp"}


def _query(options: type[PredictOptions], by_method: Mapping[str, type[PredictOptions]]) -> list[Any]:
    """Query parameters in OpenAPI; those that not every method takes say whose they are."""
    properties = options.model_json_schema()["properties"]
    for method, own in by_method.items():
        for name, schema in own.model_json_schema()["properties"].items():
            if name not in options.model_fields:
                default = schema.pop("default")
                said = f"{method}: {schema.pop('description')}" + (f"; default {default}" if default else "")
                known = properties.setdefault(name, {**schema, "description": ""})
                known["description"] = f"{known['description']}. {said}".removeprefix(". ")
    found = [
        {"name": name, "in": "query", "description": schema.pop("description", ""), "schema": schema}
        for name, schema in properties.items()
    ]
    for (
        parameter
    ) in found:  # lists are texts here: of words with commas between, or of rows of numbers in JSON
        if parameter["name"] in ("targets", "attention"):
            parameter["schema"] = {"type": "string"}
    return found


def _openapi(
    options: type[PredictOptions], by_method: Mapping[str, type[PredictOptions]] = {}
) -> dict[str, Any]:
    """The request as OpenAPI: the handlers read the body themselves, within its limits.

    Args:
        options: whatever the method.
        by_method: of the methods that take others beside them.
    """
    schemas = [kind.model_json_schema() for kind in (options, *by_method.values())]
    parameters = _query(options, by_method)
    image = {"schema": {"type": "string", "format": "binary"}}
    instance = {
        "type": "object",
        "required": ["image_bytes"],
        "properties": {
            "image_bytes": {
                "type": "object",
                "required": ["b64"],
                "properties": {"b64": {"type": "string", "format": "byte"}},
            }
        },
    }  # fmt: skip
    content = {
        **{f"image/{kind}": image for kind in ("jpeg", "png", "webp", "bmp", "tiff")},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["image"],
                "additionalProperties": False,
                "properties": {
                    "image": {
                        "type": "array",
                        "minItems": 1,
                        "items": {"type": "string", "format": "binary"},
                    },
                    **{parameter["name"]: parameter["schema"] for parameter in parameters},
                },
            }
        },
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["instances"],
                "additionalProperties": False,
                "properties": {
                    "instances": {"type": "array", "minItems": 1, "items": instance},
                    "parameters": {"anyOf": schemas},
                },
            }
        },
    }
    return {"parameters": parameters, "requestBody": {"required": True, "content": content}}


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorBody} for status in statuses}


_ANSWER_ERRORS = {**REFUSALS, **_errors(400, 404, 406, 408, 413, 414, 415, 422, 429, 431, 500, 503, 504)}

_PREDICT: dict[str, Any] = {
    "response_model": Prediction | Predictions,
    "responses": _ANSWER_ERRORS,
    "openapi_extra": _openapi(PredictOptions),
    "dependencies": [needs("predict")],
}
_EXPLAIN: dict[str, Any] = {
    "response_model": Explained | Explanations,
    "responses": {
        200: {"content": {media_type: {} for media_type in (*_PICTURES, "text/event-stream")}},
        202: {"model": JobBody, "description": "Begun: a long explanation, as a job"},
        **_ANSWER_ERRORS,
    },
    "openapi_extra": _openapi(ExplainOptions, LONG_OPTIONS),
    "dependencies": [needs("explain")],
}
_LOOK: dict[str, Any] = {"dependencies": [needs()], "responses": REFUSALS}
_LOOK_AT_ONE: dict[str, Any] = {**_LOOK, "responses": {**REFUSALS, **_errors(404)}}


@router.post("/v1/models/{model}:predict", **_PREDICT)
async def predict(request: Request, model: ModelName) -> Response:
    """The class of each image."""
    return await _answer(request, model, None, PredictOptions)


@router.post("/v1/models/{model}/versions/{version}:predict", **_PREDICT)
async def predict_version(request: Request, model: ModelName, version: Version) -> Response:
    """The class of each image, by a version of the model."""
    return await _answer(request, model, version, PredictOptions)


@router.post("/v1/models/{model}:explain", **_EXPLAIN)
async def explain(request: Request, model: ModelName) -> Response:
    """The class of each image and the map on which it rests."""
    return await _answer(request, model, None, ExplainOptions)


@router.post("/v1/models/{model}/versions/{version}:explain", **_EXPLAIN)
async def explain_version(request: Request, model: ModelName, version: Version) -> Response:
    """The class of each image and the map on which it rests, by a version of the model."""
    return await _answer(request, model, version, ExplainOptions)


@router.get("/v1/models", response_model=ModelList, **_LOOK)
async def list_models(request: Request) -> dict[str, Any]:
    """Every model with its versions."""
    repository = state_of(request).repository
    models = []
    for name in repository.names():
        default = repository.find(name)
        ready = default.state == "ready"
        models.append(
            {
                "name": name,
                "versions": list(repository.versions(name)),
                "default": default.version,
                "state": default.state,
                "methods": default.methods.names() if ready else [],
                "default_method": default.methods.default.name if ready else None,
                "problems": repository.failures(name),
            }
        )
    return {"models": models}


@router.get("/v1/models/{model}", response_model=ModelDetail, **_LOOK_AT_ONE)
async def get_model(request: Request, model: ModelName) -> dict[str, Any]:
    """The card and the state of a model's default version."""
    return _detail(state_of(request).repository.find(model))


@router.get("/v1/models/{model}/versions/{version}", response_model=ModelDetail, **_LOOK_AT_ONE)
async def get_version(request: Request, model: ModelName, version: Version) -> dict[str, Any]:
    """The card and the state of a version."""
    return _detail(state_of(request).repository.find(model, version))


def _detail(model: Model) -> dict[str, Any]:
    ready = model.state == "ready"
    return {
        "name": model.name,
        "version": model.version,
        "state": model.state,
        "ready": ready and not model.problems(),
        "failure": model.failure,
        "load_seconds": model.load_seconds,
        "digest": model.bundle.digest if ready else None,
        "engine": model.engine.name if ready else None,
        "device": model.engine.device if ready else None,
        "methods": [_method(method) for method in model.methods] if ready else [],
        "card": model.bundle.card if ready else None,
    }


def _method(method: Method) -> dict[str, Any]:
    names = ("name", "map_kind", "class_specific", "needs", "runtime", "default", "long")
    return {name: getattr(method, name) for name in names}


async def _answer(request: Request, name: str, version: str | None, kind: type[PredictOptions]) -> Response:
    state = state_of(request)
    arrived = asyncio.get_running_loop().time()
    explains = kind is ExplainOptions
    async with AsyncExitStack() as stack:
        model = stack.enter_context(state.repository.use(name, version))
        with state.metrics.counting(model.labels, "explain" if explains else "predict"):
            body = await stack.enter_async_context(read_body(request, state.settings, state.budget))
            parsed = await parse(request, body, state.settings, state.budget)
            options = validate(options_for(parsed.parameters) if explains else kind, parsed.parameters)
            picture, attention = None, None
            if isinstance(options, ExplainOptions) and not isinstance(options, LongOptions):
                picture = _picture(request, parsed, options)
                attention = await _attention(parsed, options)
            if attention is not None:
                stack.enter_context(state.budget.hold(attention.nbytes))
        if isinstance(options, LongOptions):
            return await explain_long(request, model, parsed, options, arrived)
        milliseconds = options.deadline_ms or state.settings.default_deadline_ms
        deadline = arrived + milliseconds / 1e3 if milliseconds else None

        def ask(image: bytes | KonkyoError, identity: str, item: int) -> Awaitable[Answered]:
            if isinstance(image, KonkyoError):
                raise image
            return state.pipeline.answer(
                model, Question(identity, image, options, picture, attention, deadline, item=item)
            )

        async def ask_alone(image: bytes | KonkyoError, identity: str, item: int) -> dict[str, Any]:
            """One of several images: its error is its own answer."""
            try:
                return (await ask(image, identity, item)).body
            except KonkyoError as error:
                return error.body()

        identity = request_id(request)
        with cancel_on_disconnect(request):
            if not parsed.many:
                answered = await ask(parsed.images[0], identity, 0)
                with state.metrics.stage.labels(stage="encode").time():
                    return _respond(model, answered, picture)
            bodies = await asyncio.gather(
                *(ask_alone(image, f"{identity}-{index}", index) for index, image in enumerate(parsed.images))
            )
    key = "explanations" if explains else "predictions"
    with state.metrics.stage.labels(stage="encode").time():
        return _json({key: bodies}, {"x-model": model.name, "x-model-version": model.version})


def _picture(request: Request, parsed: Parsed, options: ExplainOptions) -> ImageFormat | None:
    """The picture format that ``Accept`` asks for, None for JSON.

    Raises:
        InvalidParameter: one picture cannot answer for several images, or none is wanted.
    """
    for part in request.headers.get("accept", "").split(","):
        media_type = part.partition(";")[0].strip().lower()
        picture = "png" if media_type == "image/*" else _PICTURES.get(media_type)
        if picture:
            if parsed.many:
                raise InvalidParameter("several images are answered in JSON; accept application/json")
            if options.overlay == "none":
                raise InvalidParameter("overlay=none leaves no picture to send; accept application/json")
            return picture
        if "json" in part or "*/*" in part:
            return None
    return None


async def _attention(parsed: Parsed, options: ExplainOptions) -> Float32 | None:
    """The edited map, None if there is none.

    Raises:
        InvalidParameter: it cannot be read, or there are several images.
    """
    if options.attention is None:
        return None
    if len(parsed.images) > 1:
        raise InvalidParameter("attention is of one image; send one image a request", parameter="attention")
    return await asyncio.to_thread(read_attention, options.attention)


def _respond(model: Model, answered: Answered, picture: ImageFormat | None) -> Response:
    body = answered.body
    headers = {
        "x-model": model.name,
        "x-model-version": model.version,
        "x-batch-size": str(body["batch_size"]),
        "server-timing": ", ".join(f"{stage};dur={value:.3f}" for stage, value in body["timing_ms"].items()),
    }
    if picture is None or answered.picture is None:
        return _json(body, headers)
    headers |= {
        "x-label": quote(body["label"]),
        "x-index": str(body["index"]),
        "x-score": f"{body['score']:.6f}",
        "x-status": body["explanation"]["status"],
    }
    if "truth" in body:
        roles = [entry["role"] for entry in body["explanation"]["maps"]]
        headers |= {"x-truth": quote(body["truth"]["label"]), "x-maps": ",".join(roles)}  # left to right
    return Response(answered.picture, media_type=f"image/{picture}", headers=headers)


def _json(body: dict[str, Any], headers: dict[str, str]) -> Response:
    return Response(to_json(body, inf_nan_mode="null"), media_type="application/json", headers=headers)
