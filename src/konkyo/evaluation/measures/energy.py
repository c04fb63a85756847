"""How much of the mass of a class's map lies on the things of that class.

The energy-based pointing game (Score-CAM, Wang et al., CVPR workshops 2020, section 4.3):

    energy = sum of the map inside the mask / sum of the whole map
    lift   = energy / share of the image that the mask covers

Only what counts of a signed map has mass. Maps and masks meet on the grid of the map, where a cell that a
mask covers in part counts in part: see ``evaluation.attention``, whose functions these are. A map of zeros
has no mass inside: 0, not left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from konkyo.evaluation.attention import SIZE_EDGES, defect_share, energy_inside, lift
from konkyo.evaluation.examples import Example
from konkyo.evaluation.measures import register
from konkyo.evaluation.measures.base import Mean, Statistic
from konkyo.evaluation.things import MeanOfClasses, MeasureOfThings, Things, Values


@register
class Energy(MeasureOfThings):
    """Every marked thing, by the map of its class."""

    name = "energy"
    title = "Energy inside the mask"
    reference = "Score-CAM (Wang et al., 2020), section 4.3"
    worst = "lift_all"

    def values(self, things: Things, examples: Sequence[Example]) -> Values:
        """See ``MeasureOfThings.values``; ``share`` is what a flat map has inside."""
        maps, masks = things.maps.cpu().numpy(), things.masks.cpu().numpy().astype(np.uint8)
        known = np.ones(len(things), np.bool_)
        energy, share = energy_inside(maps, masks, known), defect_share(masks, known)
        return {
            "energy": energy.tolist(),
            "lift": lift(maps, masks, known).tolist(),
            "share": share.tolist(),
            **{
                _of_size(high): np.where((share > low) & (share <= high), energy, np.nan).tolist()
                for low, high in itertools.pairwise(SIZE_EDGES)
            },
        }

    def statistics(self) -> Sequence[Statistic]:
        """See ``Measure.statistics``."""
        sizes = (
            Statistic(
                _of_size(high),
                Mean(_of_size(high)),
                "higher",
                f"mass inside, things of {100 * low:g} to {100 * high:g} % of the image",
            )
            for low, high in itertools.pairwise(SIZE_EDGES)
        )
        return (
            Statistic("energy", MeanOfClasses("energy"), "higher", "mass inside, mean of the classes"),
            Statistic("energy_all", Mean("energy"), "higher", "mass inside, of all things"),
            Statistic("lift", MeanOfClasses("lift"), "higher", "lift over a flat map, mean of the classes"),
            Statistic("lift_all", Mean("lift"), "higher", "lift over a flat map, of all things"),
            Statistic("share", Mean("share"), "neither", "share of the image that a thing covers"),
            *sizes,
        )


def _of_size(high: float) -> str:
    """Name of the figure of things up to a share of the image."""
    return f"energy_to_{100 * high:g}_percent".replace(".", "_")
