"""Pixels taken by rank: the insertion and deletion of RISE (Petsiuk, Das, Saenko, BMVC 2018, section 4.1).

The most salient pixels go first, a fixed number a step. Deletion turns them to zero in the normalised
image; insertion puts them into a blur of it. The probability of the class that the network predicts for the
whole image is followed over the steps, and the area under this curve is the figure: low for deletion, high
for insertion.

What the paper leaves open follows the authors' program: the size of the steps, the blur and its border,
the order of equal pixels, the area.

Shape legend: B batch, S maps of an image, P = B S pairs, D input channels, H, W input size, N classes,
n steps.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from konkyo.evaluation.parts import parts
from konkyo.evaluation.passes import Logits

Ties = Literal["numpy", "stable"]
STEPS = 28


class Scores(NamedTuple):
    """Probability of the predicted class, float64 on the CPU.

    Attributes:
        insertion: (B, S, n + 1), from the start, such as a blur, to the whole image.
        deletion: (B, S, n + 1), from the whole image to zeros.
    """

    insertion: Tensor
    deletion: Tensor


def default_step(size: tuple[int, int]) -> int:
    """Pixels a step for at most 28 steps: 8 * 224 for 224 x 224, as in the authors' experiments."""
    return math.ceil(size[0] * size[1] / STEPS)


def area(scores: Tensor) -> Tensor:
    """Area under curves (..., n + 1) by trapezoids, over [0, 1]; a last step of fewer pixels counts whole."""
    return (scores.sum(-1) - scores[..., 0] / 2 - scores[..., -1] / 2) / (scores.shape[-1] - 1)


def blur_kernel(size: int, sigma: float) -> Tensor:
    """(size, size) float32: one pixel spread by a Gaussian whose tails are reflected at the border.

    It sums to 1 and is heavier towards the corners than a Gaussian that is cut off.

    Raises:
        ValueError: the size is even, so that no pixel is in the middle.
    """
    if size % 2 == 0:
        raise ValueError(f"a kernel of {size} pixels has no middle: its size must be odd")
    dot = np.zeros((size, size))
    dot[size // 2, size // 2] = 1
    return torch.from_numpy(gaussian_filter(dot, sigma).astype(np.float32))


def blurred(images: Tensor, kernel: Tensor) -> Tensor:
    """Every channel convolved by itself, zeros beyond the border: (B, D, H, W) -> (B, D, H, W)."""
    each = kernel.to(images.device).expand(images.shape[1], 1, -1, -1)
    soft = F.conv2d(images.float(), each, padding=len(kernel) // 2, groups=images.shape[1])
    return soft.to(images.dtype)


def salient_order(saliency: Tensor, ties: Ties = "numpy") -> Tensor:
    """Positions of the pixels, the most salient first: (P, H, W) -> (P, H W) int64.

    Args:
        saliency: finite.
        ties: who is first of equal pixels: ``numpy`` reverses ``numpy.argsort``, as the authors do, which
            leaves it open; ``stable`` takes the last in reading order, on every machine.
    """
    flat = saliency.flatten(1)
    if ties == "stable":
        return flat.argsort(dim=1, stable=True).flip(1)
    order = np.flip(np.argsort(flat.cpu().numpy(), axis=1), axis=-1)
    return torch.from_numpy(order.copy()).to(saliency.device)


@torch.no_grad()
def insertion_deletion(
    logits_of: Logits,
    images: Tensor,
    saliency: Tensor,
    *,
    start: Tensor | None = None,
    step: int | None = None,
    ties: Ties = "numpy",
    logits: Tensor | None = None,
    at_once: int = 16,
) -> Scores:
    """Both curves of every image by every map.

    The whole image is asked once for all maps and both curves, the start of insertion once for all maps,
    the zeros once for all images; what lies between goes through the network in batches, on a device of
    many maps and images at once: 2 n - 2 passes for a map of an image, and a few.

    Args:
        logits_of: the network, after normalisation.
        images: (B, D, H, W) normalised, finite.
        saliency: (B, S, H, W) finite; only its order counts.
        start: (B, D, H, W) of insertion, such as ``blurred``, finite; None: zeros.
        step: pixels of a step; the last one takes what is left. None: ``default_step``.
        ties: see ``salient_order``.
        logits: (B, N) of the images, if they are known.
        at_once: images of a batch; changes the time and the memory, not the result.

    Raises:
        ValueError: sizes that do not fit.
    """
    count, _, height, width = images.shape
    if saliency.shape != (count, saliency.shape[1], height, width):
        raise ValueError(f"maps {tuple(saliency.shape)} for images {tuple(images.shape)}")
    step = default_step((height, width)) if step is None else step
    steps = math.ceil(height * width / step)
    if logits is None:
        logits = torch.cat([logits_of(images[part]) for part in parts(count, at_once)])
    probability = _Probability(logits_of, logits.argmax(dim=1))
    numbers = torch.arange(count, device=images.device)
    whole = logits.softmax(dim=1).amax(dim=1)  # (B,)
    zeros = probability.of(logits_of(torch.zeros_like(images[:1])).expand(count, -1), numbers)
    begin = zeros
    if start is not None:
        begin = torch.cat([probability(start[part], numbers[part]) for part in parts(count, at_once)])
    scores = torch.empty(2, *saliency.shape[:2], steps + 1, device=images.device)
    scores[0, ..., 0], scores[0, ..., -1] = begin[:, None], whole[:, None]
    scores[1, ..., 0], scores[1, ..., -1] = whole[:, None], zeros[:, None]
    between = scores.flatten(1, 2)[..., 1:-1]  # a view
    _fill(between, probability, images, start, _ranks(saliency, ties), step, at_once)
    return Scores(*scores.cpu().double())


class _Probability(NamedTuple):
    """Of the class of the image that a perturbed one was made from."""

    logits_of: Logits
    classes: Tensor  # (B,)

    def __call__(self, shown: Tensor, image: Tensor) -> Tensor:
        """(b, D, H, W), (b,) -> (b,)."""
        return self.of(self.logits_of(shown), image)

    def of(self, logits: Tensor, image: Tensor) -> Tensor:
        """(b, N), (b,) -> (b,)."""
        return logits.softmax(dim=1).gather(1, self.classes[image, None])[:, 0]


def _fill(
    scores: Tensor,
    probability: _Probability,
    images: Tensor,
    start: Tensor | None,
    ranks: Tensor,
    step: int,
    at_once: int,
) -> None:
    """Fill in what lies between the ends of the curves, (2, P, n - 1)."""
    between = scores.shape[2]
    image_of = torch.arange(len(images), device=images.device).repeat_interleave(len(ranks) // len(images))
    # Factors of 0 and 1, sums with 0 and x - x are exact, and take a third of the time of torch.where.
    for pairs in parts(len(ranks), max(at_once // max(between, 1), 1)):
        image = image_of[pairs]
        whole = images[image, None]  # (p, 1, D, H, W)
        under = None if start is None else start[image, None]
        for some in parts(between, at_once):
            taken = step * torch.arange(some.start + 1, some.stop + 1, device=images.device)
            chosen = (ranks[pairs, None] < taken[:, None, None])[:, :, None]  # (p, s, 1, H, W)
            inserted = whole * chosen
            deleted = whole - inserted
            if under is not None:
                inserted += under * ~chosen
            for curve, shown in zip(scores, (inserted, deleted), strict=True):
                found = probability(shown.flatten(0, 1), image.repeat_interleave(len(taken)))
                curve[pairs, some] = found.view(len(image), -1)


def _ranks(saliency: Tensor, ties: Ties) -> Tensor:
    """(B, S, H, W) -> (P, H, W) int32, 0 for the pixel that is taken first."""
    order = salient_order(saliency.flatten(0, 1), ties)  # (P, H W)
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places).int().view(-1, *saliency.shape[2:])
