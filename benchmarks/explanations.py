"""What label and Grad-CAM cost, against a plain forward pass: ours, and those of the public libraries.

In this process, on one thread; sides taken in turn. The libraries get more than we take: captum returns
no logits and wants the class beforehand, so its answer lacks the label; torch-cam's hook is registered
once, outside what is timed. Memory is the largest sum of tensors alive at once beyond weights and input.
ResNet-50 and DeiT-S have a closed form; CaiT's tail is differentiated.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from konkyo.models.classifier import Classifier
from konkyo.models.explained import Explained
from konkyo.models.registry import build

NETWORKS = (
    ("ResNet-50", "resnet50", "<= 1.05"),
    ("DeiT-S", "deit_small_patch16_224", "<= 1.25"),
    ("CaiT-XXS36", "cait_xxs36_224", "<= 1.25"),
)
SIDE = 224

Report = Callable[[str, list[tuple[float, float]], str, str], None]
Side = Callable[[], object]


class _Grid(nn.Module):
    """Tokens (B, T, C) of a 14 x 14 grid to (B, C, 14, 14), as pytorch-grad-cam wants to be told."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens[:, -196:].unflatten(1, (14, 14)).movedim(-1, 1)


def _libraries(network: nn.Module, layer: str, image: Tensor, tokens: bool) -> dict[str, Side]:
    """Grad-CAM of the predicted class by each library, on a network of its own."""
    from captum.attr import LayerGradCam
    from pytorch_grad_cam import GradCAM as Jacobgil
    from torchcam.methods import GradCAM as TorchCAM

    with torch.no_grad():
        predicted = int(network(image).argmax())
    module = network.get_submodule(layer)
    captum = LayerGradCam(network, module)
    jacobgil = Jacobgil(network, [module], reshape_transform=_Grid() if tokens else None)
    sides: dict[str, Side] = {
        "captum": lambda: captum.attribute(image, predicted, attr_dim_summation=not tokens),
        "pytorch-grad-cam": lambda: jacobgil(image, targets=None),
    }
    if not tokens:  # torch-cam knows maps (B, C, h, w) only
        extractor = TorchCAM(network, target_layer=module)

        def torchcam() -> object:
            logits = network(image)
            return extractor(int(logits.argmax()), logits)

        sides["torch-cam"] = torchcam
    return sides


def _network(name: str) -> Classifier:
    torch.manual_seed(0)
    return Classifier(build("timm", 1000, name=name)).eval()


def run(rounds: int, report: Report) -> None:
    """Every network, every library; wall time, process time, memory."""
    warnings.filterwarnings("ignore", module="captum")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for title, name, aim in NETWORKS:
        _costs(title, name, aim, rounds, report)
    torch.set_num_threads(threads)


def _costs(title: str, name: str, aim: str, rounds: int, report: Report) -> None:
    pixels = torch.randint(0, 256, (1, SIDE, SIDE, 3), dtype=torch.uint8)
    classifier = _network(name)
    explained = Explained(classifier, "gradcam").eval()
    one, five = torch.tensor([[-1]]), torch.tensor([[-1, 1, 2, 3, 4]])
    hook = explained.explanation.hook
    tokens = hook.layout.kind == "tokens"
    rival = _network(name)  # hooks are left on it
    image = rival.normalise(pixels)
    libraries = _libraries(rival.network.network, hook.layer, image, tokens)

    def plain() -> object:
        with torch.no_grad():
            return classifier(pixels)

    def ours(targets: Tensor) -> object:
        with torch.no_grad():
            return explained(pixels, targets)

    def ours_one() -> object:
        return ours(one)

    def ours_five() -> object:
        return ours(five)

    _compare(f"{title} ours", ours_one, plain, rounds, report, aim)
    _compare(f"{title} ours, five classes / one", ours_five, ours_one, rounds, report, "<= 1.1")
    for library, side in libraries.items():
        _compare(f"{title} {library}", side, plain, rounds, report, "-")


def _compare(title: str, side: Side, other: Side, rounds: int, report: Report, aim: str) -> None:
    side(), other()  # the first ones allocate
    wall, process = [], []
    for _ in range(rounds):
        pairs = [(_timed(side), _timed(other)) for _ in range(5)]
        for kept, clock in ((wall, 0), (process, 1)):
            kept.append(
                tuple(1e3 * statistics.median(pair[which][clock] for pair in pairs) for which in (0, 1))
            )
    report(f"{title}, wall", wall, aim, "ms")
    report(f"{title}, process", process, "-", "ms")
    memory = [(_memory(side) / 1e6, _memory(other) / 1e6)]
    report(f"{title}, memory", memory, "<= 1.1" if aim != "-" else "-", "MB")


def _timed(work: Side) -> tuple[float, float]:
    """Seconds by the clock, and of all threads of this process."""
    wall, process = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - process


def _memory(work: Side) -> int:
    """Largest number of bytes of tensors alive at once that were made on the way."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        work()
    events: Any = found.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    held = largest = 0
    for _, change in changes:
        held += change
        largest = max(largest, held)
    return largest
