"""The routes of the protocol in OpenAPI: the handlers read bodies themselves, within their limits."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from konkyo.service.oip.schemas import InferBody, Inferred, OipError, RepositoryBody

HEADER = "Inference-Header-Content-Length"

_BINARY = {"schema": {"type": "string", "format": "binary"}}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For the ``responses`` of a route."""
    return {status: {"model": OipError} for status in statuses}


def _inlined(model: type[BaseModel]) -> dict[str, Any]:
    """A schema without references, which would lead nowhere from inside a route."""
    schema = model.model_json_schema()
    parts = schema.pop("$defs", {})

    def resolve(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return resolve(parts[node["$ref"].removeprefix("#/$defs/")])
            return {key: resolve(value) for key, value in node.items()}
        return [resolve(value) for value in node] if isinstance(node, list) else node

    resolved: dict[str, Any] = resolve(schema)
    return resolved


_ONE_VERSION = errors(401, 403, 404)

LOOK: dict[str, Any] = {"responses": _ONE_VERSION}
"""Of the routes that tell about a model."""

LOOK_AT_READY: dict[str, Any] = {"responses": {**_ONE_VERSION, **errors(503)}}
"""Of those that need it loaded."""

INFER: dict[str, Any] = {
    "response_model": Inferred,
    "responses": {
        200: {
            "content": {"application/octet-stream": _BINARY},
            "headers": {
                HEADER: {"description": "bytes of JSON before the tensors", "schema": {"type": "integer"}}
            },
        },
        **errors(400, 401, 403, 404, 408, 413, 415, 422, 429, 500, 503, 504),
    },
    "openapi_extra": {
        "parameters": [
            {
                "name": HEADER,
                "in": "header",
                "required": False,
                "description": "bytes of JSON at the start of the body, tensors behind them; 0: the body is "
                "one image file; without it all of the body is JSON",
                "schema": {"type": "integer", "minimum": 0},
            }
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": _inlined(InferBody)},
                "application/octet-stream": _BINARY,
            },
        },
    },
}

_REPOSITORY_BODY: dict[str, Any] = {
    "requestBody": {
        "required": False,
        "content": {"application/json": {"schema": _inlined(RepositoryBody)}},
    }
}

INDEX: dict[str, Any] = {
    "responses": errors(400, 401, 403, 408, 413, 415, 429),
    "openapi_extra": _REPOSITORY_BODY,
}

REPOSITORY: dict[str, Any] = {
    "responses": errors(400, 401, 403, 404, 408, 409, 413, 415, 429, 503),
    "openapi_extra": _REPOSITORY_BODY,
}
