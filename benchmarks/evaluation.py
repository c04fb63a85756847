"""Insertion and deletion, and the pointing game: public libraries over ours, doing the same work.

In this process, on one thread; sides taken in turn, by the time the process takes, so that neighbours on
the machine count little. Everybody gets the maps ready, at the size of the input, and the same number of
steps, 24, which Quantus can take at every size. Passes are counted: images that go through the network.

Two forms are compared. From zeros: insertion begins where deletion ends, the one form that all can do. As
in RISE: insertion begins at a blur, for which torch-cam takes two metrics, of each of which half is thrown
away. Quantus has no insertion: the deletion of the negated map, read backwards, is one; its features are
channels of pixels, so its steps are the same to a pixel. pytorch-grad-cam has neither, so its metric of one
threshold is asked 24 times for each, with one pass each, which leaves out its own pass of the whole image;
ROAD is what it offers itself: another imputation, 9 thresholds. Libraries take the network as it is loaded
in torch and their own batches; "on our passes" gives torch-cam the network as we run it, so that what is
left is the metric itself.
"""

from __future__ import annotations

import contextlib
import functools
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.measures.pointing import pointing_hits
from konkyo.evaluation.passes import for_many_passes
from konkyo.evaluation.pixels_by_rank import area, blur_kernel, blurred, insertion_deletion
from konkyo.evaluation.sources import enlarged, find_source
from konkyo.models.bundle import read_bundle
from konkyo.models.loading import load_explained
from konkyo.service.settings import ZOO

SAMPLES = ZOO.parent / "service/web/samples"
PHOTOS = "astronaut", "chelsea", "coffee", "palace", "rocket"
TILES = "tile-blowhole", "tile-break", "tile-crack", "tile-fray", "tile-uneven"
NETWORKS = (
    ("gcm-cifar10", PHOTOS, 100),
    ("abn-magnetic-tile", TILES, 20),
    ("efficientnet-lite0-imagenet", PHOTOS, 4),
)
"""Bundle, its pictures, and how many a round: with 5 rounds 100 of the first two, 20 of the last."""
STEPS = 24
ROAD_IMAGES = 2
MASKS = 100

Report = Callable[[str, list[tuple[float, float]], str, str], None]


class Task(NamedTuple):
    """What all sides are given.

    Attributes:
        plain: the network as it is loaded.
        quick: as we run it, in ONNX Runtime.
        images: (B, 3, H, W) normalised.
        maps: (B, H, W), not negative.
        step: pixels of a step.
    """

    plain: nn.Module
    quick: _Passes
    images: Tensor
    maps: Tensor
    step: int


class Side(NamedTuple):
    """One way to do it.

    Attributes:
        run: does it for the first images.
        images: how many.
        network: whose passes are counted.
    """

    run: Callable[[], object]
    images: int
    network: nn.Module


class _Passes(nn.Module):
    """A candidate's passes as a network."""

    def __init__(self, candidate: Candidate) -> None:
        super().__init__()
        self.candidate = candidate

    def forward(self, images: Tensor) -> Tensor:
        return self.candidate.logits_of_normalised(images)


class _Ready:
    """Maps that are there already, where torch-cam makes them."""

    def __init__(self, model: nn.Module, maps: Tensor) -> None:
        self.model, self.maps = model, maps

    def __call__(self, *_: object, **__: object) -> list[Tensor]:
        return [self.maps]

    def fuse_cams(self, maps: list[Tensor]) -> Tensor:
        return maps[0]

    def _hooks_off(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


def run(rounds: int, report: Report) -> None:
    """Every network, every library."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, pictures, count in NETWORKS:
            _insertion_deletion(name, pictures, count, rounds, report)
        for size in (32, 224):
            _pointing(size, rounds, report)
    torch.set_num_threads(threads)


def _pictures(names: tuple[str, ...], count: int, side: int) -> Tensor:
    """Different parts of the shipped samples: (count, side, side, 3) uint8."""
    generator = np.random.default_rng(0)
    found = []
    for number in range(count):
        photo = Image.open(SAMPLES / f"{names[number % len(names)]}.jpg").convert("RGB")
        part = int(min(photo.size) * generator.uniform(0.5, 1))
        left, top = (int(generator.integers(0, length - part + 1)) for length in photo.size)
        found.append(np.asarray(photo.resize((side, side), box=(left, top, left + part, top + part))))
    return torch.from_numpy(np.stack(found))


def _task(name: str, pictures: tuple[str, ...], count: int) -> Task:
    bundle = read_bundle(ZOO / name / "1")
    plain = load_explained(bundle).eval().requires_grad_(False).classifier
    candidate = Candidate.load(bundle)
    pixels = _pictures(pictures, count, candidate.size[0])
    source = find_source(candidate.card.explanation.method, candidate)
    maps = source.important(source.maps(candidate, pixels, torch.full((count, 1), -1)))
    height, width = candidate.size
    return Task(
        plain.network, _Passes(for_many_passes(candidate)).eval(), plain.normalise(pixels),
        enlarged(maps, candidate.size)[:, 0], -(-height * width // STEPS),
    )  # fmt: skip


def _ours(task: Task, *, blur: bool) -> object:
    start = blurred(task.images, blur_kernel(11, 5)) if blur else None
    scores = insertion_deletion(
        task.quick, task.images, task.maps[:, None], start=start, step=task.step,
        at_once=task.quick.candidate.at_once,
    )  # fmt: skip
    return [float(area(curve).mean()) for curve in scores]


@torch.no_grad()
def _torchcam(task: Task, network: nn.Module, *, blur: bool) -> object:
    from torchcam.metrics import DeletionInsertionMetric

    ready = _Ready(network, task.maps)
    starts = (None, lambda given: blurred(given, blur_kernel(11, 5))) if blur else (None,)
    found = []
    for start in starts:
        softmax = functools.partial(torch.softmax, dim=-1)
        metric = DeletionInsertionMetric(ready, softmax, steps=STEPS, baseline=start)
        metric.update(task.images)
        found.append(metric.summary())
    return found


def _quantus(task: Task) -> object:
    import quantus

    images, maps = task.images.numpy(), task.maps.numpy()[:, None]
    predicted = task.quick(task.images).argmax(dim=1).numpy()
    metric = quantus.PixelFlipping(
        features_in_step=images[0].size // STEPS, perturb_baseline=0.0, normalise=False, disable_warnings=True
    )
    ranks = maps, maps.max() - maps  # it refuses maps that are nowhere positive
    return [metric(task.plain, images, predicted, rank, channel_first=True) for rank in ranks]


def _targets(task: Task, count: int) -> list[Any]:
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    predicted = task.quick(task.images[:count]).argmax(dim=1)
    return [ClassifierOutputSoftmaxTarget(number) for number in predicted.tolist()]


def _grad_cam(task: Task) -> object:
    from pytorch_grad_cam.metrics.perturbation_confidence import (
        PerturbationConfidenceMetric,
        RemoveLeastRelevantFirst,
        RemoveMostRelevantFirst,
    )

    given = task.images, task.maps.numpy(), _targets(task, len(task.images)), task.plain
    return [
        PerturbationConfidenceMetric(order(100 * step / STEPS, torch.mul))(*given, return_diff=False)
        for order in (RemoveMostRelevantFirst, RemoveLeastRelevantFirst)
        for step in range(STEPS)
    ]


def _road(task: Task) -> object:
    from pytorch_grad_cam.metrics.road import ROADCombined

    part = slice(ROAD_IMAGES)
    return ROADCombined()(task.images[part], task.maps[part].numpy(), _targets(task, ROAD_IMAGES), task.plain)


def _sides(task: Task) -> Iterator[tuple[str, bool, Side, str]]:
    """Name, whether insertion begins at a blur, side, aim."""
    count = len(task.images)
    for blur in (True, False):
        own = functools.partial(_torchcam, task, task.plain, blur=blur)
        given = functools.partial(_torchcam, task, task.quick, blur=blur)
        yield "torch-cam", blur, Side(own, count, task.plain), ">= 3"
        yield "torch-cam on our passes", blur, Side(given, count, task.quick), "-"
    for name, work in (("Quantus", _quantus), ("pytorch-grad-cam", _grad_cam)):
        yield name, False, Side(functools.partial(work, task), count, task.plain), ">= 3"
    yield "pytorch-grad-cam, ROAD", False, Side(functools.partial(_road, task), ROAD_IMAGES, task.plain), "-"


def _insertion_deletion(
    name: str, pictures: tuple[str, ...], count: int, rounds: int, report: Report
) -> None:
    task = _task(name, pictures, count)
    size = task.images.shape[-1]
    ours = {
        blur: Side(functools.partial(_ours, task, blur=blur), count, task.quick) for blur in (True, False)
    }
    passes = {blur: _passes(side) for blur, side in ours.items()}
    for library, blur, side, aim in _sides(task):
        theirs = _passes(side)  # the first run, which also allocates
        pairs = [(_timed(side), _timed(ours[blur])) for _ in range(rounds)]
        form = "RISE" if blur else "zeros"
        title = f"{size}x{size}, {form}: {library} / ours"
        report(title, pairs, aim, f"ms an image, {theirs:.1f} to {passes[blur]:.1f} passes")


def _pointing(size: int, rounds: int, report: Report) -> None:
    """Maps of random values, boxes as masks."""
    import quantus

    generator = torch.Generator().manual_seed(0)
    maps = torch.rand((MASKS, size, size), generator=generator)
    corners = torch.randint(0, size // 2, (MASKS, 2), generator=generator)
    masks = torch.zeros((MASKS, size, size), dtype=torch.bool)
    for mask, (top, left) in zip(masks, corners.tolist(), strict=True):
        mask[top : top + size // 3, left : left + size // 3] = True
    game = quantus.PointingGame(normalise=False, disable_warnings=True)
    given = torch.zeros((MASKS, 3, size, size)).numpy(), np.zeros(MASKS, np.int64)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * size * size, 2)).eval()  # never asked

    def theirs() -> object:
        return game(network, *given, maps[:, None].numpy(), masks[:, None].numpy())

    sides = [Side(work, MASKS, network) for work in (theirs, lambda: pointing_hits(maps, masks, tolerance=0))]
    for side in sides:
        side.run()
    pairs = [(_timed(sides[0]), _timed(sides[1])) for _ in range(rounds)]
    report(f"{size}x{size}, pointing: Quantus / ours", pairs, ">= 3", "ms an image")


def _passes(side: Side) -> float:
    """Images through the network, for each image that is measured."""
    seen = 0

    def count(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        nonlocal seen
        seen += len(given[0])

    with side.network.register_forward_pre_hook(count):
        side.run()
    return seen / side.images


def _timed(side: Side) -> float:
    """Milliseconds of this process for an image."""
    started = time.process_time()
    side.run()
    return 1e3 * (time.process_time() - started) / side.images
