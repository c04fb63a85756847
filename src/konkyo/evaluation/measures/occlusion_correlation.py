"""Rank correlation of a map with the occlusion map of the same class.

From Grad-CAM (Selvaraju et al., ICCV 2017, section 5.3): a faithful map is high where covering the image
lowers the score. Spearman's correlation over the places of each image, averaged over the images.

The occlusion map is ours (``perturbation/occlusion.py``), signed: where covering raises the score it is
negative. The paper shows maps without their negative part, so what counts of a map is ``important``;
``correlation_signed`` takes it as it is. The paper does not say on which grid: here on the input, to
which maps are enlarged bilinearly, so that methods with coarse and with fine maps compare;
``grid=coarser`` brings the occlusion map to the grid of the map instead, by the mean over its cells.

Shape legend: B images, h, w grid of the maps, H, W input size.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.examples import Batch
from konkyo.evaluation.measures import register
from konkyo.evaluation.measures.base import Mean, Measure, Missing, Parameters, Record, Statistic, Unsuited
from konkyo.evaluation.similarity import rank_correlation
from konkyo.evaluation.sources import PerturbationSource, Source, enlarged
from konkyo.models.attention import area_resample
from konkyo.perturbation.occlusion import OcclusionParameters, square

KEPT = 2**28
"""Bytes of occlusion maps that are kept for one model: 1,300 maps of 224x224."""


class OcclusionCorrelationParameters(OcclusionParameters, Parameters):
    """Parameters of ``OcclusionCorrelation``: those of occlusion, and the grid."""

    grid: Literal["input", "coarser"] = Field(
        default="input", description="where the two maps are compared: on the input, or on the coarser grid"
    )


class OcclusionMaps:
    """Occlusion maps of one model, each made once, the latest of them kept.

    Maps of several methods are compared with the same occlusion map, which costs hundreds of predictions.

    Args:
        kept: bytes of maps.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._maps: OrderedDict[tuple[object, ...], Tensor] = OrderedDict()
        self._bytes = 0
        self._kept = kept

    def get(
        self, candidate: Candidate, pixels: Tensor, targets: Tensor, parameters: OcclusionParameters
    ) -> Tensor:
        """Of one class of each image: (B, H, W, 3) uint8, (B,) -> (B, H, W) float32 on the CPU."""
        settings = {name: getattr(parameters, name) for name in OcclusionParameters.model_fields}
        source = PerturbationSource("occlusion", **settings)
        found = []
        for image, target in zip(pixels, targets, strict=True):
            digest = hashlib.blake2b(image.cpu().numpy().tobytes()).digest()
            key = (digest, int(target), *settings.values())
            if key not in self._maps:
                self._add(key, source.maps(candidate, image[None], target.view(1, 1))[0, 0].cpu())
            self._maps.move_to_end(key)
            found.append(self._maps[key])
        return torch.stack(found)

    def _add(self, key: tuple[object, ...], map_: Tensor) -> None:
        self._maps[key] = map_
        self._bytes += map_.nbytes
        while self._bytes > self._kept and len(self._maps) > 1:
            _, oldest = self._maps.popitem(last=False)
            self._bytes -= oldest.nbytes


@register
class OcclusionCorrelation(Measure):
    """Rank correlation with the occlusion map of the predicted class.

    Raises:
        Unsuited: no maps, or occlusion maps.
        InvalidParameter: the patch does not fit the input.
    """

    name = "occlusion_correlation"
    title = "Rank correlation with occlusion"
    reference = "Grad-CAM, Selvaraju et al., ICCV 2017, section 5.3"
    wants = "predicted"
    parameters = OcclusionCorrelationParameters
    worst = "correlation"

    def __init__(self, candidate: Candidate, source: Source | None, parameters: Parameters) -> None:
        super().__init__(candidate, source, parameters)
        assert isinstance(parameters, OcclusionCorrelationParameters)
        if source is None:
            raise Unsuited("it compares maps")
        if isinstance(source, PerturbationSource) and source.name == "occlusion":
            raise Unsuited("occlusion would be compared with itself")
        self._patch, self._stride = square(candidate.size, parameters)
        self._source = source
        self._parameters = parameters
        self._occlusion = candidate.once("occlusion maps", OcclusionMaps)

    def records(self, batch: Batch, targets: Tensor, maps: Tensor) -> Sequence[Record]:
        """See ``Measure.records``."""
        drops = self._occlusion.get(self.candidate, batch.pixels, targets[:, 0], self._parameters)
        columns = {
            "correlation": rank_correlation(*self._on_one_grid(self._source.important(maps), drops)),
            "correlation_signed": rank_correlation(*self._on_one_grid(maps, drops)),
        }
        return [
            Record(place, {name: float(values[place]) for name, values in columns.items()})
            for place in range(len(batch))
        ]

    def _on_one_grid(self, maps: Tensor, drops: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, h, w) and (B, H, W) -> two of one shape, on the CPU."""
        if self._parameters.grid == "input":
            return enlarged(maps, self.candidate.size)[:, 0].cpu(), drops
        size = min(maps.shape[2], drops.shape[1]), min(maps.shape[3], drops.shape[2])
        return area_resample(maps[:, 0].cpu(), size), area_resample(drops, size)

    def statistics(self) -> Sequence[Statistic]:
        """See ``Measure.statistics``."""
        return (
            Statistic(
                "correlation", Mean("correlation"), "higher", "rank correlation of what counts of the map"
            ),
            Statistic(
                "correlation_signed",
                Mean("correlation_signed"),
                "higher",
                "rank correlation of the map with its negative part",
            ),
            Statistic(
                "without_order",
                Missing("correlation"),
                "lower",
                "share of images without a correlation: one of the two maps is constant",
            ),
        )

    def settled(self) -> Mapping[str, Any]:
        """See ``Measure.settled``: the side of the square and its steps, for this input."""
        return {"patch": self._patch, "stride": self._stride}
