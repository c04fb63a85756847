"""What is asked for as questions to the pipeline, one an image."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from konkyo.errors import InvalidParameter, InvalidRequest
from konkyo.imaging import UInt8
from konkyo.models.card import ModelCard
from konkyo.service.attention import MAX_SIDE, check_cells
from konkyo.service.engines.base import Float32
from konkyo.service.http import validate
from konkyo.service.oip.request import Asked
from konkyo.service.oip.schemas import INPUTS
from konkyo.service.oip.tensors import Tensor
from konkyo.service.question import Question
from konkyo.service.schemas import MAX_TARGETS, ExplainOptions, PredictOptions

OPTIONS = (
    "method",
    "target",
    "overlay",
    "part",
    "colormap",
    "alpha",
    "frame",
    "regions",
    "deadline_ms",
)  # fmt: skip
"""Parameters of our own API that a request may have here; tensors take the place of the others."""

OTHERS = ("timeout", "priority", "sequence_id", "sequence_start", "sequence_end", "content_type", "headers")
"""Parameters that clients of this protocol send. All but the first mean nothing here, and are let through."""


@dataclass(frozen=True, slots=True)
class Images:
    """The inputs of a request, checked: one entry an image.

    Attributes:
        data: files, or pixels (H, W, 3).
        targets: class indices (K), −1 for the predicted class.
        attention: edits (h', w').
    """

    data: Sequence[bytes] | UInt8
    targets: Sequence[tuple[int, ...]] | None
    attention: Float32 | None

    @property
    def count(self) -> int:
        """B."""
        return len(self.data)


def read_images(asked: Asked, card: ModelCard, max_images: int) -> Images:
    """The tensors of a request as what they stand for; large ones take a while.

    Raises:
        InvalidRequest: a tensor is not one of the model's, or not as it has to be.
    """
    for name, tensor in asked.inputs.items():
        if name not in INPUTS:
            raise InvalidRequest(f"there is no input {name!r}; there are {', '.join(INPUTS)}")
        if tensor.datatype != INPUTS[name]:
            raise InvalidRequest(f"{name} is {INPUTS[name]}, and not {tensor.datatype[:20]!r}")
    if ("image" in asked.inputs) == ("image_bytes" in asked.inputs):
        raise InvalidRequest("give one of the inputs image and image_bytes")
    image = asked.inputs.get("image") or asked.inputs["image_bytes"]
    count = image.shape[0] if image.shape else 0
    if not 1 <= count <= max_images:
        raise InvalidRequest(f"{image.name}: {count} images; 1 to {max_images} are answered in one request")
    size = card.input.height, card.input.width, 3
    _check(image, (count, *size) if image.name == "image" else (count,))
    data = image.numbers() if image.name == "image" else _files(image)
    return Images(data, _targets(asked, count, card), _attention(asked, count))


def read_options(asked: Asked) -> PredictOptions:
    """The parameters of a request; ``ExplainOptions`` where a map has to be computed.

    Raises:
        InvalidParameter: one is unknown or out of range.
    """
    own: dict[str, Any] = {}
    for name, value in asked.parameters.items():
        if name in OPTIONS:
            own[name] = value
        elif name not in OTHERS:
            known = ", ".join((*OPTIONS, "timeout"))
            raise InvalidParameter(f"{name!r} is not a parameter here; there are {known}", parameter=name)
    options = validate(ExplainOptions, {"top_k": 1, **own})
    if options.overlay == "none" and any(output.name == "overlay" for output in asked.outputs):
        raise InvalidParameter("overlay=none leaves no overlay to send", parameter="overlay")
    return options if asked.explains else PredictOptions(top_k=1, deadline_ms=options.deadline_ms)


def make_questions(
    asked: Asked, images: Images, options: PredictOptions, identity: str, deadline: float | None
) -> list[Question]:
    """One question an image.

    Args:
        identity: of the request.
        deadline: in the event loop's time.
    """
    picture = any(output.name == "overlay" for output in asked.outputs)
    return [
        Question(
            identity if images.count == 1 else f"{identity}-{index}",
            data,
            options,
            "png" if picture else None,
            None if images.attention is None else images.attention[index],
            deadline,
            None if images.targets is None or not asked.explains else images.targets[index],
            raw=True,
            item=index,
        )
        for index, data in enumerate(images.data)
    ]


def milliseconds(asked: Asked, options: PredictOptions) -> float | None:
    """Time for the answer: ``deadline_ms``, or ``timeout`` in µs as Triton has it, whichever is shorter.

    Raises:
        InvalidParameter: the latter is no such time.
    """
    timeout = asked.parameters.get("timeout") or 0
    if type(timeout) is not int or timeout < 0:
        raise InvalidParameter("timeout is not a number of microseconds", parameter="timeout")
    given = [options.deadline_ms, timeout / 1e3 or None]
    return min((time for time in given if time is not None), default=None)


def _check(tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tensor.shape != shape:
        raise InvalidRequest(f"{tensor.name}: its shape is {list(tensor.shape)}, and has to be {list(shape)}")


def _files(tensor: Tensor) -> list[bytes]:
    files = []
    for index, element in enumerate(tensor.elements()):
        try:
            files.append(element if isinstance(element, bytes) else base64.b64decode(element, validate=True))
        except (binascii.Error, ValueError):
            raise InvalidRequest(
                f"{tensor.name}[{index}] is not base64, as a file in JSON has to be"
            ) from None
    return files


def _targets(asked: Asked, count: int, card: ModelCard) -> list[tuple[int, ...]] | None:
    tensor = asked.inputs.get("targets")
    if tensor is None:
        return None
    classes = tensor.shape[1] if len(tensor.shape) == 2 else 0
    if not 1 <= classes <= MAX_TARGETS:
        raise InvalidRequest(f"targets: its shape is [{count}, 1 to {MAX_TARGETS}]")
    _check(tensor, (count, classes))
    indices = tensor.numbers()
    if indices.min() < -1 or indices.max() >= len(card.labels):
        raise InvalidRequest(f"targets: class indices are from 0 to {len(card.labels) - 1}, or -1")
    return [tuple(row) for row in indices.tolist()]


def _attention(asked: Asked, count: int) -> Float32 | None:
    tensor = asked.inputs.get("attention")
    if tensor is None:
        return None
    sides = tensor.shape[1:]
    if len(sides) != 2 or not all(1 <= side <= MAX_SIDE for side in sides):
        raise InvalidRequest(f"attention: its shape is [{count}, h, w], with 1 to {MAX_SIDE} cells a side")
    _check(tensor, (count, *sides))
    try:
        return check_cells(np.asarray(tensor.numbers(), np.float32))
    except InvalidParameter as error:
        raise InvalidRequest(error.message) from None
