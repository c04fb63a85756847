"""Maps over their pictures, in a grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch.nn.functional as F
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from examples.shapes import UInt8

Row = tuple[str, UInt8, Sequence[tuple[str, Tensor]]]
"""A title, a picture (H, W, 3), and maps (h, w) with titles."""


def draw_maps(out: Path, rows: Sequence[Row]) -> None:
    """A row for each picture: what speaks for each score, the ReLU of its map, each by its own maximum."""
    width = 1 + max(len(maps) for _, _, maps in rows)
    figure = Figure(figsize=(1.25 * width, 1.75 * len(rows)))
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), width, squeeze=False, gridspec_kw={"wspace": 0.06, "hspace": 0.6})
    for cells, (title, pixels, maps) in zip(axes, rows, strict=True):
        for cell in cells:
            cell.set_axis_off()
        cells[0].imshow(pixels)
        cells[0].set_title(title, fontsize=7, loc="left", y=1.28)
        for cell, (name, map_) in zip(cells[1:], maps, strict=False):
            enlarged = F.interpolate(map_[None, None], size=pixels.shape[:2], mode="bilinear")[0, 0]
            shown = enlarged.clamp(min=0).numpy()
            cell.imshow(pixels)
            cell.imshow(shown, cmap="jet", alpha=0.5, vmin=0, vmax=shown.max() or 1)
            cell.set_title(name, fontsize=7)
    figure.savefig(out, dpi=130, bbox_inches="tight")
