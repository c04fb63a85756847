"""The figures of one finished run, on the test split of its data."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.run import DONE
from konkyo.evaluation.attention import (
    SIZE_EDGES,
    defect_share,
    energy_inside,
    lift,
    map_error,
    mean_by_size,
)
from konkyo.evaluation.classification import balanced_accuracy, quadratic_weighted_kappa
from konkyo.evaluation.pixels_by_threshold import threshold_insertion_deletion
from konkyo.models.attention import AttentionNetwork, area_resample, touched
from konkyo.models.classifier import Classifier
from konkyo.models.registry import build
from konkyo.training import checkpoint
from konkyo.training.config import TrainConfig
from konkyo.training.data import NO_MASK, ImageData, Images
from konkyo.training.sources import open_data

MEASURES = "measures.json"
GRID = (16, 16)
"""On which maps of different grids are held against masks."""

THRESHOLDS = tuple(step / 10 for step in range(11))
_BATCH = 64


def measure(folder: Path, *, curves: bool) -> dict[str, Any]:
    """Measure the best checkpoint in a folder, and keep the figures beside it.

    Args:
        folder: of a finished run.
        curves: insertion and deletion as well, which take most of the time.
    """
    classifier, data = load(folder)
    found: dict[str, Any] = {
        "seconds": int((folder / DONE).read_text()),
        "parameters": sum(parameter.numel() for parameter in classifier.parameters()),
        **_figures(classifier, data, curves=curves),
    }
    (folder / MEASURES).write_text(json.dumps(found, indent=1), encoding="utf-8")
    return found


def load(folder: Path) -> tuple[Classifier, ImageData]:
    """The best network of a run, and its data."""
    state = checkpoint.load(folder / "best.ckpt")
    config = TrainConfig.model_validate(state["config"])
    data = open_data(config.model_copy(update={"masks": None}))
    classifier = Classifier(build(config.arch, len(data.labels), **config.arch_args))
    classifier.load_state_dict(state["model"])
    return classifier.eval(), data


def _figures(classifier: Classifier, data: ImageData, *, curves: bool) -> dict[str, Any]:
    test = data.test
    logits, maps = answers(classifier, test)
    predictions = logits.argmax(axis=1)
    found: dict[str, Any] = {
        "images": len(test),
        "accuracy": float((predictions == test.labels).mean()),
        "balanced_accuracy": balanced_accuracy(test.labels, predictions, len(data.labels)),
        "kappa": quadratic_weighted_kappa(test.labels, predictions, len(data.labels)),
    }
    if maps is None:
        return found
    found["map_range"] = [float(maps.min()), float(maps.max())]
    if curves:
        found |= _curves(classifier, data, maps.mean(axis=1))
    if test.masks is not None:
        found["scales"] = [dict(_against_masks(test, scale)) for scale in maps.swapaxes(0, 1)]
        found["corrected"] = _correct(classifier, test, logits)
    return found


def _curves(classifier: Classifier, data: ImageData, maps: np.ndarray) -> dict[str, Any]:
    found = threshold_insertion_deletion(
        classifier,
        torch.from_numpy(data.test.pixels),
        torch.from_numpy(data.test.labels),
        torch.from_numpy(maps),
        fill=data.train.pixels.mean(axis=(0, 1, 2)).round().astype(int).tolist(),
        thresholds=THRESHOLDS,
    )
    return {
        "insertion": found.insertion_area,
        "deletion": found.deletion_area,
        "score": found.score,
        "kept": float(found.kept.mean()),
    }


@torch.no_grad()
def answers(
    classifier: Classifier, images: Images, attention: torch.Tensor | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Logits (n, N) and, of a network with attention, maps (n, S, h, w)."""
    logits, maps = [], []
    network = classifier.network
    for start in range(0, len(images), _BATCH):
        part = slice(start, start + _BATCH)
        pixels = classifier.normalise(torch.from_numpy(images.pixels[part]))
        if isinstance(network, AttentionNetwork):
            given, shown = network.attend(pixels, None if attention is None else attention[part])
            maps.append(shown.numpy())
        else:
            given = network(pixels)
        logits.append(given.numpy())
    return np.concatenate(logits), np.concatenate(maps) if maps else None


def _against_masks(test: Images, maps: np.ndarray) -> Iterator[tuple[str, Any]]:
    assert test.masks is not None
    known = test.masks[:, 0, 0] != NO_MASK
    maps = area_resample(torch.from_numpy(maps), GRID).numpy()
    sizes = defect_share(test.masks, known)
    for measure_ in (energy_inside, lift, map_error):
        bins = (*mean_by_size(values := measure_(maps, test.masks, known), sizes, (0, 1)),
                *mean_by_size(values, sizes, SIZE_EDGES))  # fmt: skip
        yield (
            measure_.__name__,
            [{**item._asdict(), "mean": None if math.isnan(item.mean) else item.mean} for item in bins],
        )


def _correct(classifier: Classifier, test: Images, logits: np.ndarray) -> dict[str, Any]:
    """What a person does who marks the defect: how many answers turn right, and how many wrong.

    ``replace`` gives every cell, 1 on the defect and 0 elsewhere; ``paint`` gives only the cells on
    the defect and leaves the others as the network has them.
    """
    assert test.masks is not None
    marked = torch.from_numpy((test.masks == 1).astype(np.float32))
    has_defect = marked.flatten(1).any(dim=1).numpy()
    cells = touched(marked, GRID)
    right = logits.argmax(axis=1) == test.labels
    found: dict[str, Any] = {
        "wrong": int((~right & has_defect).sum()),
        "right": int((right & has_defect).sum()),
    }
    for way, attention in (("replace", cells), ("paint", torch.where(cells > 0, 1.0, -1.0))):
        after = answers(classifier, test, attention)[0].argmax(axis=1) == test.labels
        found[way] = {
            "turned_right": int((~right & after & has_defect).sum()),
            "turned_wrong": int((right & ~after & has_defect).sum()),
        }
    return found
