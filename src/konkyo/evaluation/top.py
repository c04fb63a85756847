"""Where the top of many values begins: exact, from any number of them, in the memory of the top.

Shape legend: C units, n values of each.
"""

from __future__ import annotations

import torch
from torch import Tensor

_ROUNDING = 1e-6
"""Of a unit's range: an enlarged plateau may come out that much lower."""


class Top:
    """The largest values of each unit out of any number, and where their top begins.

    Args:
        count: values of each that may lie over its level.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._kept: list[Tensor] = []
        self._lowest: Tensor | None = None

    def add(self, values: Tensor) -> None:
        """More values (C, n)."""
        lowest = values.amin(dim=1)
        self._lowest = lowest if self._lowest is None else torch.minimum(self._lowest, lowest)
        self._kept.append(self._largest(values))
        if sum(part.shape[1] for part in self._kept[1:]) > self._count:  # seldom, where much is kept
            self._merge()

    def levels(self) -> Tensor:
        """(C,): a unit is active where it is not below its level.

        The level is the smallest seen value with at most ``count`` over it, but always over the lowest
        value of all: a unit that is mostly at its lowest, as ReLU leaves it, is active where it rises from
        there, and one that never does is active nowhere.
        """
        assert self._lowest is not None, "no values"
        self._merge()
        highest, level = self._kept[0][:, 0], self._kept[0][:, -1]
        slack = _ROUNDING * (highest - self._lowest)
        level = torch.maximum(level - slack, self._lowest + slack)
        return torch.where(highest > self._lowest, level, torch.inf)

    def _largest(self, values: Tensor) -> Tensor:
        return values.topk(min(self._count + 1, values.shape[1]), dim=1).values

    def _merge(self) -> None:
        self._kept = [self._largest(torch.cat(self._kept, dim=1))]
