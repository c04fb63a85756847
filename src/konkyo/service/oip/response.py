"""Answers as tensors, and tensors as a body with the header that says where its JSON ends."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic_core import to_json

from konkyo.models.card import ModelCard
from konkyo.service.answers import softmax
from konkyo.service.oip.request import Wanted
from konkyo.service.oip.tensors import join_elements, join_rows, json_rows
from konkyo.service.pipeline import Answered

Row = npt.NDArray[np.float32]

BINARY_COPIES, JSON_COPIES = 2, 7
"""Memory that an answer takes for each byte of its numbers and pictures: they are kept until all are there,
and written, numbers in JSON with some twenty digits each."""


@dataclass(frozen=True, slots=True)
class Output:
    """A tensor to send: numbers, one array an image, or elements of BYTES."""

    name: str
    shape: list[int]
    rows: Sequence[Row] | None
    elements: Sequence[bytes]

    @property
    def datatype(self) -> str:
        """As in the protocol."""
        return "BYTES" if self.rows is None else "FP32"

    def to_bytes(self) -> bytes:
        """As in the binary extension."""
        return join_elements(self.elements) if self.rows is None else join_rows(self.rows)

    def to_text(self) -> bytes:
        """As a flat list in JSON; pictures in base64."""
        if self.rows is not None:
            return json_rows(self.rows)
        coded = self.name == "overlay"
        return to_json(
            [base64.b64encode(part).decode() if coded else part.decode() for part in self.elements]
        )


def make_output(wanted: Wanted, answers: Sequence[Answered], card: ModelCard) -> Output:
    """One output of all images."""
    count = len(answers)
    if wanted.name == "label":
        return Output("label", [count], None, [answer.body["label"].encode() for answer in answers])
    if wanted.name == "overlay":
        return Output("overlay", [count], None, [answer.picture or b"" for answer in answers])
    if wanted.name == "map":
        rows = [answer.given.maps for answer in answers]
    else:
        rows = [answer.given.logits for answer in answers]
        if wanted.name == "probabilities":
            rows = [softmax(row) for row in rows]
        if wanted.best:
            return _classified(wanted, rows, card)
    return Output(wanted.name, [count, *rows[0].shape], rows, [])


def encode(
    head: dict[str, Any], wanted: Sequence[Wanted], answers: Sequence[Answered], card: ModelCard
) -> tuple[bytes, int | None]:
    """The body of an answer; large ones take a while.

    Args:
        head: of the JSON, all but the outputs.

    Returns:
        The body, and how much of it is JSON; None for all.
    """
    texts, behind = [], []
    for one in wanted:
        output = make_output(one, answers, card)
        entry: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": output.shape}
        if one.binary:
            data = output.to_bytes()
            behind.append(data)
            texts.append(to_json({**entry, "parameters": {"binary_data_size": len(data)}}))
        else:
            texts.append(to_json(entry)[:-1] + b',"data":' + output.to_text() + b"}")
    text = to_json(head)[:-1] + b',"outputs":[' + b",".join(texts) + b"]}"
    return (b"".join((text, *behind)), len(text)) if behind else (text, None)


def _classified(wanted: Wanted, rows: Sequence[Row], card: ModelCard) -> Output:
    """The best classes, ``SCORE:INDEX:LABEL`` each (the classification extension)."""
    best = min(wanted.best, len(card.labels))
    elements = [
        f"{row[index]:f}:{index}:{card.labels[index]}".encode()
        for row in rows
        for index in np.argsort(-row, kind="stable")[:best].tolist()
    ]
    return Output(wanted.name, [len(rows), best], None, elements)
