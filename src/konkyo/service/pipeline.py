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
from konkyo.models.card import ExplanationSpec, ModelCard
from konkyo.service import rendering
from konkyo.service.batcher import Answer, Batcher
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
        attention: an edit (h', w') of the map, from 0 to 1, negative where the network's own value stays.
        deadline: in the event loop's time.
    """

    id: str
    data: bytes
    options: PredictOptions
    picture: ImageFormat | None = None
    attention: Float32 | None = None
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
        options, explanation = question.options, model.bundle.card.explanation
        batcher = model.batcher(kind)
        targets = _targets(model, options)
        if question.attention is not None and not explanation.takes_attention:
            raise InvalidParameter(
                f"the map of {model.name} cannot be edited: its method is {explanation.method}",
                parameter="attention",
            )

        opened = open_image(question.data, max_pixels=self._settings.max_pixels)
        pixels = opened.width * opened.height
        self._metrics.input_bytes.observe(len(question.data))
        self._metrics.input_pixels.observe(pixels)
        area = self._area(model, options, pixels)
        maps = len(targets) if explanation.class_specific else explanation.scales
        drawing = area * (PICTURE_BYTES + 3 * maps) if targets else 0
        with self._budget.hold(3 * pixels + drawing):  # all at once: refused before anything is done
            seen = await self._offload(pixels, _decode, model, opened, _needs_original(question))
            decoded = time.perf_counter()

            shed = False
            try:
                answers = await _submit(batcher, seen.pixels, targets, question)
            except QueueFull:
                if kind == "predict" or not self._settings.shed or question.picture:
                    raise
                shed = True
                answers = await _submit(model.batcher("predict"), seen.pixels, (), question)
            computed = time.perf_counter()

            answer = answers[0]
            body = self._describe(model, question, answer, seen.geometry)
            parts = [body]
            if len(answers) > 1 and not question.picture:
                body["original"] = _classify(model.bundle.card, answers[1], options.top_k)
                parts.append(body["original"])
            self._observe(model, answers[-1])
            picture = None
            for part, given in zip(parts, answers, strict=False):
                if shed:
                    part["explanation"] = {"method": explanation.method, "status": "shed", "target": None}
                elif isinstance(options, ExplainOptions):
                    own = given is answers[-1]
                    work = self._explain, model, question, options, targets, given, seen, own
                    part["explanation"], drawn = await self._offload(area * maps, *work)
                    picture = picture or drawn
            if targets and not shed:
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
        return {
            "id": question.id,
            "model": {"name": model.name, "version": model.version, "digest": model.bundle.digest},
            **_classify(model.bundle.card, answer, question.options.top_k),
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

    def _observe(self, model: Model, own: Answer) -> None:
        """Watch what the network makes of the data; a caller's edit is no part of that."""
        label = model.bundle.card.labels[int(own.logits.argmax())]
        self._metrics.prediction_score.labels(**model.labels).observe(float(_softmax(own.logits).max()))
        self._metrics.predictions.labels(**model.labels, label=label).inc()

    def _observe_map(self, model: Model, map_: Float32, state: rendering.Status) -> None:
        method = model.bundle.card.explanation.method
        if state != "ok":
            self._metrics.degenerate_maps.labels(method=method, reason=state).inc()
        self._metrics.map_entropy.labels(**model.labels).observe(rendering.entropy(map_))

    def _explain(
        self,
        model: Model,
        question: Question,
        options: ExplainOptions,
        targets: tuple[int, ...],
        answer: Answer,
        seen: _Input,
        own: bool,
    ) -> tuple[dict[str, Any], bytes | None]:
        """The explanation and its picture; ``own``: no caller has edited the maps."""
        card = model.bundle.card
        limit = self._settings.max_render_pixels
        maps: list[dict[str, Any]] = []
        pictures: list[UInt8] = []
        for place, map_ in zip(_places(card, targets, answer), answer.maps, strict=True):
            state = rendering.status(map_)
            if own:
                self._observe_map(model, map_, state)
            shown = _Shown(options, seen, map_, card.explanation)
            entry: dict[str, Any] = {"status": state, **place}
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
    """One map with what is needed to show it."""

    options: ExplainOptions
    seen: _Input
    raw: Float32
    spec: ExplanationSpec

    @property
    def weights(self) -> bool:
        return self.spec.map_kind == "class_weight_map"

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
        map_, strongest = self.raw, None
        if self.spec.map_kind == "attention_map":
            map_, strongest = rendering.normalised(self.raw, self.spec.range), 1.0
        if overlay == "spotlight":
            return rendering.spotlight(map_, image, frame, options.part, strongest)
        if overlay == "blend":
            return rendering.blend(
                map_, image, frame, options.part, options.colormap, options.alpha, strongest
            )
        return rendering.contour(map_, image, frame, options.part, options.regions, strongest)

    def _frame(self, max_pixels: int) -> rendering.Frame:
        if self.options.frame == "input":
            return rendering.input_frame(self.seen.geometry)
        return rendering.original_frame(self.seen.geometry, max_pixels=max_pixels)


async def _submit(
    batcher: Batcher, pixels: UInt8, targets: tuple[int, ...], question: Question
) -> list[Answer]:
    """The answer; with a caller's edit a second, the one without it.

    Both wait together, and so normally share a batch.

    Raises:
        KonkyoError: of the first that fails; the other is given up.
    """
    if question.attention is None:
        return [await batcher.submit(pixels, targets, deadline=question.deadline)]
    tasks = [
        asyncio.create_task(batcher.submit(pixels, targets, attention=edit, deadline=question.deadline))
        for edit in (question.attention, None)
    ]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


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
        InvalidParameter: ``target`` and ``targets`` together, an empty list, or either where the map
            is the same for every class.
        UnknownClass: the model has no such class.
    """
    if not isinstance(options, ExplainOptions):
        return ()
    own = model.bundle.card.explanation.method
    if options.method not in (None, own):
        raise UnsupportedMethod(f"{model.name} cannot be explained by {options.method!r}", methods=[own])
    given = [name for name in ("target", "targets") if getattr(options, name) is not None]
    if given and not model.bundle.card.explanation.class_specific:
        raise InvalidParameter(
            f"the map of {model.name} is the same for every class; leave {given[0]} out", parameter=given[0]
        )
    if len(given) == 2:
        raise InvalidParameter("give target or targets, not both", parameter="targets")
    if options.targets is not None:
        if not options.targets:
            raise InvalidParameter("targets is empty", parameter="targets")
        return tuple(model.class_index(target) for target in options.targets)
    return (-1,) if options.target is None else (model.class_index(options.target),)


def _places(card: ModelCard, targets: tuple[int, ...], answer: Answer) -> list[dict[str, Any]]:
    """What each map of an answer is of: a class, or all of them, at a scale if there are several."""
    if card.explanation.class_specific:
        predicted = int(answer.logits.argmax())
        resolved = [predicted if target < 0 else target for target in targets]
        return [{"target": {"label": card.labels[index], "index": index}} for index in resolved]
    scales = card.explanation.scales
    return [{"target": None, "scale": scale} for scale in range(scales)] if scales > 1 else [{"target": None}]


def _classify(card: ModelCard, answer: Answer, top_k: int) -> dict[str, Any]:
    """The class, its score, and the best ``top_k``."""
    scores = _softmax(answer.logits)
    order = np.argsort(-answer.logits, kind="stable")[:top_k].tolist()
    top = [
        {
            "label": card.labels[index],
            "index": index,
            "score": float(scores[index]),
            "logit": float(answer.logits[index]),
        }
        for index in order
    ]
    return {**{key: top[0][key] for key in ("label", "index", "score")}, "top_k": top}


def _softmax(logits: Float32) -> Float32:
    shifted = np.exp(logits - logits.max())
    return np.asarray(shifted / shifted.sum(), np.float32)
