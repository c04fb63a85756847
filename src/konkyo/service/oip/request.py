"""What is asked for, and its tensors, out of a body and the header that says where its JSON ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from konkyo.errors import EmptyBody, InvalidRequest
from konkyo.service.body import read_json
from konkyo.service.oip.schemas import OUTPUTS, InferBody, InferInput, InferOutput
from konkyo.service.oip.tensors import Tensor

CLASSIFIABLE = ("logits", "probabilities")
"""Outputs that the classification extension can name the best classes of."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An output that is asked for.

    Attributes:
        binary: as bytes behind the JSON.
        best: so many of the best classes as text instead of the values; 0 for the values.
    """

    name: str
    binary: bool = False
    best: int = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """A request.

    Attributes:
        inputs: by name.
        outputs: each once.
        parameters: of the request, without ``binary_data_output``.
    """

    id: str | None
    inputs: dict[str, Tensor]
    outputs: Sequence[Wanted]
    parameters: dict[str, Any]

    @property
    def explains(self) -> bool:
        """Whether a map has to be computed: to be sent, to be drawn, or to decide by."""
        return "attention" in self.inputs or any(one.name in ("map", "overlay") for one in self.outputs)


def json_part(body: bytes, header: str | None) -> bytes:
    """What of a body is JSON, by the value of ``Inference-Header-Content-Length``; None: all of it.

    Raises:
        InvalidRequest: the value is no such number.
    """
    if header is None:
        return body
    if not header.isdecimal() or len(header) > 18 or int(header) > len(body):
        raise InvalidRequest(
            "Inference-Header-Content-Length is not a number of bytes from 0 to those of the body, "
            f"{len(body)}"
        )
    return body[: int(header)]


def read_request(body: bytes, header: str | None) -> Asked:
    """A request out of its body.

    Args:
        header: value of ``Inference-Header-Content-Length``: bytes of JSON at the start of the body; None
            where all of it is JSON, and 0 where all of it is one image file.

    Raises:
        InvalidRequest: it is malformed.
    """
    text = json_part(body, header)
    if not body:
        raise EmptyBody("the body is empty; send a request in JSON, or an image and the header's value 0")
    if header is not None and not text:
        image = Tensor("image_bytes", "BYTES", (1,), memoryview(body), prefixed=False)
        return Asked(None, {image.name: image}, _all(binary=True), {})
    try:
        given = InferBody.model_validate(read_json(text))
    except ValidationError as error:
        raise InvalidRequest(faults(error)) from None
    parameters = given.parameters or {}
    return Asked(
        given.id or None,
        _inputs(given.inputs, None if header is None else memoryview(body)[len(text) :]),
        _outputs(given.outputs, _flag(parameters, "binary_data_output", "the request") or False),
        {name: value for name, value in parameters.items() if name != "binary_data_output"},
    )


def _inputs(given: Sequence[InferInput], rest: memoryview | None) -> dict[str, Tensor]:
    """The tensors, those of the binary extension one after the other out of ``rest``."""
    found: dict[str, Tensor] = {}
    start = 0
    for one in given:
        if one.name in found:
            raise InvalidRequest(f"the input {one.name!r} is given twice")
        parameters = one.parameters or {}
        _refuse_shared_memory(parameters, one.name)
        size = parameters.get("binary_data_size")
        data: list[Any] | memoryview | None = one.data
        if size is not None:
            if rest is None:
                raise InvalidRequest(
                    f"{one.name}: binary_data_size without the header Inference-Header-Content-Length"
                )
            if data is not None:
                raise InvalidRequest(f"{one.name}: data and binary_data_size exclude each other")
            if type(size) is not int or not 0 <= size <= len(rest) - start:
                raise InvalidRequest(
                    f"{one.name}: binary_data_size is not a number of bytes from 0 to those that are left, "
                    f"{len(rest) - start}"
                )
            data = rest[start : start + size]
            start += size
        if data is None:
            raise InvalidRequest(f"{one.name}: neither data nor binary_data_size")
        found[one.name] = Tensor(one.name, one.datatype, tuple(one.shape), data)
    if rest is not None and start < len(rest):
        raise InvalidRequest(f"{len(rest) - start} bytes follow the last tensor")
    return found


def _outputs(given: Sequence[InferOutput] | None, binary: bool) -> list[Wanted]:
    if not given:
        return _all(binary=binary)
    found: dict[str, Wanted] = {}
    for one in given:
        if one.name not in OUTPUTS:
            raise InvalidRequest(f"there is no output {one.name!r}; there are {', '.join(OUTPUTS)}")
        if one.name in found:
            raise InvalidRequest(f"the output {one.name!r} is asked for twice")
        parameters = one.parameters or {}
        _refuse_shared_memory(parameters, one.name)
        own = _flag(parameters, "binary_data", one.name)
        best = parameters.get("classification", 0)
        if type(best) is not int or best < 0:
            raise InvalidRequest(f"{one.name}: classification is not a number of classes")
        if best and one.name not in CLASSIFIABLE:
            raise InvalidRequest(f"{one.name}: classification is of {' and '.join(CLASSIFIABLE)} alone")
        found[one.name] = Wanted(one.name, binary if own is None else own, best)
    return list(found.values())


def _all(*, binary: bool) -> list[Wanted]:
    return [Wanted(name, binary) for name in OUTPUTS if name != "overlay"]


def _flag(parameters: dict[str, Any], name: str, of: str) -> bool | None:
    value = parameters.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidRequest(f"{of}: {name} is neither true nor false")
    return value


def _refuse_shared_memory(parameters: dict[str, Any], name: str) -> None:
    if "shared_memory_region" in parameters:
        raise InvalidRequest(f"{name}: shared memory is not read here; send the tensor with the request")


def faults(error: ValidationError) -> str:
    """The first few things that are wrong, in one line."""
    found = error.errors(include_url=False, include_input=False, include_context=False)[:5]
    return "; ".join(
        f"{'.'.join(map(str, fault['loc'])) or 'the request'}: {fault['msg']}" for fault in found
    )
