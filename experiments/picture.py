"""Attention on test tiles, before and after an expert's maps: docs/attention.png."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.measure import answers, load
from experiments.plan import RUNS

OUT = Path("docs/attention.png")
NETWORKS = (
    ("abn-tiles-0", "ABN"),
    ("multiscale-tiles-0", "multi-scale"),
    ("tuned-confidence-1-tiles-0", "with expert's maps"),
)
EVERY = 5


def draw_maps() -> None:
    """A row for each class with a defect, of its test images the first and sixth: not picked by look."""
    loaded = [load(RUNS / name) for name, _ in NETWORKS]
    data = loaded[0][1]
    test = data.test
    assert test.masks is not None
    free = data.labels.index("free")
    picked = np.array(
        [
            position
            for label in range(len(data.labels))
            if label != free
            for position in np.flatnonzero(test.labels == label)[: 2 * EVERY : EVERY]
        ]
    )
    images = test.take(picked)
    assert images.masks is not None
    columns: list[tuple[str, np.ndarray, list[str]]] = []
    for (classifier, _), (_, title) in zip(loaded, NETWORKS, strict=True):
        logits, maps = answers(classifier, images)
        assert maps is not None
        enlarged = F.interpolate(
            torch.from_numpy(maps.mean(axis=1, keepdims=True)), size=images.pixels.shape[1:3], mode="bilinear"
        )
        columns.append((title, enlarged[:, 0].numpy(), [data.labels[index] for index in logits.argmax(1)]))
    figure = Figure(figsize=(10, 1.35 * len(picked) / 2))
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(picked) // 2, 10, gridspec_kw={"wspace": 0.04, "hspace": 0.3})
    for at, label in enumerate(images.labels):
        row, side = divmod(at, 2)
        cells = axes[row][5 * side : 5 * side + 5]
        for cell in cells:
            cell.set_axis_off()
            cell.imshow(images.pixels[at])
        cells[0].set_title(data.labels[label], fontsize=7)
        cells[1].imshow(np.where(images.masks[at] == 1, 1.0, np.nan), cmap="autumn", vmin=0, vmax=1)
        cells[1].set_title("defect", fontsize=7)
        for cell, (title, maps, predicted) in zip(cells[2:], columns, strict=True):
            cell.imshow(maps[at], cmap="jet", alpha=0.5, vmin=0, vmax=1)
            cell.set_title(f"{title}:\n{predicted[at]}", fontsize=6)
    figure.savefig(OUT, dpi=130, bbox_inches="tight")
