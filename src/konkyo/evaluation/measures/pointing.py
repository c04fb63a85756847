"""The pointing game: does the highest point of the map of a class lie on a thing of that class?

A hit if it lies within 15 px of the marked region, in pixels of the original image (Zhang et al., IJCV
126, 2018, section 4.1; used in Grad-CAM, section 4.3). Of each class

    Acc = hits / (hits + misses)

and the figure is the mean over the classes. As in the authors' code, a circle around the point meets the
region: a distance of exactly 15 px, between the centres of pixels, is a hit. They enlarge maps bicubically
to the original image and play there; here maps are enlarged bilinearly to the network's input, and
distances on it are taken to the scale of the original.

Where the highest value is found at several pixels, as enlarging makes of every cell at an edge, the point
is the one of them that is nearest to their centre of gravity, of several the first by rows: where in a
plateau rounding is a little higher decides nothing. A flat map points nowhere, and that is a miss.

Shape legend: n maps, h, w their grid, H, W input size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.examples import Example
from konkyo.evaluation.measures import register
from konkyo.evaluation.measures.base import Mean, Parameters, Statistic
from konkyo.evaluation.sources import Source, enlarged
from konkyo.evaluation.things import MeanOfClasses, MeasureOfThings, Things, Values, pixel_sides

Int64 = npt.NDArray[np.int64]

TOLERANCE = 15.0
_ROUNDING = 1e-6
"""Of a map's largest size: enlarging a plateau makes differences below that."""
_CLOSE = 1e-6
"""In pixels: distances on another scale are not exact."""


def highest_points(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Where each map is highest, once it is enlarged bilinearly.

    Args:
        maps: (n, h, w) floating point.
        size: H, W.

    Returns:
        (n, 2) int64 row and column; −1 where a map points nowhere: it is flat, or not finite.
    """
    whole = enlarged(maps[None].float(), size)[0].flatten(1)  # (n, H W)
    low, high = whole.aminmax(dim=1)
    slack = _ROUNDING * torch.maximum(low.abs(), high.abs())
    somewhere = high - low > slack  # which is false of what is not finite
    tied = (whole >= (high - slack)[:, None]) & somewhere[:, None]
    which, at = tied.nonzero(as_tuple=True)
    points = torch.full((len(maps), 2), -1, dtype=torch.int64)
    found, pixels = _most_central(which.cpu().numpy(), at.cpu().numpy(), size[1])
    points[torch.from_numpy(found)] = torch.from_numpy(pixels)
    return points.to(maps.device)


def _most_central(which: Int64, at: Int64, width: int) -> tuple[Int64, Int64]:
    """Of each map's tied pixels the one nearest to their mean: the maps (m,), and (m, 2) row and column."""
    pixels = np.stack([at // width, at % width], axis=1)
    found, start, index, count = np.unique(which, return_index=True, return_inverse=True, return_counts=True)
    mean = np.add.reduceat(pixels, start) / count[:, None] if len(found) else pixels
    distance = np.square(pixels - mean[index]).sum(axis=1)
    order = np.lexsort((at, distance, which))
    return found, pixels[order[start]]


def pointing_distances(maps: Tensor, masks: Tensor, pixel: Tensor | None = None) -> Tensor:
    """How far from a region the highest point of a map lies.

    Args:
        maps: (n, h, w) floating point.
        masks: (n, H, W) bool.
        pixel: (n, 2) height and width of a pixel of the mask; default 1.

    Returns:
        (n,) float64 distance between the centres of pixels, 0 inside the region; infinite where the map
        points nowhere; NaN where the mask is empty.

    Raises:
        ValueError: not as many maps as masks.
    """
    if len(maps) != len(masks):
        raise ValueError(f"{len(maps)} maps, {len(masks)} masks")
    count, height, width = masks.shape
    points = highest_points(maps, (height, width))
    sides = torch.ones(count, 2, dtype=torch.float64) if pixel is None else pixel
    sides = sides.to(points.device, torch.float64)
    rows = (torch.arange(height, device=points.device) - points[:, :1]).abs()  # (n, H)
    columns = (torch.arange(width, device=points.device) - points[:, 1:]).abs()  # (n, W)
    # Of each row of the mask its pixel nearest to the point's column, as a whole number.
    across = columns.int()[:, None].where(masks, width + 1).amin(dim=2)  # (n, H)
    inside = across <= width
    squared = (rows * sides[:, :1]).square() + (across * sides[:, 1:]).square()
    distance = squared.where(inside, torch.inf).amin(dim=1).sqrt()
    distance = distance.where(points[:, 0] >= 0, torch.inf)
    return distance.where(inside.any(dim=1), torch.nan)


def pointing_hits(
    maps: Tensor, masks: Tensor, tolerance: float = TOLERANCE, pixel: Tensor | None = None
) -> Tensor:
    """Whether the highest point of each map lies on its region, or near it.

    Args:
        maps: (n, h, w) floating point.
        masks: (n, H, W) bool.
        tolerance: largest distance that is a hit, in the unit of ``pixel``.
        pixel: see ``pointing_distances``.

    Returns:
        (n,) float64: 1 for a hit, 0 for a miss, NaN where the mask is empty.

    Raises:
        ValueError: as ``pointing_distances``.
    """
    return hits_within(pointing_distances(maps, masks, pixel), tolerance)


def hits_within(distances: Tensor, tolerance: float) -> Tensor:
    """Distances (n,) to hits (n,), see ``pointing_hits``."""
    return (distances <= tolerance + _CLOSE).double().where(~distances.isnan(), torch.nan)


class PointingParameters(Parameters):
    """Settings of the pointing game."""

    tolerance: float = Field(
        TOLERANCE, ge=0, description="largest distance that is a hit, in pixels of the original image"
    )


@register
class Pointing(MeasureOfThings):
    """Plays with every marked thing, by the map of its class."""

    name = "pointing"
    title = "Pointing game"
    reference = "Zhang et al., IJCV 2018, section 4.1; Grad-CAM, section 4.3"
    parameters = PointingParameters
    worst = "distance"

    def __init__(self, candidate: Candidate, source: Source | None, parameters: PointingParameters) -> None:
        super().__init__(candidate, source, parameters)
        self.tolerance = parameters.tolerance

    def values(self, things: Things, examples: Sequence[Example]) -> Values:
        """See ``MeasureOfThings.values``; ``distance`` is NaN where the map points nowhere."""
        distances = pointing_distances(things.maps, things.masks, pixel_sides(examples))
        return {
            "hit": hits_within(distances, self.tolerance).tolist(),
            "inside": hits_within(distances, 0).tolist(),
            "distance": distances.where(distances.isfinite(), torch.nan).tolist(),
        }

    def statistics(self) -> Sequence[Statistic]:
        """See ``Measure.statistics``."""
        within = f"within {self.tolerance:g} px"
        return (
            Statistic("accuracy", MeanOfClasses("hit"), "higher", f"hits {within}, mean of the classes"),
            Statistic("accuracy_all", Mean("hit"), "higher", f"hits {within}, of all things"),
            Statistic("inside", MeanOfClasses("inside"), "higher", "hits inside, mean of the classes"),
            Statistic("inside_all", Mean("inside"), "higher", "hits inside, of all things"),
            Statistic("distance", Mean("distance"), "lower", "pixels to the region, where a map points"),
        )
