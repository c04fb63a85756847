"""Which images come first: a draw that is even over the classes, so that any beginning of it is, too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def draw(truths: Sequence[int | None], seed: int) -> list[int]:
    """All positions in an order of which every beginning is even over the classes.

    Each class is shuffled; then the classes take turns, in a new order each round, until all have given
    all their images. The first N of a longer draw are thus the draw of N. Images whose class is not
    known are a class of their own.

    Args:
        truths: class index of every image, None where it is not known.
        seed: the same seed gives the same order.
    """
    generator = np.random.default_rng(seed)
    members: dict[int, list[int]] = {}
    for position, truth in enumerate(truths):
        members.setdefault(-1 if truth is None else truth, []).append(position)
    shuffled = [generator.permutation(members[label]).tolist() for label in sorted(members)]
    order: list[int] = []
    while shuffled:
        order += [shuffled[turn].pop() for turn in generator.permutation(len(shuffled))]
        shuffled = [rest for rest in shuffled if rest]
    return order
