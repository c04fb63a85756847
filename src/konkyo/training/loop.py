"""The training loop: one function, every architecture, any number of devices.

Lightning Fabric moves the work to the devices, so ``torchrun`` starts it on several. An epoch
draws all its random numbers from (seed, epoch), so a resumed run continues as if it had never
stopped, and the devices share the very batches one device would have had. What still depends on
their number is batch normalisation, which each device does on its own part.

The best epoch is the one with the highest accuracy on the validation split; of equal ones the last.
The test split is not looked at here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn
from tqdm import tqdm

from konkyo.training import checkpoint
from konkyo.training.batches import NO_LABEL, TrainingBatches, evaluation_batches
from konkyo.training.config import TrainConfig
from konkyo.training.curves import save_curves
from konkyo.training.data import ImageData
from konkyo.training.errors import TrainingError
from konkyo.training.losses.distillation import distillation_loss
from konkyo.training.setup import (
    compiled,
    make_fabric,
    make_model,
    make_optimizer,
    make_scheduler,
    make_teachers,
)


@dataclass(frozen=True)
class Epoch:
    """One line of the history. Losses in nats, accuracies as shares of 1, time in seconds."""

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    lr: float
    seconds: float


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
    fabric = make_fabric(config)
    batches = TrainingBatches(fabric, config, data.train)
    model = make_model(config, data)
    init = None if resume else config.init
    others = {path: checkpoint.load(Path(path)) for path in (init, *config.teacher) if path}
    if init:
        checkpoint.take_weights(init, others[init], model, data.labels)
    optimizer = make_optimizer(config, model)
    scheduler = make_scheduler(optimizer, config, len(batches))
    teachers = make_teachers(config, others, data, fabric)
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
        train = _train_epoch(fabric, wrapped, wrapped_optimizer, scheduler, config, progress, teachers)
        if not math.isfinite(train[0]):
            raise TrainingError(f"epoch {number}: the loss is {train[0]}; try a smaller lr than {config.lr}")
        val = _evaluate(fabric, wrapped, evaluation_batches(fabric, data.val, config.batch_size))
        line = Epoch(number, *train, *val, lr, time.perf_counter() - started)
        is_best = all(line.val_accuracy >= other.val_accuracy for other in history)
        history.append(line)
        if fabric.is_global_zero:
            state = run.state(model, optimizer, scheduler, [asdict(item) for item in history])
            if is_best:  # first, so that a run stopped between the two makes this epoch again
                checkpoint.save(out / "best.ckpt", state)
            checkpoint.save(out / "last.ckpt", state)
            save_curves(history, out / "curves.png")
            tqdm.write(_summary(line, config.epochs))
    fabric.barrier()
    return out / "best.ckpt"


def _progress(
    fabric: Fabric, batches: Iterable[tuple[Tensor, Tensor]], steps: int, title: str
) -> tqdm[tuple[Tensor, Tensor]]:
    """A bar for a person at a terminal; nothing in a log."""
    hidden = None if fabric.is_global_zero else True
    return tqdm(batches, total=steps, desc=title, unit="batch", leave=False, disable=hidden)


def _train_epoch(
    fabric: Fabric,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    config: TrainConfig,
    batches: tqdm[tuple[Tensor, Tensor]],
    teachers: Sequence[nn.Module],
) -> tuple[float, float]:
    """Mean loss and accuracy over the epoch, on the augmented images."""
    model.train()
    totals = torch.zeros(3, device=fabric.device)  # loss, hits, images
    for step, (pixels, labels) in enumerate(batches):
        logits = model(pixels).float()
        with torch.no_grad(), fabric.autocast():  # the teachers see the same augmented images
            taught = [teacher(pixels).float() for teacher in teachers]
        loss = _loss(config, logits, labels, taught)
        optimizer.zero_grad()
        fabric.backward(loss)
        optimizer.step()
        scheduler.step()
        with torch.no_grad():
            hits = (logits.argmax(dim=1) == labels).sum()
            totals += torch.stack([loss * len(labels), hits, torch.full_like(hits, len(labels))])
        if step % 10 == 0 and not batches.disable:
            mean_loss, accuracy = (totals[:2] / totals[2]).tolist()
            batches.set_postfix(loss=f"{mean_loss:.3f}", accuracy=f"{accuracy:.3f}", refresh=False)
    return _means(fabric, totals)


def _loss(config: TrainConfig, logits: Tensor, labels: Tensor, taught: Sequence[Tensor]) -> Tensor:
    """Cross-entropy, or with the logits of teachers distillation."""
    if not taught:
        return F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
    return distillation_loss(
        logits,
        labels,
        torch.stack(list(taught)),
        temperature=config.temperature,
        share=config.teacher_share,
        label_smoothing=config.label_smoothing,
    )


@torch.no_grad()
def _evaluate(
    fabric: Fabric, model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]
) -> tuple[float, float]:
    """Mean cross-entropy and accuracy of all images that have a label."""
    model.eval()
    totals = torch.zeros(3, device=fabric.device)  # loss, hits, images
    for pixels, targets in batches:
        logits = model(pixels).float()
        loss = F.cross_entropy(logits, targets, reduction="sum", ignore_index=NO_LABEL)
        hits = (logits.argmax(dim=1) == targets).sum()
        totals += torch.stack([loss, hits, (targets != NO_LABEL).sum()])
    return _means(fabric, totals)


def _means(fabric: Fabric, totals: Tensor) -> tuple[float, float]:
    summed: Any = fabric.all_reduce(totals, reduce_op="sum")
    loss, accuracy = (summed[:2] / summed[2]).tolist()
    return loss, accuracy


def _summary(line: Epoch, epochs: int) -> str:
    return (
        f"epoch {line.epoch:3d}/{epochs}  loss {line.train_loss:.4f}  accuracy {line.train_accuracy:.4f}  "
        f"val loss {line.val_loss:.4f}  val accuracy {line.val_accuracy:.4f}  "
        f"lr {line.lr:.4f}  {line.seconds:.1f} s"
    )
