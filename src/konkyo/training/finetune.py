"""Fine-tuning with an expert's maps (multi-scale ABN with expert knowledge, grading retinopathy).

A network that has learnt from labels is shown where to look. The expert is asked about some of the
training images, those the network is least sure of or whose map is farthest off; then

    sum_l (L_att_l + L_per_l + lambda_l |M'_l - M_l|)

is minimised over the branches, with the feature extractor as it is. All training images keep their
labels; the last term counts where there is an expert's map. (An ``amb`` keeps its mining losses.)
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from konkyo.evaluation.attention import map_error
from konkyo.models.attention import AttentionNetwork
from konkyo.models.bundle import Bundle
from konkyo.models.classifier import Classifier
from konkyo.training.config import Selection, TrainConfig
from konkyo.training.data import NO_MASK, ImageData, Images
from konkyo.training.errors import TrainingError
from konkyo.training.selection import by_confidence, by_map_error, select

_BATCH = 64


def finetune_config(bundle: Bundle, map_weight: list[float], settings: dict[str, Any]) -> TrainConfig:
    """The run that goes on from a bundle: its network and input, and the extractor frozen.

    Args:
        bundle: of a network with attention.
        map_weight: lambda, one for all scales or one each.
        settings: of the run, as for ``TrainConfig``.

    Raises:
        TrainingError: no weight, or an input that is not square.
        ValidationError: a setting is out of range.
    """
    card = bundle.card
    if not map_weight:
        raise TrainingError("the weight of the loss against the expert's maps is needed: --lambda-map")
    if card.input.width != card.input.height:
        raise TrainingError(f"{card.name} takes {card.input.width}x{card.input.height} pixels, not a square")
    return TrainConfig(
        **{
            **settings,
            "arch": card.architecture,
            "arch_args": card.arguments,
            "image_size": card.input.width,
            "resize_mode": card.input.resize_mode,
            "init": str(bundle.path),
            "map_weight": map_weight,
            "freeze_extractor": True,
        }
    )


def ask_expert(data: ImageData, classifier: Classifier, by: Selection, share: float) -> ImageData:
    """Keep the expert's maps of the training images the expert would be asked about, and no others.

    Args:
        data: with a mask for every training image the expert could be asked about; one without a
            defect is not among them, because there is nothing to point at.
        classifier: of a network with attention, in eval mode.
        by: what the images are sorted by.
        share: of those images, in (0, 1].

    Raises:
        TrainingError: there are no such images, the network has no attention map, or a share
            outside (0, 1].
    """
    masks = data.train.masks
    candidates = np.array([], np.int64) if masks is None else np.flatnonzero((masks == 1).any(axis=(1, 2)))
    if masks is None or not len(candidates):
        raise TrainingError(f"{data.name} has no expert's map of any training image")
    probabilities, maps = _look(classifier, data.train.take(candidates))
    if by == "confidence":
        order = by_confidence(probabilities)
    else:
        known = np.ones(len(candidates), np.bool_)
        order = by_map_error(map_error(maps, masks[candidates], known))
    asked = candidates[select(order, share)]
    kept = np.full_like(masks, NO_MASK)
    kept[asked] = masks[asked]
    return replace(data, train=replace(data.train, masks=kept))


@torch.no_grad()
def _look(classifier: Classifier, images: Images) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, N), and the finest maps (n, h, w)."""
    network = classifier.network
    if not isinstance(network, AttentionNetwork):
        raise TrainingError(f"{type(network).__name__} has no attention map to correct")
    probabilities, maps = [], []
    for start in range(0, len(images), _BATCH):
        pixels = torch.from_numpy(images.pixels[start : start + _BATCH])
        logits, found = network.attend(classifier.normalise(pixels))
        probabilities.append(logits.softmax(dim=1).numpy())
        maps.append(found[:, 0].numpy())
    return np.concatenate(probabilities), np.concatenate(maps)
