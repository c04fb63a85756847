"""Stability of a map whatever else is in the batch: alone, and among other images.

A map should depend on its image alone. The image is explained alone, and once more at another place
among strangers, the negatives of the images; both are compared with the map of the batch in which it was
measured. What is left is the rounding of the runtime, which may order its sums by the size of a batch.

Shape legend: B images.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from konkyo.evaluation.measures import register
from konkyo.evaluation.stability import Again, Stability


@register
class StabilityBatch(Stability):
    """How far maps change with the rest of the batch.

    Raises:
        Unsuited: no maps, or those of a baseline.
    """

    name = "stability_batch"
    title = "Stability under other batches"
    reference = "none: what happens in a server"
    asks_model = True

    def again(self, pixels: Tensor, targets: Tensor, maps: Tensor) -> Iterator[Again]:
        """See ``Stability.again``."""
        count = len(pixels)
        singles = [(pixels[place, None], targets[place, None]) for place in range(count)]
        alone = torch.cat([self._source.maps(self.candidate, *single) for single in singles])
        logits = torch.cat([self.candidate.logits(image) for image, _ in singles])
        yield Again(maps[:, 0], alone[:, 0], logits)
        among = torch.cat([255 - pixels, pixels])
        again = self._source.maps(self.candidate, among, torch.cat([targets, targets]))
        yield Again(maps[:, 0], again[count:, 0], self.candidate.logits(among)[count:])
