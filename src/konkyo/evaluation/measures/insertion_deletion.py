"""Insertion and deletion of RISE, by pixels (Petsiuk, Das, Saenko, BMVC 2018, section 4.1).

What is done, and how it is used as a library, is told in ``pixels_by_rank``. The form with thresholds, of
the AMB paper, is ``threshold_insertion_deletion``.

Shape legend: B batch, H, W input size, h, w grid of the maps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.examples import Batch
from konkyo.evaluation.measures import register
from konkyo.evaluation.measures.base import Curve, Mean, Measure, Parameters, Record, Statistic, Unsuited
from konkyo.evaluation.passes import for_many_passes
from konkyo.evaluation.pixels_by_rank import (
    Ties,
    area,
    blur_kernel,
    blurred,
    default_step,
    insertion_deletion,
)
from konkyo.evaluation.similarity import flat
from konkyo.evaluation.sources import Source, enlarged
from konkyo.evaluation.things import readable


class InsertionDeletionParameters(Parameters):
    """Parameters of ``InsertionDeletionByPixels``."""

    step: int | None = Field(
        default=None, ge=1, description="pixels of a step; default: a 28th of the input, 1792 of 224x224"
    )
    insertion_from: Literal["blur", "zeros"] = Field(
        default="blur", description="what pixels are inserted into: a blur of the image, or zeros"
    )
    kernel: int = Field(default=11, ge=1, le=999, description="side of the blur's kernel in pixels, odd")
    sigma: float = Field(default=5, gt=0, description="standard deviation of the blur in pixels")
    saliency: Literal["important", "signed"] = Field(
        default="important",
        description="what ranks pixels: what counts of a map for its method, as it is shown, or the raw "
        "signed map",
    )
    ties: Ties = Field(
        default="numpy",
        description="order of equal pixels: numpy, as in the authors' program, or stable, the same on every "
        "machine",
    )

    @field_validator("kernel")
    @classmethod
    def _has_a_middle(cls, kernel: int) -> int:
        blur_kernel(kernel, 1)
        return kernel


@register
class InsertionDeletionByPixels(Measure):
    """Insertion and deletion of RISE, of the predicted class.

    Raises:
        Unsuited: no maps.
    """

    name = "insertion_deletion"
    title = "Insertion and deletion"
    reference = "RISE, Petsiuk et al., BMVC 2018, section 4.1"
    wants = "predicted"
    parameters = InsertionDeletionParameters
    worst = "insertion"

    def __init__(self, candidate: Candidate, source: Source | None, parameters: Parameters) -> None:
        super().__init__(candidate, source, parameters)
        assert isinstance(parameters, InsertionDeletionParameters)
        if source is None:
            raise Unsuited("it ranks pixels by a map")
        self._source = source
        self._parameters = parameters
        self._step = parameters.step or default_step(candidate.size)
        self._quick = for_many_passes(candidate)
        self._kernel = blur_kernel(parameters.kernel, parameters.sigma)

    def records(self, batch: Batch, targets: Tensor, maps: Tensor) -> Sequence[Record]:
        """See ``Measure.records``; an image whose map is not finite has no figures."""
        saliency, finite = readable(maps[:, 0], self._source)
        if self._parameters.saliency == "signed":
            saliency = maps[:, 0].where(finite[:, None, None], 0)
        images = self._quick.classifier.normalise(batch.pixels.to(maps.device))
        scores = insertion_deletion(
            self._quick.logits_of_normalised,
            images,
            enlarged(saliency[:, None], self.candidate.size),
            start=blurred(images, self._kernel) if self._parameters.insertion_from == "blur" else None,
            step=self._step,
            ties=self._parameters.ties,
            logits=batch.logits,
            at_once=self._quick.at_once,
        )
        said = zip(flat(saliency).tolist(), finite.tolist(), strict=True)
        return [
            Record(place, _values(scores.insertion[place, 0], scores.deletion[place, 0], is_flat, known))
            for place, (is_flat, known) in enumerate(said)
        ]

    def statistics(self) -> Sequence[Statistic]:
        """See ``Measure.statistics``."""
        return (
            Statistic("insertion", Mean("insertion"), "higher", "area under the insertion curve"),
            Statistic("deletion", Mean("deletion"), "lower", "area under the deletion curve"),
            Statistic("score", Mean("score"), "higher", "insertion area less deletion area"),
            Statistic(
                "flat",
                Mean("flat"),
                "lower",
                "share of images whose map is flat: only ties order its pixels",
            ),
        )

    def curves(self) -> Sequence[Curve]:
        """See ``Measure.curves``."""
        pixels = math.prod(self.candidate.size)
        steps = range(math.ceil(pixels / self._step) + 1)
        x = tuple(min(number * self._step, pixels) / pixels for number in steps)
        y_title = "probability of the predicted class"
        return (
            Curve("insertion", "insertion_curve", x, "share of the pixels inserted", y_title),
            Curve("deletion", "deletion_curve", x, "share of the pixels deleted", y_title),
        )

    def settled(self) -> Mapping[str, Any]:
        """See ``Measure.settled``: pixels of a step."""
        return {"step": self._step}


def _values(
    insertion: Tensor, deletion: Tensor, is_flat: bool, known: bool
) -> dict[str, float | Sequence[float]]:
    if not known:
        insertion, deletion = (torch.full_like(curve, torch.nan) for curve in (insertion, deletion))
    inserted, deleted = float(area(insertion)), float(area(deletion))
    return {
        "insertion": inserted,
        "deletion": deleted,
        "score": inserted - deleted,
        "flat": float(is_flat) if known else math.nan,
        "insertion_curve": insertion.tolist(),
        "deletion_curve": deletion.tolist(),
    }
