"""Which images an expert should be asked about first (multi-scale ABN with expert knowledge).

The paper's finding: chosen by map error, an expert's maps for 30 % of the images are enough for both
the accuracy and the attention; chosen by confidence, 30 % for the accuracy but 70 % for the attention.
The map error needs the expert's maps beforehand, so it answers how many are enough; confidence needs
no more than the network.

Shape legend: n images, N classes.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from konkyo.training.data import Int64
from konkyo.training.errors import TrainingError


def by_confidence(probabilities: npt.NDArray[np.floating]) -> Int64:
    """Order of the images, the least confident first.

    Args:
        probabilities: (n, N); the confidence is that of the predicted class, right or wrong.

    Returns:
        (n,) positions; images of equal confidence keep their order.
    """
    order: Int64 = probabilities.max(axis=1).argsort(kind="stable")
    return order


def by_map_error(errors: npt.NDArray[np.floating]) -> Int64:
    """Order of the images, the one whose attention map is farthest from the expert's first.

    Args:
        errors: mean squared error of each map (n,), as ``evaluation.attention.map_error``.

    Returns:
        (n,) positions; images of equal error keep their order.
    """
    order: Int64 = (-errors).argsort(kind="stable")
    return order


def select(order: Int64, share: float) -> Int64:
    """The first images of an order: ceil(share * n) of them, so never none of some.

    Args:
        order: (n,) positions.
        share: in (0, 1].

    Raises:
        TrainingError: a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise TrainingError(f"the share of the images to select lies in (0, 1], not at {share}")
    # Rounded first: 0.07 * 100 is 7.000000000000001, which would be 8 images.
    count = math.ceil(round(share * len(order), 9))
    return order[: max(count, 1)]
