"""What a run is made of: devices, network, optimizer, schedule."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR, OneCycleLR

from konkyo.converters.packages import pretrained_state
from konkyo.models.abn import ABN
from konkyo.models.backbone import Backbone
from konkyo.models.classifier import Classifier
from konkyo.models.multiscale_abn import MultiScaleABN
from konkyo.models.registry import as_network, build, find, names
from konkyo.models.timm_net import TimmNet
from konkyo.training import checkpoint
from konkyo.training.config import TrainConfig
from konkyo.training.data import ImageData, Images
from konkyo.training.errors import TrainingError


def make_fabric(config: TrainConfig) -> Fabric:
    """The devices of the run, started and seeded.

    Raises:
        TrainingError: the batch does not divide over them.
    """
    # torchrun has already started the processes; Fabric must be told how many, or it counts one.
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 0))
    devices = local or config.devices or "auto"
    nodes = int(os.environ.get("WORLD_SIZE", local)) // local if local else 1
    asked: dict[str, Any] = {
        "accelerator": config.accelerator,
        "devices": devices,
        "num_nodes": nodes,
        "precision": _precision(config),
    }
    fabric = Fabric(**asked)
    if config.arch == "amb" and isinstance(fabric.strategy, DDPStrategy):
        # Each of its losses leaves some parameters out, which the devices must not wait for.
        fabric = Fabric(**asked, strategy="ddp_find_unused_parameters_true")
    fabric.launch()
    fabric.seed_everything(config.seed, verbose=False)
    if config.batch_size % fabric.world_size:
        raise TrainingError(
            f"batch_size {config.batch_size} does not divide over {fabric.world_size} devices"
        )
    return fabric


def _precision(config: TrainConfig) -> Any:
    """bfloat16 where the hardware multiplies it faster than float32; it needs no loss scaling."""
    if config.precision != "auto":
        return config.precision
    if torch.cuda.is_available() and config.accelerator in ("auto", "cuda"):
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16-mixed" if native else "32-true"


def with_image_size(config: TrainConfig, data: ImageData) -> TrainConfig:
    """The run with the size of the images among the arguments of a network of timm.

    Those networks are built for the size of their pretrained weights unless another is said.
    """
    if config.arch not in names() or not issubclass(find(config.arch), TimmNet):
        return config
    arguments = {"image_size": list(data.size), **config.arch_args}
    return config.model_copy(update={"arch_args": arguments})


def make_model(config: TrainConfig, data: ImageData) -> Classifier:
    """The network with its first weights, and the normalisation it wants.

    Raises:
        TrainingError: there is no such network, it does not take its arguments, the images do not
            suit it, or it cannot be explained, which is better known before the training than after.
    """
    try:
        module = build(config.arch, len(data.labels), **config.arch_args)
        if isinstance(module, TimmNet):
            module.hook()
    except (KeyError, TypeError, ValueError) as error:
        # str() of a KeyError quotes the message.
        raise TrainingError(error.args[0] if error.args else f"{config.arch}: {error!r}") from error
    network = as_network(module)
    if any(side % network.stride for side in data.size):
        sides = "x".join(map(str, data.size))
        raise TrainingError(
            f"{config.arch} needs image sides that are multiples of {network.stride}, not {sides}"
        )
    statistics: tuple[Sequence[float], ...] = channel_statistics(data.train) if network.centred else ()
    if config.pretrained:
        statistics = _load_pretrained(config, module)
    # Measured on CPUs: faster for small convolutions.
    return Classifier(module, *statistics).to(memory_format=torch.channels_last)


def _load_pretrained(config: TrainConfig, module: torch.nn.Module) -> tuple[Sequence[float], Sequence[float]]:
    """Give the backbone its ImageNet weights; the normalisation that goes with them."""
    if not isinstance(module, Backbone | ABN | MultiScaleABN):
        raise TrainingError(f"{config.arch} has no backbone to begin with pretrained weights")
    backbone = module if isinstance(module, Backbone) else module.backbone
    state, mean, std = pretrained_state(backbone.name)
    module.load_pretrained(state)
    return mean, std


def channel_statistics(images: Images, chunk: int = 1024) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, in units of the pixel range 0 to 1.

    Args:
        images: counted exactly, ``chunk`` images at a time, because counting widens them eightfold.
        chunk: images a step.
    """
    counts = np.zeros((3, 256), dtype=np.int64)
    for start in range(0, len(images), chunk):
        pixels = images.pixels[start : start + chunk]
        counts += [np.bincount(pixels[..., channel].ravel(), minlength=256) for channel in range(3)]
    values = np.arange(256) / 255
    mean = counts @ values / counts.sum(axis=1)
    variance = counts @ values**2 / counts.sum(axis=1) - mean**2
    return mean.tolist(), np.sqrt(variance.clip(0)).clip(1e-6).tolist()


def make_teachers(
    config: TrainConfig, others: Mapping[str, dict[str, Any]], data: ImageData, fabric: Fabric
) -> list[torch.nn.Module]:
    """The networks to learn from, each of its own architecture, on the device and frozen.

    Args:
        config: names the teachers.
        others: their checkpoints by path.
        data: whose classes they must have.
        fabric: knows the device.

    Raises:
        CheckpointError: one has other classes, or does not fit its own settings.
    """
    teachers: list[torch.nn.Module] = []
    for path in config.teacher:
        theirs = TrainConfig.model_validate(others[path]["config"])
        teacher = make_model(theirs, data)
        checkpoint.take_weights(path, others[path], teacher, data.labels)
        # Not through fabric.setup: a module without gradients cannot be distributed, and need not be.
        teacher.requires_grad_(False).eval().to(fabric.device)
        teachers.append(compiled(teacher) if config.compile else teacher)
    return teachers


def compiled(model: torch.nn.Module) -> torch.nn.Module:
    """The module through ``torch.compile``, which is typed as a mere callable."""
    module: Any = torch.compile(model)
    return cast(torch.nn.Module, module)


def make_optimizer(config: TrainConfig, model: torch.nn.Module) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, or AdamW, over the parameters that are not frozen."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        parameters,
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.momentum > 0,
    )


def make_scheduler(optimizer: torch.optim.Optimizer, config: TrainConfig, steps: int) -> LRScheduler:
    """The learning rate of every step, ``steps`` to the epoch."""
    total = config.epochs * steps
    if config.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=total)
    if config.schedule == "step":
        return MultiStepLR(optimizer, [total // 2, total * 3 // 4], gamma=0.1)
    # One more than there are, because the rate is also set after the last step. A rise of exactly
    # one step is a division by zero in torch; without a rise such a run starts at the top.
    rise = 0.0 if config.warmup * (total + 1) == 1 else config.warmup
    return OneCycleLR(optimizer, config.lr, total_steps=total + 1, pct_start=rise, cycle_momentum=False)
