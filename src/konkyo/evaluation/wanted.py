"""Of which classes measures want maps, united so that a method is asked once a batch.

Shape legend: B batch, N classes, K targets, U united targets, h, w grid.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.examples import Batch
from konkyo.evaluation.measures.base import Wants
from konkyo.evaluation.sources import Source

Int64 = npt.NDArray[np.int64]
TOP = 5


def targets_of(wants: Wants, batch: Batch) -> Tensor:
    """(B, K) int64 on the CPU as ``wants`` says, −1 where an image has fewer."""
    logits = batch.logits.cpu()
    if wants == "predicted":
        return logits.argmax(dim=1, keepdim=True)
    if wants == "top5":
        return logits.topk(min(TOP, logits.shape[1]), dim=1).indices
    if wants == "all":
        return torch.arange(logits.shape[1]).expand(len(batch), -1)
    if wants == "truth":
        return torch.tensor([[-1 if item.truth is None else item.truth] for item in batch.examples])
    if wants == "marked":
        return _of_marked(batch, logits)
    return torch.empty((len(batch), 0), dtype=torch.int64)


def _of_marked(batch: Batch, logits: Tensor) -> Tensor:
    """Of several classes that are right for a thing the one that scores highest."""
    found = [
        [max(thing.classes, key=scores.__getitem__, default=-1) for thing in example.marked or ()]
        for example, scores in zip(batch.examples, logits.tolist(), strict=True)
    ]
    most = max(map(len, found))
    rows = [row + [-1] * (most - len(row)) for row in found]
    return torch.tensor(rows, dtype=torch.int64).reshape(len(batch), most)


def maps_of(
    source: Source, candidate: Candidate, batch: Batch, targets: Mapping[Wants, Tensor]
) -> dict[Wants, Tensor]:
    """The maps of several measures, each class of an image asked for once.

    Args:
        source: where they come from; images of which nothing is wanted are not handed to it.
        candidate: the model.
        batch: images.
        targets: (B, K) by what is wanted.

    Returns:
        (B, K, h, w) float32 for each of ``targets``; at −1 any values. (B, K, 1, 1) where nothing is wanted
        of any image.
    """
    united, places = _united(targets.values(), class_specific=source.class_specific)
    rows = torch.stack([(wanted >= 0).any(dim=1) for wanted in targets.values()]).any(dim=0)
    device = candidate.device
    if not rows.any():
        return {wants: torch.zeros((*wanted.shape, 1, 1), device=device) for wants, wanted in targets.items()}
    index = rows.nonzero()[:, 0].to(device)
    found = source.maps(
        candidate, batch.pixels[index.to(batch.pixels.device)], united[rows].to(device)
    ).float()
    maps = found.new_zeros((len(batch), *found.shape[1:]))
    maps[index] = found
    return {wants: _taken(maps, place.to(device)) for wants, place in zip(targets, places, strict=True)}


def _united(wanted: Collection[Tensor], *, class_specific: bool) -> tuple[Tensor, list[Tensor]]:
    """Each class of an image once, (B, U), and where in it each of (B, K) is."""
    if not class_specific:
        one = next(iter(wanted)).new_full((len(next(iter(wanted))), 1), -1)
        return one, [torch.zeros_like(targets) for targets in wanted]
    together = torch.cat(list(wanted), dim=1).numpy()
    rows = [np.unique(row[row >= 0]) for row in together]
    united = np.full((len(rows), max(map(len, rows))), -1, np.int64)
    for row, classes in zip(united, rows, strict=True):
        row[: len(classes)] = classes
    places = [
        np.stack(
            [np.searchsorted(classes, of_image) for classes, of_image in zip(rows, targets, strict=True)]
        )
        for targets in (item.numpy() for item in wanted)
    ]
    last = max(united.shape[1] - 1, 0)
    return torch.from_numpy(united), [torch.from_numpy(place.clip(0, last)) for place in places]


def _taken(maps: Tensor, places: Tensor) -> Tensor:
    """(B, U, h, w) at (B, K) -> (B, K, h, w)."""
    if maps.shape[1] == 1:
        return maps.expand(-1, places.shape[1], -1, -1)
    return maps.gather(1, places[:, :, None, None].expand(-1, -1, *maps.shape[-2:]))
