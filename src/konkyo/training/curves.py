"""The curves of a run as one picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from konkyo.training.loop import Epoch


def save_curves(history: Sequence[Epoch], path: Path, select_by: str = "accuracy") -> None:
    """Loss and accuracy of both splits by epoch, with the learning rate, as a PNG.

    Where it is known, the attention inside the defect as well. The dot is the best epoch.

    Uses a figure of its own instead of pyplot's global state, so it is safe in any thread.
    """
    epochs = [line.epoch for line in history]
    figure = Figure(figsize=(10, 4))
    # Fixed margins: measuring the labels would double the time, which counts where epochs are short.
    figure.subplots_adjust(left=0.095, right=0.985, bottom=0.13, top=0.96, wspace=0.38)
    FigureCanvasAgg(figure)
    loss, accuracy = figure.subplots(1, 2)

    loss.plot(epochs, [line.train_loss for line in history], label="train")
    loss.plot(epochs, [line.val_loss for line in history], label="validation")
    loss.set(xlabel="epoch", ylabel="cross-entropy (nats)", yscale="log")
    loss.legend(loc="lower left")
    rate = loss.twinx()
    rate.plot(epochs, [line.lr for line in history], color="grey", linestyle=":", label="learning rate")
    rate.set_ylabel("learning rate")
    rate.legend(loc="upper right")

    accuracy.plot(epochs, [100 * line.train_accuracy for line in history], label="train")
    accuracy.plot(epochs, [100 * line.val_accuracy for line in history], label="validation")
    if any(line.val_attention is not None for line in history):
        inside = [math.nan if line.val_attention is None else 100 * line.val_attention for line in history]
        accuracy.plot(epochs, inside, linestyle="--", label="attention inside the defect")
    best = max(history, key=lambda line: (line.score(select_by), line.epoch))
    accuracy.plot(best.epoch, 100 * best.val_accuracy, "o", color="black")
    accuracy.annotate(
        f"{100 * best.val_accuracy:.2f} %",
        (best.epoch, 100 * best.val_accuracy),
        textcoords="offset points",
        xytext=(0, -16),
        ha="right",
    )
    accuracy.set(xlabel="epoch", ylabel="accuracy (%)")
    accuracy.legend(loc="lower right")
    for axes in (loss, accuracy):
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.savefig(path, dpi=120)
