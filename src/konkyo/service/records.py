"""What an audit record says; ``docs/security.md`` explains each field."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Any

import numpy as np

from konkyo.errors import KonkyoError, NotReady, RequestCancelled, clip
from konkyo.models.card import InputSpec
from konkyo.service.access import key_name
from konkyo.service.logs import request_id
from konkyo.service.metrics import outcome_of
from konkyo.service.model import Model
from konkyo.service.question import Question
from konkyo.service.schemas import ExplainOptions
from konkyo.service.tracing import current

Body = dict[str, Any]

OWN_BYTES = 8 * 1024
"""Of a record beside the image that it keeps until it is written."""


class Record:
    """The record of one question, begun when it is asked.

    Attributes:
        body: of the answer, once there is one.
    """

    def __init__(self, model: Model, question: Question) -> None:
        self._model = model
        self._question = question
        self._began = time.perf_counter()
        self.body: Body | None = None

    @property
    def nbytes(self) -> int:
        """Memory that it keeps."""
        return OWN_BYTES + self._question.nbytes

    def line(self, error: BaseException | None) -> Callable[[], bytes]:
        """The line, to be called where there is time to hash an image.

        Args:
            error: by which it ended, None for an answer.
        """
        ids = current().ids
        entry = {
            "event": "result",
            "time": now(),
            "request_id": request_id.get(),
            "item": self._question.item,
            "trace_id": ids and ids[0],
            "key": key_name.get(),
            "image": {},
            **_of_model(self._model),
            "verb": self._question.verb,
            **_of_answer(self._question, self.body if error is None else None),
            **_ending(error, self.body),
            "latency_ms": (time.perf_counter() - self._began) * 1e3,
        }
        return partial(_finish, entry, self._question)


def now() -> str:
    """The time, RFC 3339 in UTC."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def to_line(entry: Body) -> bytes:
    """One line of JSON in ASCII."""
    return json.dumps(entry).encode() + b"\n"


@lru_cache(maxsize=64)
def preprocessing_digest(spec: InputSpec) -> str:
    """SHA-256 of the card's ``input`` with its defaults, as JSON without spaces and its names sorted."""
    text = json.dumps(spec.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _of_model(model: Model) -> Body:
    digest = preprocessing = runtime = None
    with suppress(NotReady):
        digest, preprocessing = model.bundle.digest, preprocessing_digest(model.bundle.card.input)
        runtime = {"engine": model.engine.name, "device": model.engine.device}
    return {
        "model": {"name": model.name, "version": model.version, "digest": digest},
        "preprocessing": preprocessing,
        "runtime": runtime,
    }


def _of_answer(question: Question, body: Body | None) -> Body:
    asked = question.options.method if isinstance(question.options, ExplainOptions) else None
    asked = asked and clip(asked)  # a caller's own word, if it is none of ours
    if body is None:
        return {"method": asked, "targets": None, "answer": None}
    answer = {key: body[key] for key in ("label", "index", "score")}
    explanation = body.get("explanation")
    if explanation is None:
        return {"method": None, "targets": None, "answer": answer}
    maps = [entry.get("target") for entry in explanation.get("maps", [explanation])]
    return {
        "method": explanation["method"],
        "targets": [target["index"] for target in maps if target is not None],
        "answer": {**answer, "explanation": explanation["status"]},
    }


def _ending(error: BaseException | None, body: Body | None) -> Body:
    if error is None:
        shed = body is not None and body.get("explanation", {}).get("status") == "shed"
        return {"outcome": "shed" if shed else "success", "error": None}
    if isinstance(error, asyncio.CancelledError):
        error = RequestCancelled("")
    code = error.code if isinstance(error, KonkyoError) else KonkyoError.code
    return {"outcome": outcome_of(error), "error": code}


def _finish(entry: Body, question: Question) -> bytes:
    """Add what takes time: the hashes."""
    of = "file" if isinstance(question.data, bytes) else "pixels"
    entry["image"] = {"sha256": _hash(question.data), "of": of, "bytes": question.nbytes}
    if question.attention is not None:
        entry["attention"] = {"sha256": _hash(question.attention), "shape": question.attention.shape}
    return to_line(entry)


def _hash(data: bytes | np.ndarray[Any, Any]) -> str:
    """SHA-256 of bytes; of an array, of its elements row by row, little-endian."""
    content = data if isinstance(data, bytes) else np.ascontiguousarray(data).data
    return hashlib.sha256(content).hexdigest()
