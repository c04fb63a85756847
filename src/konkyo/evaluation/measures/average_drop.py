"""Average drop and increase in confidence (Chattopadhay et al., Grad-CAM++, WACV 2018, section 4.1).

An image is seen through its map: every pixel times the map's value there, the map scaled to [0, 1]. With Y
the probability of the predicted class of the whole image and O of the image seen through the map,

    average drop = mean of max(0, Y - O) / Y            increase in confidence = share of images with O > Y

which the paper gives in percent. The first should be low and the second high; but a map that is high
everywhere drops nothing, so neither says by itself that a map is right.

The map is scaled from its lowest to its highest value on its own grid and then enlarged bilinearly, and
multiplies the normalised image, as in torch-cam and pytorch-grad-cam: what is hidden becomes the mean
colour. A flat map shows nothing.

Shape legend: B batch, D input channels, H, W input size, N classes, h, w grid of the maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.examples import Batch
from konkyo.evaluation.measures import register
from konkyo.evaluation.measures.base import Mean, Measure, Parameters, Record, Statistic, Unsuited
from konkyo.evaluation.passes import Logits
from konkyo.evaluation.pixels_by_threshold import stretched
from konkyo.evaluation.sources import Source, enlarged
from konkyo.evaluation.things import readable


@torch.no_grad()
def confidence_drops(logits: Tensor, logits_seen: Tensor) -> Tensor:
    """What share of its confidence each prediction loses, below 0 where it gains.

    Args:
        logits: (B, N) of the images.
        logits_seen: (B, N) of the images seen through their maps.

    Returns:
        (B,) float64 on the CPU, ``(Y - O) / Y`` with the probabilities Y and O of the class that
        ``logits`` predict.
    """
    predicted = logits.argmax(dim=1, keepdim=True)
    before, after = (
        each.cpu().double().softmax(dim=1).gather(1, predicted.cpu())[:, 0] for each in (logits, logits_seen)
    )
    return (before - after) / before


def seen_through(images: Tensor, maps: Tensor) -> Tensor:
    """Images (B, D, H, W) times their maps (B, h, w), finite, each scaled to [0, 1] and enlarged."""
    size = images.shape[2], images.shape[3]
    return images * enlarged(stretched(maps.float())[:, None], size).to(images.dtype)


@torch.no_grad()
def average_drop(logits_of: Logits, images: Tensor, maps: Tensor) -> tuple[float, float]:
    """Average drop and increase in confidence of a set of images, as shares.

    Args:
        logits_of: the network, images (B, D, H, W) to logits (B, N).
        images: (B, D, H, W), normalised.
        maps: (B, h, w) of the predicted classes, finite, without what should not count.

    Raises:
        ValueError: no images, or not as many maps.
    """
    if len(images) != len(maps) or not len(images):
        raise ValueError(f"{len(images)} images, {len(maps)} maps")
    drops = confidence_drops(logits_of(images), logits_of(seen_through(images, maps)))
    return float(drops.clamp(min=0).mean()), float((drops < 0).double().mean())


class AverageDropParameters(Parameters):
    """Parameters of ``AverageDrop``."""

    image: Literal["normalised", "pixels"] = Field(
        default="normalised",
        description="what the map multiplies: the normalised image, so that hidden places become the mean "
        "colour, or the pixels, so that they become black",
    )


@register
class AverageDrop(Measure):
    """Average drop and increase in confidence, of the predicted class.

    Raises:
        Unsuited: no maps.
    """

    name = "average_drop"
    title = "Average drop and increase in confidence"
    reference = "Grad-CAM++, Chattopadhay et al., WACV 2018, section 4.1"
    wants = "predicted"
    parameters = AverageDropParameters
    worst = "average_drop"

    def __init__(self, candidate: Candidate, source: Source | None, parameters: Parameters) -> None:
        super().__init__(candidate, source, parameters)
        assert isinstance(parameters, AverageDropParameters)
        if source is None:
            raise Unsuited("it sees images through maps")
        self._source = source
        self._of_pixels = parameters.image == "pixels"

    def records(self, batch: Batch, targets: Tensor, maps: Tensor) -> Sequence[Record]:
        """See ``Measure.records``; an image whose map is not finite has no figures."""
        important, finite = readable(maps[:, 0], self._source)
        pixels = batch.pixels.to(maps.device)
        normalise = self.candidate.classifier.normalise
        if self._of_pixels:
            seen = seen_through(pixels.permute(0, 3, 1, 2).float(), important).permute(0, 2, 3, 1)
            seen = normalise(seen)
        else:
            seen = seen_through(normalise(pixels), important)
        drops = confidence_drops(batch.logits, self.candidate.logits_of_normalised(seen))
        drops = drops.where(finite.cpu(), torch.nan)
        losses, gains = drops.clamp(min=0), (drops < 0).double().where(finite.cpu(), torch.nan)
        return [
            Record(place, {"drop": float(losses[place]), "increase": float(gains[place])})
            for place in range(len(batch))
        ]

    def statistics(self) -> Sequence[Statistic]:
        """See ``Measure.statistics``."""
        return (
            Statistic("average_drop", Mean("drop"), "lower", "mean share of its confidence that is lost"),
            Statistic("increase", Mean("increase"), "higher", "share of images whose confidence rises"),
        )
