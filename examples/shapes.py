"""Pictures of two coloured shapes, made on the fly, with captions, questions and exact masks.

Each picture shows two things of different colour and shape on a noisy grey ground. Its caption names
the left one first, or the upper one where they lie more above than beside each other::

    a red circle left of a blue square            a green triangle above a yellow circle

so that it is a function of the picture. Four questions are asked of it, two for each thing::

    what colour is the circle                     what shape is the red one

Shape legend: n pictures, H = W = SIDE.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

COLOURS = {"red": (210, 50, 40), "green": (50, 170, 60), "blue": (50, 80, 210), "yellow": (220, 200, 50)}
SHAPES = ("circle", "square", "triangle")
ANSWERS = (*COLOURS, *SHAPES)
WORDS = (
    "<none>",
    "<start>",
    "<end>",
    *ANSWERS,
    "a",
    "left",
    "of",
    "above",
    "what",
    "colour",
    "shape",
    "is",
    "the",
    "one",
)
"""The vocabulary of captions and questions; ``<none>`` fills up what is shorter than the longest."""
NONE, START, END = range(3)

SIDE = 32
LONGEST = 9
"""Words of the longest caption, with its end."""
_RADII = 5.0, 7.0

Floats = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
UInt8 = npt.NDArray[np.uint8]


class Question(NamedTuple):
    """A question about one of the two things of a picture; ``thing`` is 0 or 1, in the caption's order."""

    text: str
    answer: str
    thing: int


@dataclass(frozen=True)
class Scenes:
    """Pictures and what can be said of them.

    Attributes:
        pixels: (n, H, W, 3) uint8.
        masks: (n, 2, H, W) uint8, 1 inside the thing that is named first, or second.
        captions: one a picture.
        questions: four a picture.
    """

    pixels: UInt8
    masks: UInt8
    captions: tuple[str, ...]
    questions: tuple[tuple[Question, ...], ...]


def draw_scenes(count: int, seed: int = 0) -> Scenes:
    """Draw pictures; the same seed gives the same ones."""
    generator = np.random.default_rng(seed)
    colours = generator.permuted(np.tile(np.arange(len(COLOURS)), (count, 1)), axis=1)[:, :2]
    shapes = generator.permuted(np.tile(np.arange(len(SHAPES)), (count, 1)), axis=1)[:, :2]
    radii = generator.uniform(*_RADII, (count, 2)).astype(np.float32)
    centres = _apart(radii, generator)  # (n, 2, 2): x, y
    masks = _inside(shapes, centres, radii)
    pixels = 12 * generator.standard_normal((count, SIDE, SIDE, 3), np.float32)
    pixels += generator.uniform(90, 160, (count, 1, 1, 1))
    for thing in range(2):
        paint = np.array(list(COLOURS.values()))[colours[:, thing]] + generator.normal(0, 10, (count, 3))
        picture, y, x = masks[:, thing].nonzero()
        pixels[picture, y, x] = paint[picture]
    captions, questions = [], []
    for index in range(count):
        names = [
            (list(COLOURS)[colour], SHAPES[shape])
            for colour, shape in zip(colours[index], shapes[index], strict=True)
        ]
        across, down = np.abs(centres[index, 1] - centres[index, 0])
        (one, first), (other, second) = names
        captions.append(f"a {one} {first} {'left of' if across >= down else 'above'} a {other} {second}")
        questions.append(
            tuple(
                question
                for thing, (colour, shape) in enumerate(names)
                for question in (
                    Question(f"what colour is the {shape}", colour, thing),
                    Question(f"what shape is the {colour} one", shape, thing),
                )
            )
        )
    return Scenes(pixels.round().clip(0, 255).astype(np.uint8), masks, tuple(captions), tuple(questions))


def things_named(caption: str) -> tuple[int | None, ...]:
    """Of each word of a caption, which thing it names: 0, 1, or none, as ``a`` and ``left``."""
    things: list[int | None] = []
    articles = 0
    for word in caption.split():
        articles += word == "a"
        things.append(articles - 1 if word in ANSWERS else None)
    return tuple(things)


def encode(texts: Sequence[str], length: int) -> Int64:
    """Texts as positions in ``WORDS``, filled up with ``NONE``: (n, length)."""
    encoded = np.full((len(texts), length), NONE, np.int64)
    for row, text in zip(encoded, texts, strict=True):
        positions = [WORDS.index(word) for word in text.split()]
        row[: len(positions)] = positions
    return encoded


def _apart(radii: Floats, generator: np.random.Generator) -> Floats:
    """Centres (n, 2, 2) of things that do not touch, the first left of the second, or above it."""
    centres = np.empty((len(radii), 2, 2), np.float32)
    waiting = np.arange(len(radii))
    while len(waiting):
        edge = np.repeat(radii[waiting][..., None] + 1, 2, axis=2)
        drawn = generator.uniform(edge, SIDE - edge)
        step = drawn[:, 1] - drawn[:, 0]  # (n, 2)
        further, nearer = np.abs(step).max(axis=1), np.abs(step).min(axis=1)
        clear = further > radii[waiting].sum(axis=1) + 2
        clear &= further > nearer + 5  # neither beside nor above is in doubt
        clear &= step.max(axis=1) == further  # in this order
        centres[waiting[clear]] = drawn[clear]
        waiting = waiting[~clear]
    return centres


def _inside(shapes: Int64, centres: Floats, radii: Floats) -> UInt8:
    """Where things of a shape, a centre (..., 2) and a radius (...) are: (..., H, W), 0 or 1."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32) + 0.5
    right = (x - centres[..., 0, None, None]) / radii[..., None, None]
    down = (y - centres[..., 1, None, None]) / radii[..., None, None]
    circle = np.hypot(right, down) <= 1
    square = np.maximum(np.abs(right), np.abs(down)) <= 0.85
    triangle = (down <= 0.9) & (2 * np.abs(right) <= down + 1)
    choices = [(shapes == kind)[..., None, None] for kind in range(len(SHAPES))]
    inside: UInt8 = np.select(choices, [circle, square, triangle]).astype(np.uint8)
    return inside
