"""An image on its way into the network: decoded, or taken as it is; and the memory its answer takes."""

from __future__ import annotations

import time

import numpy as np
from PIL import Image

from konkyo.imaging import Geometry, UInt8, decode
from konkyo.service.answers import Prepared
from konkyo.service.model import Model
from konkyo.service.question import Plan, Question
from konkyo.service.schemas import ExplainOptions

PICTURE_BYTES = 32
"""Bytes a pixel while a picture is drawn: a map, colours and a product in float32, and the file."""

AT_INPUT_SIZE = ("class_weight_map", "input_gradient", "score_drop", "saliency_map")
"""Kinds of maps as fine as the input, which take memory before any picture is drawn."""


def decoded(model: Model, opened: Image.Image, keep_original: bool, started: float) -> Prepared:
    """Decode an opened image and bring it to the network's input.

    Raises:
        ImageError: it is damaged, or of a pixel type that is not read.
    """
    began = time.perf_counter()
    image = decode(opened)
    upright = time.perf_counter()
    pixels, geometry = model.prepare(image)
    done = time.perf_counter()
    original = np.asarray(image.image) if keep_original else None
    return Prepared(pixels, geometry, original, started, done, upright - began, done - upright)


def as_it_is(pixels: UInt8, started: float) -> Prepared:
    """Pixels (H, W, 3) that are the network's input already; there is no other original."""
    size = pixels.shape[1], pixels.shape[0]
    geometry = Geometry(size, 1, (0, 0, *size), size)
    return Prepared(pixels, geometry, None, started, time.perf_counter(), 0.0, 0.0)


def needs_original(question: Question) -> bool:
    """Whether a picture will be drawn over the original."""
    options = question.options
    if not isinstance(options, ExplainOptions) or options.frame != "original":
        return False
    return question.picture is not None or options.overlay not in (None, "none")


def drawing_bytes(model: Model, plan: Plan, area: int) -> int:
    """Bytes that the maps and their pictures take, of so many pixels each."""
    if plan.method is None:
        return 0
    spec = model.bundle.card.input
    fine = 4 * spec.width * spec.height if plan.method.map_kind in AT_INPUT_SIZE else 0
    return fine * plan.maps + area * (PICTURE_BYTES + 3 * plan.maps) * plan.method.draws


def drawing_area(model: Model, question: Question, plan: Plan, pixels: int, max_pixels: int) -> int:
    """Pixels of each picture, and so the work and the memory of drawing it.

    Args:
        pixels: of the image.
        max_pixels: larger pictures are scaled down to this.
    """
    if plan.method is None or not plan.method.draws or not plan.maps:
        return 0
    if question.raw and not question.picture:
        return 0
    spec, options = model.bundle.card.input, question.options
    original = isinstance(options, ExplainOptions) and options.frame == "original"
    return max(spec.width * spec.height, min(pixels, max_pixels) if original else 0)
