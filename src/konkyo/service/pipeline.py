"""The way of an image through the service, in one function: read ``Pipeline.answer``.

    bytes -> decode -> queue and forward pass -> render -> answer

Nothing here knows HTTP.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import cv2
import numpy as np
from PIL import Image

from konkyo.errors import InvalidParameter, QueueFull, UnsupportedMethod
from konkyo.imaging import Geometry, UInt8, decode, open_image
from konkyo.service import rendering
from konkyo.service.batcher import Answer
from konkyo.service.budget import MemoryBudget
from konkyo.service.engines.base import Float32
from konkyo.service.metrics import Metrics
from konkyo.service.model import Kind, Model
from konkyo.service.schemas import ExplainOptions, PredictOptions
from konkyo.service.settings import Settings

T = TypeVar("T")
ImageFormat = Literal["png", "jpeg", "webp"]

INLINE_PIXELS = 96 * 96
"""Images up to this size are decoded and rendered where they are: a hop to another thread would
take longer than the work."""

PICTURE_BYTES = 32
"""Bytes a pixel while a picture is drawn: a map, colours and a product in float32, and the file."""


@dataclass(frozen=True, slots=True)
class Question:
    """One image and what is asked of it.

    Attributes:
        data: the bytes of the image file.
        options: ``ExplainOptions`` asks for a map.
        picture: answer with the overlay alone, in this format.
        deadline: in the event loop's time.
    """

    id: str
    data: bytes
    options: PredictOptions
    picture: ImageFormat | None = None
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """The JSON body of an answer, and the overlay if a picture was asked for."""

    body: dict[str, Any]
    picture: bytes | None = None


@dataclass(frozen=True, slots=True)
class _Input:
    """A decoded image: the network's input and, only where an overlay will need it, the original."""

    pixels: UInt8
    geometry: Geometry
    original: UInt8 | None
    decode_seconds: float
    preprocess_seconds: float


class Pipeline:
    """Decodes, asks a model, renders."""

    def __init__(self, settings: Settings, metrics: Metrics, budget: MemoryBudget) -> None:
        self._settings = settings
        self._metrics = metrics
        self._budget = budget
        cv2.setNumThreads(1)  # the workers are the parallelism; OpenCV's own threads only add hand-overs
        self._workers = ThreadPoolExecutor(settings.workers, thread_name_prefix="images")
        self._stages = {
            stage: metrics.stage.labels(stage=stage) for stage in ("decode", "preprocess", "render")
        }

    def close(self) -> None:
        """End the threads."""
        self._workers.shutdown(wait=True, cancel_futures=True)

    async def answer(self, model: Model, question: Question) -> Answered:
        """One image, one answer; counts how it ended.

        Raises:
            KonkyoError: whatever ``konkyo.errors`` names on the way of the data.
        """
        kind: Kind = "explain" if isinstance(question.options, ExplainOptions) else "predict"
        with self._metrics.counting(model.labels, kind):
            answered = await self._answer(model, question, kind)
        shed = kind == "explain" and answered.body["explanation"]["status"] == "shed"
        self._metrics.count(model.labels, kind, "shed" if shed else "success")
        return answered

    async def _answer(self, model: Model, question: Question, kind: Kind) -> Answered:
        started = time.perf_counter()
        options = question.options
        batcher = model.batcher(kind)
        targets = _targets(model, options)

        opened = open_image(question.data, max_pixels=self._settings.max_pixels)
        pixels = opened.width * opened.height
        self._metrics.input_bytes.observe(len(question.data))
        self._metrics.input_pixels.observe(pixels)
        area = self._area(model, options, pixels)
        drawing = area * (PICTURE_BYTES + 3 * len(targets)) if targets else 0
        with self._budget.hold(3 * pixels + drawing):  # all at once: refused before anything is done
            seen = await self._offload(pixels, _decode, model, opened, _needs_original(question))
            decoded = time.perf_counter()

            shed = False
            try:
                answer = await batcher.submit(seen.pixels, targets, deadline=question.deadline)
            except QueueFull:
                if kind == "predict" or not self._settings.shed or question.picture:
                    raise
                shed = True
                answer = await model.batcher("predict").submit(seen.pixels, deadline=question.deadline)
            computed = time.perf_counter()

            body = self._describe(model, question, answer, seen.geometry)
            picture = None
            if shed:
                body["explanation"] = {
                    "method": model.bundle.card.explanation.method,
                    "status": "shed",
                    "target": None,
                }
            elif isinstance(options, ExplainOptions):
                body["explanation"], picture = await self._offload(
                    area * len(targets), self._explain, model, question, options, targets, answer, seen
                )
                body["geometry"]["map"] = answer.maps.shape[:0:-1]
                body["geometry"]["map_to_original"] = seen.geometry.to_original(body["geometry"]["map"])
        done = time.perf_counter()

        self._metrics.queue_seconds.labels(**model.labels, kind="predict" if shed else kind).observe(
            answer.queue_seconds
        )
        self._stages["decode"].observe(seen.decode_seconds)
        self._stages["preprocess"].observe(seen.preprocess_seconds)
        self._stages["render"].observe(done - computed)
        body["timing_ms"] = {
            "decode": (decoded - started) * 1e3,
            "queue": answer.queue_seconds * 1e3,
            "forward": answer.forward_seconds * 1e3,
            "explain": 0.0,  # the map comes out of the forward pass
            "render": (done - computed) * 1e3,
            "total": (done - started) * 1e3,
        }
        return Answered(body, picture)

    def _area(self, model: Model, options: PredictOptions, pixels: int) -> int:
        """Pixels of each picture, and so the work and the memory of drawing it."""
        spec = model.bundle.card.input
        original = isinstance(options, ExplainOptions) and options.frame == "original"
        return max(spec.width * spec.height, min(pixels, self._settings.max_render_pixels) if original else 0)

    async def _offload(self, pixels: int, work: Callable[..., T], *arguments: Any) -> T:
        if pixels <= INLINE_PIXELS:
            return work(*arguments)
        return await asyncio.get_running_loop().run_in_executor(self._workers, work, *arguments)

    def _describe(
        self, model: Model, question: Question, answer: Answer, geometry: Geometry
    ) -> dict[str, Any]:
        card = model.bundle.card
        scores = _softmax(answer.logits)
        order = np.argsort(-answer.logits, kind="stable")[: question.options.top_k].tolist()
        top = [
            {
                "label": card.labels[index],
                "index": index,
                "score": float(scores[index]),
                "logit": float(answer.logits[index]),
            }
            for index in order
        ]
        best = top[0]
        self._metrics.prediction_score.labels(**model.labels).observe(best["score"])
        self._metrics.predictions.labels(**model.labels, label=best["label"]).inc()
        return {
            "id": question.id,
            "model": {"name": model.name, "version": model.version, "digest": model.bundle.digest},
            "label": best["label"],
            "index": best["index"],
            "score": best["score"],
            "top_k": top,
            "geometry": {
                "original": geometry.original,
                "orientation": geometry.orientation,
                "crop": geometry.crop,
                "input": geometry.input,
                "map": None,
                "map_to_original": None,
            },
            "batch_size": answer.batch_size,
        }

    def _explain(
        self,
        model: Model,
        question: Question,
        options: ExplainOptions,
        targets: tuple[int, ...],
        answer: Answer,
        seen: _Input,
    ) -> tuple[dict[str, Any], bytes | None]:
        card = model.bundle.card
        predicted = int(answer.logits.argmax())
        resolved = [predicted if target < 0 else target for target in targets]
        limit = self._settings.max_render_pixels
        maps: list[dict[str, Any]] = []
        pictures: list[UInt8] = []
        for index, map_ in zip(resolved, answer.maps, strict=True):
            state = rendering.status(map_)
            if state != "ok":
                self._metrics.degenerate_maps.labels(method=card.explanation.method, reason=state).inc()
            self._metrics.map_entropy.labels(**model.labels).observe(rendering.entropy(map_))
            shown = _Shown(options, seen, map_, card.explanation.map_kind == "class_weight_map")
            entry: dict[str, Any] = {"status": state, "target": {"label": card.labels[index], "index": index}}
            if question.picture:
                pictures.append(shown.draw(options.overlay or shown.natural_overlay, limit))
            else:
                entry["map"] = shown.map(limit)
                entry["regions"] = shown.regions()
                if options.overlay not in (None, "none"):
                    entry["overlay"] = _overlay_body(shown.draw(options.overlay, limit))
            maps.append(entry)
        explanation = {"method": card.explanation.method, **maps[0]}
        if len(maps) > 1:
            explanation["maps"] = maps
        if question.picture:
            return explanation, rendering.encode_image(np.concatenate(pictures), question.picture)
        return explanation, None


def _overlay_body(picture: UInt8) -> dict[str, Any]:
    height, width = picture.shape[:2]
    data = base64.b64encode(rendering.encode_image(picture)).decode()
    return {"media_type": "image/png", "width": width, "height": height, "data": data}


@dataclass(frozen=True, slots=True)
class _Shown:
    """One map with what is needed to show it; ``weights`` for a class weight map."""

    options: ExplainOptions
    seen: _Input
    raw: Float32
    weights: bool

    @property
    def natural_overlay(self) -> rendering.Overlay:
        return "spotlight" if self.weights else "blend"

    def map(self, max_pixels: int) -> dict[str, Any] | None:
        if self.options.map == "none":
            return None
        if self.options.map == "float32":
            return rendering.encode_float32_map(self.raw)
        return rendering.encode_png_map(self.raw, self._frame(max_pixels))

    def regions(self) -> list[dict[str, Any]]:
        """Of the contribution for weight maps: a large weight on a black pixel contributes nothing."""
        grounds = rendering.contribution(self.raw, self.seen.pixels) if self.weights else self.raw
        geometry = self.seen.geometry if self.options.frame == "original" else self.seen.geometry.of_input()
        return rendering.regions(grounds, self.options.regions, geometry.to_original(self.raw.shape[::-1]))

    def draw(self, overlay: rendering.Overlay, max_pixels: int) -> UInt8:
        frame, options = self._frame(max_pixels), self.options
        image = self.seen.pixels if self.seen.original is None else self.seen.original
        if overlay == "spotlight":
            return rendering.spotlight(self.raw, image, frame, options.part)
        if overlay == "blend":
            return rendering.blend(self.raw, image, frame, options.part, options.colormap, options.alpha)
        return rendering.contour(self.raw, image, frame, options.part, options.regions)

    def _frame(self, max_pixels: int) -> rendering.Frame:
        if self.options.frame == "input":
            return rendering.input_frame(self.seen.geometry)
        return rendering.original_frame(self.seen.geometry, max_pixels=max_pixels)


def _decode(model: Model, opened: Image.Image, keep_original: bool) -> _Input:
    started = time.perf_counter()
    image = decode(opened)
    decoded = time.perf_counter()
    pixels, geometry = model.prepare(image)
    prepared = time.perf_counter()
    original = np.asarray(image.image) if keep_original else None
    return _Input(pixels, geometry, original, decoded - started, prepared - decoded)


def _needs_original(question: Question) -> bool:
    options = question.options
    if not isinstance(options, ExplainOptions) or options.frame != "original":
        return False
    return question.picture is not None or options.overlay not in (None, "none")


def _targets(model: Model, options: PredictOptions) -> tuple[int, ...]:
    """Class indices to explain; −1 is the predicted class.

    Raises:
        UnsupportedMethod: the model cannot be explained so.
        InvalidParameter: ``target`` and ``targets`` together, or an empty list.
        UnknownClass: the model has no such class.
    """
    if not isinstance(options, ExplainOptions):
        return ()
    own = model.bundle.card.explanation.method
    if options.method not in (None, own):
        raise UnsupportedMethod(f"{model.name} cannot be explained by {options.method!r}", methods=[own])
    if options.target is not None and options.targets is not None:
        raise InvalidParameter("give target or targets, not both", parameter="targets")
    if options.targets is not None:
        if not options.targets:
            raise InvalidParameter("targets is empty", parameter="targets")
        return tuple(model.class_index(target) for target in options.targets)
    return (-1,) if options.target is None else (model.class_index(options.target),)


def _softmax(logits: Float32) -> Float32:
    shifted = np.exp(logits - logits.max())
    return np.asarray(shifted / shifted.sum(), np.float32)
