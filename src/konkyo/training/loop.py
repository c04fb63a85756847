"""The training loop: one function, every architecture, any number of devices.

Lightning Fabric moves the work to the devices, so ``torchrun`` starts it on several. An epoch
draws all its random numbers from (seed, epoch), so a resumed run continues as if it had never
stopped, and the devices share the very batches one device would have had. What still depends on
their number is batch normalisation, which each device does on its own part.

The best epoch is the one with the highest ``select_by`` on the validation split; of equal ones the last.
The test split is not looked at here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn
from tqdm import tqdm

from konkyo.evaluation.attention import energy_inside
from konkyo.evaluation.classification import balanced_accuracy, quadratic_weighted_kappa
from konkyo.models.attention import AttentionNetwork, AttentionOutputs
from konkyo.models.classifier import Classifier
from konkyo.training import checkpoint
from konkyo.training.batches import NO_LABEL, Batch, TrainingBatches, evaluation_batches
from konkyo.training.config import TrainConfig
from konkyo.training.curves import save_curves
from konkyo.training.data import NO_MASK, ImageData
from konkyo.training.errors import TrainingError
from konkyo.training.objective import Objective
from konkyo.training.setup import (
    compiled,
    make_fabric,
    make_model,
    make_optimizer,
    make_scheduler,
    make_teachers,
    with_image_size,
)


@dataclass(frozen=True)
class Epoch:
    """One line of the history. Losses in nats, accuracies as shares of 1, time in seconds.

    ``train_loss`` is the first loss of each step with all its terms, ``val_loss`` the cross-entropy.
    ``val_attention`` is the share of the attention that lies inside the defect, mean over the images
    that have one; None for networks without attention and data without masks.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    lr: float
    seconds: float
    val_balanced_accuracy: float | None = None
    val_kappa: float | None = None
    val_attention: float | None = None

    def score(self, select_by: str) -> float:
        """What the best epoch is chosen by; a kappa that is NaN is below every other."""
        found = {
            "accuracy": self.val_accuracy,
            "balanced-accuracy": self.val_balanced_accuracy,
            "kappa": self.val_kappa,
            "last": self.epoch,
        }[select_by]
        return -math.inf if found is None or math.isnan(found) else found


def fit(config: TrainConfig, data: ImageData, out: Path, *, resume: bool = False, command: str = "") -> Path:
    """Train, and return the path of the best checkpoint.

    Writes ``best.ckpt``, ``last.ckpt`` and ``curves.png`` into ``out`` after every epoch; before the
    first, for data that comes from files, which of them are in which split (``split.json``).

    Args:
        config: the run.
        data: the images, at the size the network will serve.
        out: the folder of the run; made if it does not exist.
        resume: go on from ``out/last.ckpt``; a run that is complete is left as it is.
        command: the command line, kept in the checkpoint for the card.

    Raises:
        CheckpointError: ``resume`` without a checkpoint, or with one of another run or other files.
        TrainingError: the network cannot be built, the images do not suit it, the batch does not
            suit the number of devices, or the loss is no longer finite.
    """
    config = with_image_size(config, data)
    fabric = make_fabric(config)
    batches = TrainingBatches(fabric, config, data.train)
    model = make_model(config, data)
    init = None if resume else config.init
    others = {path: checkpoint.load_origin(Path(path)) for path in (init, *config.teacher) if path}
    if init:
        checkpoint.take_weights(init, others[init], model, data.labels)
    frozen = _freeze(config, model)
    optimizer = make_optimizer(config, model)
    scheduler = make_scheduler(optimizer, config, len(batches))
    teachers = make_teachers(config, others, data, fabric)
    objective = Objective(config, model, data, fabric, teachers)
    wrapped, wrapped_optimizer = fabric.setup(compiled(model) if config.compile else model, optimizer)

    run = checkpoint.Run(config, checkpoint.lineage(others.values(), command), data)
    history: list[Epoch] = []
    if resume:
        state = checkpoint.load(out / "last.ckpt")
        run.restore(state, model, optimizer, scheduler)
        run.require_same_split(out)
        run = replace(run, command=state["command"])
        history = [Epoch(**line) for line in state["history"]]
    elif fabric.is_global_zero:
        out.mkdir(parents=True, exist_ok=True)
        run.save_split(out)

    for number in range(len(history) + 1, config.epochs + 1):
        started = time.perf_counter()
        lr = float(scheduler.get_last_lr()[0])
        seed = config.seed * 1_000_003 + number
        torch.manual_seed(seed + fabric.global_rank)  # for networks that draw, such as by dropout
        progress = _progress(fabric, batches.epoch(seed), len(batches), f"epoch {number}/{config.epochs}")
        wrapped.train()
        for module in frozen:
            module.eval()
        train = _train_epoch(fabric, wrapped, wrapped_optimizer, scheduler, objective, progress, number)
        if not math.isfinite(train[0]):
            raise TrainingError(f"epoch {number}: the loss is {train[0]}; try a smaller lr than {config.lr}")
        val = _evaluate(
            fabric,
            wrapped,
            isinstance(model.network, AttentionNetwork),
            evaluation_batches(fabric, data.val, config.batch_size),
        )
        line = Epoch(number, *train, val.loss, val.accuracy, lr, time.perf_counter() - started, *val[2:])
        is_best = all(line.score(config.select_by) >= other.score(config.select_by) for other in history)
        history.append(line)
        if fabric.is_global_zero:
            state = run.state(model, optimizer, scheduler, [asdict(item) for item in history])
            if is_best:  # first, so that a run stopped between the two makes this epoch again
                checkpoint.save(out / "best.ckpt", state)
            checkpoint.save(out / "last.ckpt", state)
            save_curves(history, out / "curves.png", config.select_by)
            tqdm.write(_summary(line, config.epochs))
    fabric.barrier()
    return out / "best.ckpt"


def _freeze(config: TrainConfig, model: Classifier) -> list[nn.Module]:
    """The modules that are to stay as they are; their batch norm must not count either."""
    network = model.network
    if not config.freeze_extractor or not isinstance(network, AttentionNetwork):
        return []
    frozen = network.extractor()
    for module in frozen:
        module.requires_grad_(False)
    return frozen


def _progress(fabric: Fabric, batches: Iterable[Batch], steps: int, title: str) -> tqdm[Batch]:
    """A bar for a person at a terminal; nothing in a log."""
    hidden = None if fabric.is_global_zero else True
    return tqdm(batches, total=steps, desc=title, unit="batch", leave=False, disable=hidden)


def _train_epoch(
    fabric: Fabric,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    objective: Objective,
    batches: tqdm[Batch],
    epoch: int,
) -> tuple[float, float]:
    """Mean loss and accuracy over the epoch, on the augmented images."""
    totals = torch.zeros(3, device=fabric.device)  # loss, hits, images
    for number, batch in enumerate(batches):
        labels = batch[1]
        for position, step in enumerate(objective.steps(model, batch, epoch)):
            optimizer.zero_grad()
            fabric.backward(step.loss)
            optimizer.step()
            if position == 0:
                with torch.no_grad():
                    hits = (step.logits.argmax(dim=1) == labels).sum()
                    count = torch.full_like(hits, len(labels))
                    totals += torch.stack([step.loss * len(labels), hits, count])
        scheduler.step()
        if number % 10 == 0 and not batches.disable:
            mean_loss, accuracy = (totals[:2] / totals[2]).tolist()
            batches.set_postfix(loss=f"{mean_loss:.3f}", accuracy=f"{accuracy:.3f}", refresh=False)
    summed: Any = fabric.all_reduce(totals, reduce_op="sum")
    loss, accuracy = (summed[:2] / summed[2]).tolist()
    return loss, accuracy


class _Validation(NamedTuple):
    loss: float
    accuracy: float
    balanced_accuracy: float
    kappa: float
    attention: float | None


@torch.no_grad()
def _evaluate(fabric: Fabric, model: nn.Module, attends: bool, batches: Iterable[Batch]) -> _Validation:
    """All images that have a label; the attention of those that have a defect."""
    model.eval()
    rows: list[Tensor] = []  # (b, 4): target, prediction, cross-entropy, attention inside the defect
    classes = 0
    for pixels, targets, masks in batches:
        found: AttentionOutputs | None = model(pixels, outputs=True) if attends else None
        logits: Tensor = (model(pixels) if found is None else found.logits).float()
        classes = logits.shape[1]
        inside = torch.full_like(logits[:, 0], torch.nan)
        if found is not None and masks is not None:
            known = (masks[:, 0, 0] != NO_MASK).cpu().numpy()
            shares = energy_inside(found.maps[0].float().cpu().numpy(), masks.cpu().numpy(), known)
            inside = torch.from_numpy(shares).to(logits)
        loss = F.cross_entropy(logits, targets, reduction="none", ignore_index=NO_LABEL)
        rows.append(torch.stack([targets.float(), logits.argmax(dim=1).float(), loss, inside], dim=1))
    gathered: Any = fabric.all_gather(torch.cat(rows))
    table = gathered.reshape(-1, 4).cpu().numpy()
    table = table[table[:, 0] != NO_LABEL]
    labels, predictions = table[:, 0].astype(np.int64), table[:, 1].astype(np.int64)
    attention = table[:, 3][~np.isnan(table[:, 3])]
    return _Validation(
        loss=float(table[:, 2].mean()),
        accuracy=float((labels == predictions).mean()),
        balanced_accuracy=balanced_accuracy(labels, predictions, classes),
        kappa=quadratic_weighted_kappa(labels, predictions, classes),
        attention=float(attention.mean()) if len(attention) else None,
    )


def _summary(line: Epoch, epochs: int) -> str:
    attention = "" if line.val_attention is None else f"inside {line.val_attention:.4f}  "
    return (
        f"epoch {line.epoch:3d}/{epochs}  loss {line.train_loss:.4f}  accuracy {line.train_accuracy:.4f}  "
        f"val loss {line.val_loss:.4f}  val accuracy {line.val_accuracy:.4f}  "
        f"balanced {line.val_balanced_accuracy:.4f}  kappa {line.val_kappa:.4f}  {attention}"
        f"lr {line.lr:.4f}  {line.seconds:.1f} s"
    )
