"""What attention costs: a forward pass of ABN with its map against its backbone alone, a training step of
AMB against one of ABN. In this process, on one thread; sides taken in turn."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import numpy as np
import torch
from lightning_fabric import Fabric

from konkyo.export.onnx import OnnxModel, export_onnx
from konkyo.models.classifier import Classifier
from konkyo.models.explained import Explained
from konkyo.models.registry import as_network, build
from konkyo.training.config import TrainConfig
from konkyo.training.data import ImageData, Images
from konkyo.training.objective import Objective

CUT = {"split": "blocks.2", "branch_end": "blocks.3", "last_stage": "blocks.4"}
LITE = "tf_efficientnet_lite0"
FORWARD = (
    ("ResNet-18, 224x224", 224, {"name": "resnet18"}, {"backbone": "resnet18"}),
    ("EfficientNet-Lite0 to 1/16, 128x128", 128, {"name": LITE, "last_stage": CUT["last_stage"]},
     {"backbone": LITE, **CUT}),
)  # fmt: skip
CLASSES = 6
BATCH = 16

Report = Callable[[str, list[tuple[float, float]], str, str], None]


def _timed(work: Callable[[], object], repeats: int = 5) -> float:
    """Shortest of a few, in milliseconds: what disturbs only ever adds."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return 1e3 * min(times)


def _pairs(ours: Callable[[], object], other: Callable[[], object], rounds: int) -> list[tuple[float, float]]:
    ours(), other()  # the first ones allocate
    return [(_timed(ours), _timed(other)) for _ in range(rounds)]


def forward(rounds: int, report: Report) -> None:
    """ABN with its map against its backbone with nothing, through ONNX Runtime and through torch."""
    for title, side, alone, attended in FORWARD:
        torch.manual_seed(0)
        images = np.random.default_rng(0).integers(0, 256, (BATCH, side, side, 3), np.uint8)
        nothing = np.empty((BATCH, 0), np.int64)
        pixels, no_target = torch.from_numpy(images), torch.from_numpy(nothing)
        abn, backbone = _served("abn", attended), _served("backbone", alone)
        graphs = [OnnxModel(export_onnx(module, width=side, height=side)) for module in (abn, backbone)]
        report(
            f"forward, {title}, ONNX",
            _pairs(partial(graphs[0], images, nothing), partial(graphs[1], images, nothing), rounds),
            "-",
            "ms",
        )
        with torch.inference_mode():
            whole = partial(abn, pixels, no_target)
            report(
                f"forward, {title}, torch",
                _pairs(whole, partial(backbone, pixels, no_target), rounds),
                "-",
                "ms",
            )
            network = abn.classifier.network
            features = network.extract(abn.classifier.normalise(pixels))
            branch = partial(network.attention_branch.attention_map, features)
            report("  the attention branch / the whole", _pairs(branch, whole, rounds), "-", "ms")


def _served(arch: str, arguments: Mapping[str, object]) -> Explained:
    network = build(arch, CLASSES, **arguments)
    return Explained(Classifier(network), as_network(network).explanation).eval()


def training_step(rounds: int, report: Report) -> None:
    """One batch, forward, backward and update, of each objective against ABN's."""
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH, 128, 128, 3), np.uint8)
    labels = np.arange(BATCH) % CLASSES
    images = Images(pixels, labels)
    data = ImageData("random", tuple("abcdef"), images, images, images)
    fabric = Fabric(accelerator="cpu", devices=1)
    settings: Iterable[tuple[str, dict[str, object]]] = (
        ("abn", {}),
        ("amb", {}),
        ("amb", {"prototype_weight": 1.0}),
        ("amb", {"complement": True}),
    )
    steps = []
    for arch, terms in settings:
        config = TrainConfig(arch=arch, arch_args={"backbone": LITE, **CUT}, **terms)
        torch.manual_seed(0)
        model = Classifier(build(arch, CLASSES, **config.arch_args)).train()
        objective = Objective(config, model, data, fabric)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        batch = (torch.from_numpy(pixels), torch.from_numpy(labels), None)

        def step(
            model: Classifier = model,
            objective: Objective = objective,
            optimizer: torch.optim.Optimizer = optimizer,
            batch: tuple[torch.Tensor, torch.Tensor, None] = batch,
        ) -> None:
            for loss, _ in objective.steps(model, batch, epoch=1):
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

        steps.append(step)
    names = ("AMB", "AMB + PC", "AMB + COT")
    for name, step in zip(names, itertools.islice(steps, 1, None), strict=True):
        report(f"training step, {name} / ABN", _pairs(step, steps[0], rounds), "-", "ms")


def run(rounds: int, report: Report) -> None:
    """All of it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    forward(rounds, report)
    training_step(rounds, report)
    torch.set_num_threads(before)
