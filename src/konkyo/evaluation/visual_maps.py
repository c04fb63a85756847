"""Visual maps, what is shown of a map, and the sums of their elements: the decline ratio is made of them.

From the paper on GCM (IPSJ TOM 10-2, 2017); see ``measures/decline.py``.

Shape legend: B images, N classes, h, w grid of the maps, H, W input size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.sources import MethodSource, Source
from konkyo.models.explain.cam import CAM

Coloured = Literal["absolute", "positive", "signed"]
ColourRange = Literal["image", "map"]

MAP, PICTURE = 0.7, 0.2
"""Weights of the blend."""

_LEVELS = np.arange(256, dtype=np.uint8)
_JET = torch.from_numpy(cv2.applyColorMap(_LEVELS, cv2.COLORMAP_JET).reshape(256, 3).sum(1, np.float64))
"""Sum over the channels of each of the 256 colours: the sum of a blend needs no more of them."""


def sums(maps: Tensor) -> Tensor:
    """(B, N, h, w) -> (B, N) float64."""
    return maps.flatten(2).sum(dim=2, dtype=torch.float64)


def construct(
    maps: Tensor, pixels: Tensor, coloured: Coloured = "absolute", colour_range: ColourRange = "image"
) -> dict[str, Tensor]:
    """Sums of the elements of visual maps, by construction and by the steps on the way to it.

    Args:
        maps: (B, N, h, w) of every class, as they are shown raw.
        pixels: (B, H, W, 3) uint8.
        coloured: what of a map the colours show: its ``absolute`` value or its ``positive`` part, from 0
            on; or the map ``signed``, from its lowest value on.
        colour_range: whose highest and lowest value are the ends of the colours: of each ``map``, or of the
            maps of all classes of an ``image``.

    Returns:
        ``raw``, ``absolute``, ``resampled``, ``scaled``, ``blend`` and ``product``, each (B, N) float64; not
        finite of a map that is not.
    """
    size = pixels.shape[1:3]
    large = maps
    if maps.shape[-2:] != size:
        large = F.interpolate(maps, size, mode="bicubic", align_corners=False)
    scaled = _scaled(large, coloured, (2, 3) if colour_range == "map" else (1, 2, 3))
    known = scaled.isfinite().all(dim=3).all(dim=2)  # (B, N)
    levels = (scaled * 255).nan_to_num().clamp(0, 255).long()
    picture = pixels.sum(dim=3)[:, None]  # (B, 1, H, W), the three channels together
    return {
        "raw": sums(maps),
        "absolute": sums(maps.abs()),
        "resampled": sums(large),
        "scaled": sums(scaled),
        "blend": (MAP * sums(_JET.to(maps.device)[levels]) + PICTURE * sums(picture)).where(known, torch.nan),
        "product": sums(large.double() * picture) / 255,
    }


def _scaled(maps: Tensor, coloured: Coloured, over: tuple[int, ...]) -> Tensor:
    """To the range of the colours: (B, N, H, W) -> (B, N, H, W) in [0, 1], 0 where nothing varies."""
    if coloured == "signed":
        maps = maps - maps.amin(dim=over, keepdim=True)
    else:
        maps = maps.abs() if coloured == "absolute" else maps.clamp(min=0)
    high = maps.amax(dim=over, keepdim=True)
    return maps / torch.where(high > 0, high, 1)


def right(scores: Tensor, truth: Tensor) -> Tensor:
    """Whether the true class scores highest: (B, N), (B,) -> (B,) float64.

    Of t classes that share the highest score each counts 1/t. Where a score is not finite, the answer is
    wrong.
    """
    known = scores.isfinite().all(dim=1, keepdim=True)
    highest = known & (scores == scores.amax(dim=1, keepdim=True))
    true = highest.gather(1, truth[:, None])[:, 0]
    return true.double() / highest.sum(dim=1).clamp(min=1)


@dataclass(frozen=True)
class HeadBias:
    """What the sum of a signed map lacks to the logit, up to a factor.

    Attributes:
        values: (N,) of the head.
        averaged: whether the bias goes with the mean of a map, and not with its sum.
    """

    values: Tensor
    averaged: bool

    def of(self, maps: Tensor) -> Tensor:
        """In the units of the sums of maps (B, N, h, w): (N,) float64."""
        return self.values.double() * (maps.shape[2] * maps.shape[3] if self.averaged else 1)


def head_bias(candidate: Candidate, source: Source) -> HeadBias | None:
    """The bias that makes a signed map the score; None where the map is not known to be.

    It is known of CAM, and of Grad-CAM and HiResCAM at the same layer, where the head is global average
    pooling and linear layers: ``y = mean(CAM) + b = sum(Grad-CAM) + b``.
    """
    if not isinstance(source, MethodSource) or source.method not in ("cam", "gradcam", "hirescam"):
        return None
    try:
        cam = candidate.explained("cam").explanation
    except TypeError:
        return None
    assert isinstance(cam, CAM)
    found = [
        head.weight.new_zeros(len(head.weight)) if head.bias is None else head.bias for head in cam.head.heads
    ]
    return HeadBias(torch.stack(found).mean(dim=0), source.method == "cam")


def is_rectified(candidate: Candidate, source: Source) -> bool:
    """Whether the method's own paper ends its formula with a ReLU, which our maps leave out."""
    if not isinstance(source, MethodSource):
        return False
    kind = candidate.explained(source.method).explanation.map_kind
    return kind == "class_activation_map" and source.method not in ("cam", "hirescam")
