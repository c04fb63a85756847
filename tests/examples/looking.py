"""Where maps lie, of many pictures at once."""

from typing import NamedTuple

import numpy as np
import torch.nn.functional as F

from konkyo.evaluation.attention import energy_inside, lift


class Looking(NamedTuple):
    """Means over maps (n, h, w).

    Attributes:
        inside: share of the map that lies on the thing.
        lift: that over the thing's share of the picture, 1 by chance.
        other: the same of the other thing.
        pointing: share of the maps whose maximum lies on the thing.
    """

    inside: float
    lift: float
    other: float
    pointing: float


def looking(maps, masks, others):
    """Maps (n, h, w), and masks (n, H, W) of what they should lie on, and of what not."""
    known = np.ones(len(maps), bool)
    enlarged = F.interpolate(maps[:, None], size=masks.shape[1:], mode="bilinear")
    highest = enlarged.flatten(1).argmax(dim=1).numpy()
    return Looking(
        energy_inside(maps.numpy(), masks, known).mean(),
        lift(maps.numpy(), masks, known).mean(),
        lift(maps.numpy(), others, known).mean(),
        masks.reshape(len(maps), -1)[known.nonzero()[0], highest].mean(),
    )
