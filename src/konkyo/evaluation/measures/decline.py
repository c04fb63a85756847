"""Decline ratio: how far the maps of all classes are from the decision they explain.

From the paper on GCM (IPSJ TOM 10-2, 2017). With A the accuracy of the network, and B that of a
classifier whose score of a class is the sum of all elements of the class's visual map,

    decline = (A - B) / A

A visual map is made from a weight map in four ways: (i) the map ``raw``, (ii) its ``absolute`` value,
(iii) a ``blend``, the map enlarged bicubically to the input, in the colours of jet, 0.7 of it and 0.2 of
the picture, (iv) the ``product`` of map and picture. As in the papers of the methods, Grad-CAM and its
variants are shown without their negative part, and CAM with it.

Causes are found by taking one step of a construction at a time. A step's part is by how much the decline
grows at it, so the parts sum to the decline; in another order they would be others::

    score -> signed -> raw -> absolute                              bias, ReLU; absolute value
                       raw -> resampled -> scaled -> blend          enlarging; scaling; colours
                       raw -> resampled -> product                  enlarging; picture

The step from the score to the signed map is known where the head is global average pooling and linear
layers, since there ``mean(CAM) + bias`` is the logit. Of GCM the product is, so its way begins there.

Our reconstruction, where the paper does not say: the colours show absolute values (``coloured``), on one
scale for all classes of an image (``colour_range``). Of the six ways these settings allow it is the one by
which guided Grad-CAM declines least in (iii), as the paper found; scaled each for itself, maps no longer
say which of them is strong. A level is rounded down to 8 bits, the blend is not rounded. Pictures are in
[0, 1] in the product and in 0 to 255 in the blend. Maps by gradients are sums over the channels, also
before their absolute value is taken. Where several classes share the highest score, an image counts as
right by one over their number, if its class is among them.

Shape legend: B images, N classes, h, w grid of the maps, H, W input size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import Field
from torch import Tensor

from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.examples import Batch
from konkyo.evaluation.measures import register
from konkyo.evaluation.measures.base import (
    Columns,
    Mean,
    Measure,
    Parameters,
    Record,
    Statistic,
    Unsuited,
)
from konkyo.evaluation.parts import parts
from konkyo.evaluation.sources import Contribution, MethodSource, Source
from konkyo.evaluation.visual_maps import (
    Coloured,
    ColourRange,
    construct,
    head_bias,
    is_rectified,
    right,
    sums,
)

CONSTRUCTIONS = {
    "raw": "the raw map",
    "absolute": "the absolute value of the map",
    "blend": "the map in the colours of jet, blended with the picture",
    "product": "the product of map and picture",
}

_ELEMENTS = 2**24
"""Of enlarged maps at once."""


@dataclass(frozen=True)
class DeclineOf:
    """The decline ratio of a column of right answers; NaN where the network is never right."""

    column: str

    def __call__(self, columns: Columns) -> float:
        """See ``Statistic.of``."""
        accuracy, of_maps = Mean("network")(columns), Mean(self.column)(columns)
        return (accuracy - of_maps) / accuracy if accuracy > 0 else math.nan


@dataclass(frozen=True)
class Growth:
    """By how much the decline grows from one step to the next."""

    before: str
    after: str

    def __call__(self, columns: Columns) -> float:
        """See ``Statistic.of``."""
        return DeclineOf(self.after)(columns) - DeclineOf(self.before)(columns)


class _Step(NamedTuple):
    """From which column to which, what it does, and for which constructions it is taken."""

    part: Growth
    title: str
    on_the_way_to: tuple[str, ...]


_EVERY = tuple(CONSTRUCTIONS)
_BIAS = _Step(Growth("with_bias", "signed"), "the bias of the head, which no map holds", _EVERY)
_RELU = _Step(Growth("signed", "raw"), "the ReLU, which drops what speaks against a class", _EVERY)
_NO_PICTURE = _Step(
    Growth("product", "raw"), "leaving out the picture", tuple(name for name in _EVERY if name != "product")
)
_PICTURE = _Step(Growth("resampled", "product"), "the product with the picture", ("product",))
_COMMON = {
    "absolute": _Step(
        Growth("raw", "absolute"), "counting what speaks against a class for it", ("absolute",)
    ),
    "enlarging": _Step(Growth("raw", "resampled"), "enlarging the map to the input", ("blend", "product")),
}
_COLOURS = _Step(
    Growth("scaled", "blend"), "the colours of jet, whose sum does not grow with the value", ("blend",)
)
_SCALED = {
    "absolute": "giving colours to absolute values",
    "positive": "giving colours to the positive part alone",
    "signed": "giving the lowest value the lowest colour",
}
_BY_ITSELF = ", each map on a scale of its own"


class DeclineParameters(Parameters):
    """Parameters of ``Decline``."""

    coloured: Coloured = Field(
        default="absolute", description="what the colours of the blend show: absolute, positive or signed"
    )
    colour_range: ColourRange = Field(
        default="image",
        description="the strongest colour is the largest value of each map, or of all maps of an image",
    )
    rectified: bool | None = Field(
        default=None,
        description="whether maps are shown without their negative part; default: as in the paper of the "
        "method, so Grad-CAM and its variants are, and CAM is not",
    )
    max_classes: int = Field(
        default=100, ge=2, description="models of more are not measured: every class needs a map"
    )


@register
class Decline(Measure):
    """Decline ratio of the four constructions, and what causes each.

    Raises:
        Unsuited: no maps, the same map for all classes, a map that is a product already, or too many
            classes.
    """

    name = "decline"
    title = "Decline ratio"
    reference = "Generative Contribution Mappings, IPSJ TOM 10-2 (2017)"
    wants = "all"
    parameters = DeclineParameters

    def __init__(self, candidate: Candidate, source: Source | None, parameters: Parameters) -> None:
        super().__init__(candidate, source, parameters)
        assert isinstance(parameters, DeclineParameters)
        classes = len(candidate.card.labels)
        if source is None or not source.class_specific:
            raise Unsuited("its maps are the same for every class")
        if isinstance(source, Contribution):
            raise Unsuited("its maps are the product of map and picture already: see gcm")
        if classes > parameters.max_classes:
            raise Unsuited(f"{classes} classes, each of which needs a map, are more than max_classes")
        self._colours = parameters.coloured, parameters.colour_range
        by_itself = _BY_ITSELF if parameters.colour_range == "map" else ""
        self._scaling = _SCALED[parameters.coloured] + by_itself
        rectified = parameters.rectified
        self._rectified = is_rectified(candidate, source) if rectified is None else rectified
        self._bias = head_bias(candidate, source)
        is_gcm = isinstance(source, MethodSource) and source.method == "gcm"
        self._product_is_score = is_gcm and not self._rectified

    def records(self, batch: Batch, targets: Tensor, maps: Tensor) -> Sequence[Record]:
        """See ``Measure.records``."""
        known, truths = batch.labelled()
        each = maps.shape[1] * batch.pixels.shape[1] * batch.pixels.shape[2]
        at_once = max(1, _ELEMENTS // each)
        records: list[Record] = []
        for part in parts(len(known), at_once):
            places = known[part]
            scores = {
                "network": batch.logits[places],
                **self._scores(maps[places], batch.pixels[places].to(maps.device)),
            }
            found = {name: right(of_classes, truths[part]).tolist() for name, of_classes in scores.items()}
            records += [
                Record(place, {name: values[index] for name, values in found.items()})
                for index, place in enumerate(places)
            ]
        return records

    def _scores(self, maps: Tensor, pixels: Tensor) -> Mapping[str, Tensor]:
        scores = {"signed": sums(maps)}
        if self._bias is not None:
            scores["with_bias"] = scores["signed"] + self._bias.of(maps)
        shown = maps.clamp(min=0) if self._rectified else maps
        return scores | construct(shown, pixels, *self._colours)

    def statistics(self) -> Sequence[Statistic]:
        """See ``Measure.statistics``."""
        found = [
            Statistic(f"decline_{name}", DeclineOf(name), "lower", f"decline of {title}")
            for name, title in CONSTRUCTIONS.items()
        ]
        found.append(Statistic("accuracy", Mean("network"), "higher", "accuracy of the network"))
        found += [
            Statistic(f"accuracy_{name}", Mean(name), "higher", f"accuracy by the sum of {title}")
            for name, title in CONSTRUCTIONS.items()
        ]
        if self._bias is not None:
            exact = "decline of the signed map with the bias of the head: 0, as it is the score"
            found.append(Statistic("decline_with_bias", DeclineOf("with_bias"), "lower", exact))
        found += [
            Statistic(f"cause_{name}", step.part, "neither", f"growth of the decline by {step.title}")
            for name, step in self._steps().items()
        ]
        return found

    def settled(self) -> Mapping[str, Any]:
        """See ``Measure.settled``: whether maps are shown without their negative part."""
        return {"rectified": self._rectified}

    def _steps(self) -> Mapping[str, _Step]:
        return {
            **({"bias": _BIAS} if self._bias is not None else {}),
            **({"relu": _RELU} if self._rectified else {}),
            **({"no_picture": _NO_PICTURE} if self._product_is_score else {}),
            **_COMMON,
            **({} if self._product_is_score else {"picture": _PICTURE}),
            "scaling": _Step(Growth("resampled", "scaled"), self._scaling, ("blend",)),
            "colours": _COLOURS,
        }

    def notes(self, columns: Columns) -> Sequence[str]:
        """See ``Measure.notes``: what causes each decline."""
        accuracy, chance = Mean("network")(columns), 1 / len(self.candidate.card.labels)
        if not accuracy > 0:
            return ("The network is never right, so nothing can decline.",)
        notes = [self._beginning(columns)]
        for name, title in CONSTRUCTIONS.items():
            steps = [step for step in self._steps().values() if name in step.on_the_way_to]
            grown = [f"{step.part(columns):+.4f} by {step.title}" for step in steps if step.part(columns)]
            causes = f": {'; '.join(grown)}" if grown else ""
            notes.append(f"The decline of {title} is {DeclineOf(name)(columns):.4f}{causes}.")
        notes.append(
            f"Maps that know nothing of the classes are right by {chance:.3f}, "
            f"a decline of {(accuracy - chance) / accuracy:.3f}."
        )
        return notes

    def _beginning(self, columns: Columns) -> str:
        if self._bias is not None:
            return (
                "The signed map and the bias of the head are the score, so each decline has its causes here."
            )
        if self._product_is_score:
            return (
                "The score is the mean of the product of map and picture, so this product does not decline."
            )
        return (
            f"These maps do not sum to the score, whatever is added: {DeclineOf('signed')(columns):.3f} of "
            "each decline is the method's own, before any step below."
        )
