"""Pictures of worst cases: the image, its map over it, and what is marked in it.

Shape legend: H, W the network's input, H', W' as shown, h, w the map's grid.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

from konkyo.evaluation.examples import Bool, Float64
from konkyo.evaluation.report.base import data_uri
from konkyo.evaluation.report.look import Look
from konkyo.imaging import UInt8
from konkyo.rendering import Frame, blend, encode_image, smoothed, status, strong

SMALLEST, LARGEST = 160, 256
"""The longer side as shown, in pixels: smaller inputs are enlarged by whole steps, larger ones reduced."""

EXACT = 64
"""The longer side of inputs that are kept pixel for pixel, for the browser to enlarge."""

QUALITY = 80
"""Of JPEG; drawings over photographs still show no blocks at it."""

STATUSES = {
    "flat": "The map is the same everywhere.",
    "all_negative": "Nothing in the map speaks for the class.",
    "non_finite": "The map has values that are no numbers.",
}


class Picture(NamedTuple):
    """One picture in the page.

    Attributes:
        title: ``image``, ``map`` (``map, smoothed``) or ``marked``.
        uri: all of it.
        alt: what it shows.
        width, height: in pixels.
        note: what the eye may miss in it.
    """

    title: str
    uri: str
    alt: str
    width: int
    height: int
    note: str


def draw(look: Look) -> list[Picture]:
    """The pictures of a case: two or three of one size."""
    image = shown(look.pixels)
    of = f" for {look.explained}" if look.explained else ""
    pictures = [_picture("image", image, f"{look.file} as the model saw it")]
    if max(look.pixels.shape[:2]) <= EXACT:
        exact = data_uri(encode_image(look.pixels), "image/png")
        pictures = [pictures[0]._replace(uri=exact)]
    if look.map is not None:
        note = STATUSES.get(status(look.map), "")
        title = "map, smoothed" if look.importance == "absolute" else "map"
        pictures.append(_picture(title, _over(look, image), f"The map{of} over {look.file}", note))
    if look.mask is not None and (look.mask.any() or (look.boxes is not None and len(look.boxes))):
        outlined = outline(image, look.mask, look.boxes)
        pictures.append(_picture("marked", outlined, f"What is marked in {look.file}, outlined"))
    return pictures


def shown(pixels: UInt8) -> UInt8:
    """An input at a size that a person can read: (H, W, 3) -> (H', W', 3)."""
    height, width = pixels.shape[:2]
    longest = max(height, width)
    if longest < SMALLEST:
        times = -(-SMALLEST // longest)
        return np.repeat(np.repeat(pixels, times, axis=0), times, axis=1)
    if longest <= LARGEST:
        return pixels
    size = max(1, round(width * LARGEST / longest)), max(1, round(height * LARGEST / longest))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def _over(look: Look, image: UInt8) -> UInt8:
    """What counts of the map in the colours of jet; warm and cool where both signs mean something."""
    assert look.map is not None
    height, width = image.shape[:2]
    frame = Frame((width, height), (0, 0, width, height))
    map_ = np.nan_to_num(look.map, posinf=0, neginf=0)
    if look.importance == "absolute":  # of single pixels, between which a person sees nothing
        map_ = smoothed(np.abs(map_), "positive")
    if look.signed:
        return blend(map_, image, frame, "both", "signed", 0.85, strong(map_))
    return blend(map_, image, frame, "positive", "jet", 0.5)


def outline(image: UInt8, mask: Bool, boxes: Float64 | None) -> UInt8:
    """Draw the edge of a mask, and boxes, white between black: (H', W', 3), (H, W), (n, 4) -> (H', W', 3)."""
    height, width = image.shape[:2]
    size = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    edges, _ = cv2.findContours(np.asarray(size, np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    drawing = image.copy()
    scale = np.array([width / mask.shape[1], height / mask.shape[0]] * 2)
    corners = [] if boxes is None else [np.round(box * scale).astype(int).tolist() for box in boxes]
    for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.drawContours(drawing, edges, -1, colour, thickness)
        for left, top, right, bottom in corners:
            cv2.rectangle(drawing, (left, top), (right - 1, bottom - 1), colour, thickness)
    return drawing


def _picture(title: str, image: UInt8, alt: str, note: str = "") -> Picture:
    data = encode_image(image, "jpeg", QUALITY)
    height, width = image.shape[:2]
    return Picture(title, data_uri(data, "image/jpeg"), alt, width, height, note)


def turns(lengths: list[int]) -> Iterator[tuple[int, int]]:
    """The first of every list, then the second of every one, ...: (number of the list, place in it)."""
    for place in range(max(lengths, default=0)):
        yield from ((number, place) for number, length in enumerate(lengths) if place < length)
