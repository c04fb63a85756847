"""Between HTTP and the pipeline: images and parameters out of a body, errors and disconnects out."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from konkyo.errors import (
    EmptyBody,
    InvalidParameter,
    InvalidRequest,
    KonkyoError,
    RequestCancelled,
    UnsupportedMediaType,
    clip,
)  # fmt: skip
from konkyo.service.body import parse_json, read_json
from konkyo.service.budget import MemoryBudget
from konkyo.service.settings import Settings

Options = TypeVar("Options", bound=BaseModel)

MAX_PARAMETERS = 64
"""More than there are; of each that is wrong the answer says why."""

UNKNOWN = "not a parameter here; detail.known has those there are"

RAW_TYPES = ("", "application/octet-stream", "application/x-www-form-urlencoded")
"""Content types that say nothing about the body; the last is what curl sends unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """The images of a request, an error in the place of each that could not be read, and parameters.

    ``many``: the answer is a list, as for JSON instances and several multipart parts.
    """

    images: list[bytes | KonkyoError]
    parameters: dict[str, Any]
    many: bool


async def parse(request: Request, body: bytes, settings: Settings, budget: MemoryBudget) -> Parsed:
    """Images and parameters out of a raw, multipart or JSON body, and the query.

    Raises:
        EmptyBody, InvalidRequest, InvalidParameter, UnsupportedMediaType, Overloaded
    """
    query = _once(request.query_params.multi_items())
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not body:
        raise EmptyBody("the body is empty; send an image")
    if content_type == "multipart/form-data":
        images, fields = await _parse_multipart(request, body, settings)
        return Parsed(images, {**query, **fields}, many=len(images) > 1)
    if content_type == "application/json":
        images, parameters = await parse_json(body, partial(_parse_json, body, settings), budget)
        return Parsed(images, {**query, **parameters}, many=True)
    if content_type in RAW_TYPES or content_type.startswith("image/"):
        return Parsed([body], query, many=False)
    raise UnsupportedMediaType(
        f"cannot read a body of type {content_type}; send image/*, multipart/form-data or application/json"
    )


def validate(options: type[Options], parameters: dict[str, Any]) -> Options:
    """Build the options of a request.

    Raises:
        InvalidParameter: naming every parameter that is unknown, malformed or out of range.
    """
    if len(parameters) > MAX_PARAMETERS:
        raise InvalidParameter(
            f"{len(parameters)} parameters; there are not so many", known=sorted(options.model_fields)
        )
    try:
        return options.model_validate(parameters)
    except ValidationError as error:
        faults = [
            {
                "parameter": clip(".".join(str(part) for part in fault["loc"][:1])),
                "message": UNKNOWN if fault["type"] == "extra_forbidden" else fault["msg"],
            }
            for fault in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        message = "; ".join(f"{fault['parameter']}: {fault['message']}" for fault in faults)
        raise InvalidParameter(message, parameters=faults, known=sorted(options.model_fields)) from None


@contextmanager
def cancel_on_disconnect(request: Request) -> Iterator[None]:
    """Cancel what runs in the block when the caller goes away; enter after the body has been read.

    Raises:
        RequestCancelled: the caller has gone.
    """
    task = asyncio.current_task()
    assert task is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    watcher = asyncio.get_running_loop().create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not gone:
            raise
        task.uncancel()
        raise RequestCancelled("the caller left before the answer") from None
    finally:
        watcher.cancel()


async def _parse_multipart(
    request: Request, body: bytes, settings: Settings
) -> tuple[list[bytes | KonkyoError], dict[str, str]]:
    if not body.rstrip().endswith(b"--"):  # the parser would drop the last part without a word
        raise InvalidRequest("malformed multipart body: it has no closing boundary")

    async def stream() -> AsyncGenerator[bytes]:
        yield body

    parser = MultiPartParser(
        request.headers, stream(), max_files=settings.max_instances, max_fields=64, max_part_size=len(body)
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:  # KeyError: no boundary in the header
        raise InvalidRequest(f"malformed multipart body: {error}") from None
    images: list[bytes | KonkyoError] = []
    fields: list[tuple[str, str]] = []
    try:
        for name, value in form.multi_items():
            if isinstance(value, str):
                if name == "image":
                    raise InvalidRequest(
                        "the part 'image' is a text field; send it as a file (curl -F image=@FILE)"
                    )
                fields.append((name, value))
            elif name == "image":
                images.append(await value.read())
            else:
                raise InvalidRequest(f"unknown file part {name!r}; the image goes into 'image'")
    finally:
        await form.close()
    if not images:
        raise EmptyBody("there is no part named 'image'")
    return images, _once(fields)


def _once(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """As a dictionary, in which no value silently takes the place of another."""
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:
            raise InvalidParameter(
                f"{name} is given twice; several targets are separated by commas", parameter=name
            )
        found[name] = value
    return found


def _parse_json(body: bytes, settings: Settings) -> tuple[list[bytes | KonkyoError], dict[str, Any]]:
    document = read_json(body)
    if not isinstance(document, dict) or not isinstance(document.get("instances"), list):
        raise InvalidRequest('expected {"instances": [{"image_bytes": {"b64": "..."}}]}')
    unknown = sorted(document.keys() - {"instances", "parameters"})
    if unknown:
        raise InvalidRequest(f"unknown fields: {', '.join(unknown)}")
    parameters = document.get("parameters", {})
    if not isinstance(parameters, dict):
        raise InvalidRequest("parameters is not an object")
    instances = document["instances"]
    if not instances:
        raise EmptyBody("instances is empty")
    if len(instances) > settings.max_instances:
        raise InvalidRequest(
            f"{len(instances)} instances; the limit is {settings.max_instances}", limit=settings.max_instances
        )
    return [_instance(instance) for instance in instances], parameters


def _instance(instance: Any) -> bytes | KonkyoError:
    match instance:
        case {"image_bytes": {"b64": str(text)}}:
            try:
                return base64.b64decode(text, validate=True)
            except (binascii.Error, ValueError):
                return InvalidRequest("image_bytes.b64 is not base64")
    return InvalidRequest('an instance is {"image_bytes": {"b64": "..."}}')
