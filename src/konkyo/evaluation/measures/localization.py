"""Weakly supervised localisation: a class, and a box around it that nobody taught the network to draw.

The box is around the largest connected part of the map at or over 15 % of its maximum (Grad-CAM, section
4.1). By the rule of ILSVRC an answer is right if its class is right and its box and a box of that class
have an IoU of 0.5 or more; the top-5 error asks whether any of five answers is right. A class is right if
something marked in the image is of it. What an error of the class costs is reported beside it:
``localization_given_class`` leaves it out.

Boxes are compared in the network's input, which has no effect on IoU but where a crop cuts a box.

Shape legend: B batch, n boxes, h, w grid of a map, H, W input size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torchvision.ops import box_iou

from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.examples import Batch, Example, Float64
from konkyo.evaluation.measures import register
from konkyo.evaluation.measures.base import Mean, Measure, Parameters, Record, Statistic
from konkyo.evaluation.sources import Source, enlarged
from konkyo.evaluation.things import readable


def localization_box(map_: Tensor, threshold: float, size: tuple[int, int]) -> Float64 | None:
    """The box around the largest connected part of a map that is at or over a share of its maximum.

    Pixels that meet in a corner are connected. Of two parts of one size the first by rows counts.

    Args:
        map_: (h, w), not negative; enlarged bilinearly.
        threshold: share of the maximum, in (0, 1].
        size: H, W.

    Returns:
        (4,) left, top, right, bottom in pixels of the input; None of a map of zeros.
    """
    whole = enlarged(map_[None, None].float(), size)[0, 0]
    highest = float(whole.max())
    if not highest > 0:
        return None
    high = (whole >= threshold * highest).cpu().numpy().astype(np.uint8)
    _, _, parts, _ = cv2.connectedComponentsWithStats(high, connectivity=8)
    left, top, width, height, _ = parts[1 + parts[1:, cv2.CC_STAT_AREA].argmax()]
    return np.array([left, top, left + width, top + height], np.float64)


def best_iou(box: Float64 | None, boxes: Float64) -> float:
    """The largest overlap of a box (4,) with any of others (n, 4), n at least 1; 0 of no box."""
    if box is None:
        return 0.0
    return float(box_iou(torch.from_numpy(box[None]), torch.from_numpy(boxes)).max())


def boxes_of_classes(example: Example) -> dict[int, Float64]:
    """The boxes (n, 4) of each class that is right for something in an image, without empty ones."""
    found: dict[int, list[Float64]] = {}
    for thing in example.marked or ():
        if len(thing.boxes):
            for index in thing.classes:
                found.setdefault(index, []).append(thing.boxes)
    return {index: np.concatenate(boxes) for index, boxes in found.items()}


class LocalizationParameters(Parameters):
    """Settings of localisation."""

    threshold: float = Field(0.15, gt=0, le=1, description="share of a map's maximum that its box holds")
    iou: float = Field(0.5, gt=0, le=1, description="least overlap of a right box")


@register
class Localization(Measure):
    """Every image in which something is marked, by the maps of the five classes that score highest."""

    name = "localization"
    title = "Localisation error"
    reference = "Grad-CAM, section 4.1; ILSVRC (Russakovsky et al., IJCV 2015)"
    wants = "top5"
    parameters = LocalizationParameters
    worst = "iou_top1"

    def __init__(
        self, candidate: Candidate, source: Source | None, parameters: LocalizationParameters
    ) -> None:
        super().__init__(candidate, source, parameters)
        assert source is not None, "it wants maps"
        self._source = source
        self.threshold, self.iou = parameters.threshold, parameters.iou

    def records(self, batch: Batch, targets: Tensor, maps: Tensor) -> Sequence[Record]:
        """See ``Measure.records``."""
        records = []
        for position, (example, classes) in enumerate(zip(batch.examples, targets.tolist(), strict=True)):
            if boxes := boxes_of_classes(example):
                important, _ = readable(maps[position], self._source)
                values = self._judge(classes, important, boxes, example.pixels.shape[:2])
                records.append(Record(position, values))
        return records

    def _judge(
        self, classes: Sequence[int], maps: Tensor, boxes: dict[int, Float64], size: tuple[int, ...]
    ) -> dict[str, float]:
        """Of one image: its predicted classes, best first, and their maps."""
        ious = [
            best_iou(localization_box(map_, self.threshold, (size[0], size[1])), boxes[index])
            if index in boxes
            else math.nan  # the class is wrong
            for index, map_ in zip(classes, maps, strict=True)
        ]
        wrong = [not iou >= self.iou for iou in ious]
        return {
            "error_top1": float(wrong[0]),
            "error_top5": float(all(wrong)),
            "class_error_top1": float(math.isnan(ious[0])),
            "class_error_top5": float(all(math.isnan(iou) for iou in ious)),
            "iou_top1": 0.0 if math.isnan(ious[0]) else ious[0],
        }

    def statistics(self) -> Sequence[Statistic]:
        """See ``Measure.statistics``."""
        return (
            Statistic("error_top1", Mean("error_top1"), "lower", "top-1 localisation error"),
            Statistic("error_top5", Mean("error_top5"), "lower", "top-5 localisation error"),
            Statistic(
                "class_error_top1", Mean("class_error_top1"), "lower", "of these, the class is wrong, top-1"
            ),
            Statistic(
                "class_error_top5", Mean("class_error_top5"), "lower", "of these, the class is wrong, top-5"
            ),
            Statistic(
                "iou_top1", Mean("iou_top1"), "higher", "IoU of the predicted class, 0 where it is wrong"
            ),
        )
