"""The body of an answer: classes and scores, and maps with what is made of them.

Nothing here waits or computes a map.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from konkyo import rendering
from konkyo.errors import InferenceFailed
from konkyo.imaging import Geometry, UInt8
from konkyo.models.card import ModelCard
from konkyo.models.neurons import NeuronImportance, Neurons, explain_in_text, in_words
from konkyo.service.batcher import Answer
from konkyo.service.engines.base import Float32
from konkyo.service.methods import Method
from konkyo.service.model import Model
from konkyo.service.question import Plan, Question
from konkyo.service.schemas import ExplainOptions

ObserveMap = Callable[[Float32, rendering.Status], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image ready to be asked about: the network's input and, only where an overlay will need it, the
    original.

    ``started`` and ``decoded`` are times of ``time.perf_counter``: when it came and when it was ready.
    """

    pixels: UInt8
    geometry: Geometry
    original: UInt8 | None
    started: float
    decoded: float
    decode_seconds: float
    preprocess_seconds: float


def describe(model: Model, question: Question, plan: Plan, answer: Answer, seen: Prepared) -> dict[str, Any]:
    """All of a body but explanation and times."""
    geometry, card = seen.geometry, model.bundle.card
    drawn = plan.method is not None and plan.method.draws and not plan.shed
    grid = answer.maps.shape[:0:-1] if drawn else None
    body = {
        "id": question.id,
        "model": {"name": model.name, "version": model.version, "digest": model.bundle.digest},
        **classify(card, answer, question.options.top_k),
        "geometry": {
            "original": geometry.original,
            "orientation": geometry.orientation,
            "crop": geometry.crop,
            "input": geometry.input,
            "map": grid,
            "map_to_original": grid and geometry.to_original(grid),
        },
        "batch_size": answer.batch_size,
    }
    if plan.truth is not None:
        body["truth"] = {
            "label": card.labels[plan.truth],
            "index": plan.truth,
            "score": float(softmax(answer.logits)[plan.truth]),
            "correct": body["index"] == plan.truth,
        }
    return body


def classify(card: ModelCard, answer: Answer, top_k: int) -> dict[str, Any]:
    """The class, its score, and the best ``top_k``."""
    scores = softmax(answer.logits)
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


def softmax(logits: Float32) -> Float32:
    """Logits (N,) to scores (N,)."""
    shifted = np.exp(logits - logits.max())
    return np.asarray(shifted / shifted.sum(), np.float32)


def explain(
    model: Model,
    question: Question,
    plan: Plan,
    answer: Answer,
    seen: Prepared,
    *,
    max_pixels: int,
    observe: ObserveMap | None = None,
) -> tuple[dict[str, Any], bytes | None]:
    """The explanation and, where the question wants one, its picture.

    Args:
        max_pixels: larger pictures are scaled down to this.
        observe: sees every map.

    Raises:
        InvalidParameter: the picture is longer than its format allows.
        InferenceFailed: the names of the neurons are those of another layer.
    """
    method, options = plan.method, question.options
    assert method is not None
    assert isinstance(options, ExplainOptions)
    maps: list[dict[str, Any]] = []
    pictures: list[UInt8] = []
    places = _places(model.bundle.card, plan, answer)
    for place, map_ in zip(places, answer.maps[: len(places)], strict=True):
        state = rendering.status(map_)
        if observe is not None:
            observe(map_, state)
        shown = Shown(options, seen, map_, method)
        entry: dict[str, Any] = {"status": state, **place}
        if question.picture:
            pictures.append(shown.draw(options.overlay or shown.natural_overlay, max_pixels))
        elif not question.raw:
            entry["map"] = shown.map(max_pixels)
            entry["regions"] = shown.regions() if method.draws else []
            if options.overlay not in (None, "none"):
                entry["overlay"] = _overlay_body(shown.draw(options.overlay, max_pixels))
        if not method.draws and not question.raw:
            entry["text"] = text_of(map_, place["target"]["label"], model.neurons, options.neurons)
        maps.append(entry)
    explanation = {"method": method.name, **maps[0]}
    if len(maps) > 1 or plan.truth is not None:
        explanation["maps"] = maps
    if not question.picture:
        return explanation, None
    joined = rendering.beside(pictures) if plan.truth is not None else np.concatenate(pictures)
    return explanation, rendering.encode_image(joined, question.picture)


def text_of(importances: Float32, label: str, neurons: Neurons | None, count: int) -> dict[str, Any]:
    """The neurons that speak most for a class and against it: (1, C) -> lists, and the same in words.

    Raises:
        InferenceFailed: the names are those of another layer.
    """

    def entry(unit: NeuronImportance) -> dict[str, Any]:
        return {
            "neuron": unit.neuron,
            "name": unit.concept,
            "importance": unit.importance,
            "rank": unit.rank,
            "iou": unit.iou,
        }

    try:
        found = explain_in_text(importances[0], neurons, count)
    except ValueError as error:
        raise InferenceFailed(f"the names of the neurons do not fit: {error}") from error
    return {
        "because": [entry(unit) for unit in found.because],
        "despite": [entry(unit) for unit in found.despite],
        "words": f"{label}: {in_words(found) or 'no neuron speaks for it or against it'}",
    }


def _places(card: ModelCard, plan: Plan, answer: Answer) -> list[dict[str, Any]]:
    """What each map of an answer is of: a class, or all of them, at a scale if there are several."""
    assert plan.method is not None
    if not plan.method.class_specific:
        scales = plan.method.scales
        return (
            [{"target": None, "scale": scale} for scale in range(scales)]
            if scales > 1
            else [{"target": None}]
        )
    predicted = int(answer.logits.argmax())
    resolved = [predicted if target < 0 else target for target in plan.targets]
    places: list[dict[str, Any]] = [{"target": {"label": card.labels[i], "index": i}} for i in resolved]
    if plan.truth is None:
        return places
    named = [{"role": role, **place} for role, place in zip(("predicted", "true"), places, strict=True)]
    return named[:1] if predicted == plan.truth else named


def _overlay_body(picture: UInt8) -> dict[str, Any]:
    height, width = picture.shape[:2]
    data = base64.b64encode(rendering.encode_image(picture)).decode()
    return {"media_type": "image/png", "width": width, "height": height, "data": data}


@dataclass(frozen=True, slots=True)
class Shown:
    """One map with what is needed to show it."""

    options: ExplainOptions
    seen: Prepared
    raw: Float32
    method: Method

    @property
    def natural_overlay(self) -> rendering.Overlay:
        """What shows a map of this kind best."""
        if self.method.map_kind == "class_weight_map":
            return "spotlight"
        return "grey" if self.method.map_kind == "input_gradient" else "blend"

    def map(self, max_pixels: int) -> dict[str, Any] | None:
        """The map as it was asked for."""
        if self.options.map == "float32":
            return rendering.encode_float32_map(self.raw)
        if self.options.map == "none" or not self.method.draws:
            return None
        return rendering.encode_png_map(self.raw, self._frame(max_pixels))

    def regions(self) -> list[dict[str, Any]]:
        """Of what a person would see of the map.

        Of the contribution for weight maps: a large weight on a black pixel contributes nothing. Of
        gradients smoothed: their pixels lie apart, and what they outline is one region.
        """
        kind, grounds = self.method.map_kind, self._above_nothing()
        if kind == "class_weight_map":
            grounds = rendering.contribution(self.raw, self.seen.pixels)
        elif kind == "input_gradient":
            grounds = rendering.smoothed(self.raw, "positive")
        geometry = self.seen.geometry if self.options.frame == "original" else self.seen.geometry.of_input()
        return rendering.regions(grounds, self.options.regions, geometry.to_original(self.raw.shape[::-1]))

    def draw(self, overlay: rendering.Overlay, max_pixels: int) -> UInt8:
        """(H, W, 3) uint8, or twice as high where two parts lie one below the other."""
        frame, options = self._frame(max_pixels), self.options
        part = options.part or ("both" if overlay == "grey" else "positive")
        image = self.seen.pixels if self.seen.original is None else self.seen.original
        map_, strongest = self._above_nothing(), None
        if self.method.map_kind == "attention_map" and self.method.range is not None:
            map_, strongest = rendering.normalised(self.raw, self.method.range), 1.0
        elif self.method.map_kind == "input_gradient":
            if overlay in ("blend", "contour"):  # over an image its grains would not be seen
                map_ = rendering.smoothed(self.raw, part)
            else:
                strongest = rendering.strong(self.raw)
        if overlay == "spotlight":
            return rendering.spotlight(map_, image, frame, part, strongest)
        if overlay == "blend":
            return rendering.blend(map_, image, frame, part, options.colormap, options.alpha, strongest)
        if overlay == "grey":
            return rendering.grey(map_, frame, part, strongest)
        return rendering.contour(map_, image, frame, part, options.regions, strongest)

    def _above_nothing(self) -> Float32:
        """The map from where it means nothing.

        A pixel of RISE is the mean score of the images that show it; about the mean of the map is what
        showing any pixel gives.
        """
        if self.method.map_kind != "saliency_map" or not np.isfinite(self.raw).all():
            return self.raw
        return np.asarray(self.raw - self.raw.mean(), np.float32)

    def _frame(self, max_pixels: int) -> rendering.Frame:
        if self.options.frame == "input":
            return rendering.input_frame(self.seen.geometry)
        return rendering.original_frame(self.seen.geometry, max_pixels=max_pixels)
