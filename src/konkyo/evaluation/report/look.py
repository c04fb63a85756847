"""What a worst case looks like: all that its pictures are drawn from.

Shape legend: H, W the network's input, h, w the map's grid, n boxes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from konkyo.evaluation.examples import Bool, Float64
from konkyo.evaluation.results import MeasureResult, WorstCase
from konkyo.evaluation.sources import Importance
from konkyo.imaging import UInt8
from konkyo.perturbation.base import Float32


class Look(NamedTuple):
    """An image as a model saw it, and its map.

    Attributes:
        pixels: (H, W, 3) uint8 at the network's input.
        file: name of the image, as in the data.
        predicted: label of the predicted class.
        probability: of the predicted class, in [0, 1].
        truth: label of the true class, None where it is not known.
        map: (h, w) float32, raw and signed; None for a measure without maps.
        explained: label of the class of the map; None for a map of no class.
        importance: of the source: which part of the map counts.
        signed: whether its negative part means as much as the other, and is drawn as well.
        mask: (H, W) bool, what is marked; None where nothing was.
        boxes: (n, 4) left, top, right, bottom in pixels of the input; None where there are none.
    """

    pixels: UInt8
    file: str
    predicted: str
    probability: float
    truth: str | None = None
    map: Float32 | None = None
    explained: str | None = None
    importance: Importance = "positive"
    signed: bool = False
    mask: Bool | None = None
    boxes: Float64 | None = None


Looking = Callable[[MeasureResult, WorstCase], Look | None]
"""How to look at a worst case again; None: it cannot be shown."""
