"""Stability of a map when the picture is compressed once more, as happens to pictures on their way.

The image as the network sees it is written as JPEG and read again, by Pillow with its own subsampling
of the colours.

Shape legend: B images, H, W input size.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.measures import register
from konkyo.evaluation.measures.base import Parameters
from konkyo.evaluation.sources import Source
from konkyo.evaluation.stability import Again, Stability


class JpegParameters(Parameters):
    """Parameters of ``StabilityJpeg``."""

    quality: int = Field(default=75, ge=1, le=95, description="of the JPEG file, as Pillow counts it")


def compressed(pixels: Tensor, quality: int) -> Tensor:
    """Through a JPEG file and back: (B, H, W, 3) uint8 -> the same."""
    found = []
    for image in pixels.cpu().numpy():
        file = io.BytesIO()
        Image.fromarray(image).save(file, "jpeg", quality=quality)
        found.append(np.asarray(Image.open(file).convert("RGB")))
    return torch.from_numpy(np.stack(found)).to(pixels.device)


@register
class StabilityJpeg(Stability):
    """How far maps change by JPEG compression.

    Raises:
        Unsuited: no maps.
    """

    name = "stability_jpeg"
    title = "Stability under JPEG compression"
    reference = "none: what happens to pictures"
    parameters = JpegParameters

    def __init__(self, candidate: Candidate, source: Source | None, parameters: Parameters) -> None:
        super().__init__(candidate, source, parameters)
        assert isinstance(parameters, JpegParameters)
        self._quality = parameters.quality

    def again(self, pixels: Tensor, targets: Tensor, maps: Tensor) -> Iterator[Again]:
        """See ``Stability.again``."""
        after = compressed(pixels, self._quality)
        again = self._source.maps(self.candidate, after, targets)
        yield Again(maps[:, 0], again[:, 0], self.candidate.logits(after))
