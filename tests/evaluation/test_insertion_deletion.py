"""Insertion and deletion of RISE, against the authors' procedure written down pixel by pixel."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import quantus
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter
from torch import nn
from torchcam.methods import CAM
from torchcam.metrics import DeletionInsertionMetric
from toys import SIDE, Given, Linear, make_batch, make_candidate, make_example

from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.measures.base import Unsuited
from konkyo.evaluation.measures.insertion_deletion import (
    InsertionDeletionByPixels,
    InsertionDeletionParameters,
)
from konkyo.evaluation.passes import for_many_passes
from konkyo.evaluation.pixels_by_rank import (
    area,
    blur_kernel,
    blurred,
    default_step,
    insertion_deletion,
    salient_order,
)
from konkyo.evaluation.sources import find_source
from konkyo.imaging import open_image
from konkyo.models.bundle import read_bundle
from konkyo.service.settings import ZOO

SAMPLES = ZOO.parent / "service/web/samples"


@pytest.fixture(scope="module")
def shipped():
    """A shipped network with its sample pictures, which have the size of its input."""
    candidate = Candidate.load(read_bundle(ZOO / "gcm-cifar10" / "1"))
    pictures = [
        np.asarray(open_image((SAMPLES / f"cifar10-{name}.png").read_bytes())) for name in ("dog", "ship")
    ]
    return candidate, torch.from_numpy(np.stack(pictures))


def shown_step_by_step(image, saliency, step, start, finish):
    """Every image that the authors' procedure shows, and the final one: (n + 1, D, H, W)."""
    order = np.flip(np.argsort(saliency.reshape(-1, saliency.size), axis=1), axis=-1)[0]
    canvas = start.copy()
    shown = [canvas.copy()]
    width = saliency.shape[1]
    for first in range(0, len(order), step):
        for position in order[first : first + step]:
            row, column = divmod(int(position), width)
            for channel in range(len(image)):
                canvas[channel, row, column] = finish[channel, row, column]
        shown.append(canvas.copy())
    return np.stack(shown)


def blur_by_loops(image, size, sigma):
    """Every pixel a weighted sum of its neighbours, those beyond the border 0."""
    dot = np.zeros((size, size))
    dot[size // 2, size // 2] = 1
    kernel = gaussian_filter(dot, sigma)
    reach = size // 2
    padded = np.pad(image.astype(np.float64), ((0, 0), (reach, reach), (reach, reach)))
    soft = np.empty_like(image)
    for row, column in np.ndindex(image.shape[1:]):
        window = padded[:, row : row + size, column : column + size]
        soft[:, row, column] = (window * kernel).sum(axis=(1, 2))
    return soft


def record(seen):
    """A network that remembers what it is shown; two classes, the first always predicted."""

    def logits_of(images):
        seen.extend(images.numpy().copy())
        return torch.stack([images.mean(dim=(1, 2, 3)), torch.full((len(images),), -9.0)], dim=1)

    return logits_of


def tied_maps(count, side, seed=0):
    """Maps of few values, so that many pixels are equal, each with a large zero area."""
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.integers(-3, 4, (count, 1, side, side)).clip(min=0).astype(np.float32))


def test_the_images_shown_are_those_of_the_procedure_bit_for_bit() -> None:
    side, step = 32, 100  # 11 steps, the last of 24 pixels; numpy sorts 1024 numbers other than 16
    images = torch.randn((2, 3, side, side), generator=torch.Generator().manual_seed(0))
    saliency, start = tied_maps(2, side), blurred(images, blur_kernel(11, 5))
    seen: list[np.ndarray] = []
    insertion_deletion(record(seen), images, saliency, start=start, step=step, at_once=7)
    expected = []
    for image, map_, soft in zip(images.numpy(), saliency[:, 0].numpy(), start.numpy(), strict=True):
        zeros = np.zeros_like(image)
        deleted = shown_step_by_step(image, map_, step, start=image, finish=zeros)
        inserted = shown_step_by_step(image, map_, step, start=soft, finish=image)
        assert len(deleted) == len(inserted) == 12
        assert (deleted[-1] == 0).all()
        assert (inserted[-1] == image).all()
        expected += [*deleted, *inserted]
    assert {image.tobytes() for image in seen} == {image.tobytes() for image in expected}
    # Both images, both blurs, the zeros once, and what lies between: nothing is asked twice.
    assert len(seen) == len({image.tobytes() for image in seen}) == 2 + 2 + 1 + 2 * 2 * 10


@pytest.mark.parametrize("step", [37, 200, 1024, 5000])
def test_scores_of_a_shipped_network_are_those_of_the_procedure(shipped, step: int) -> None:
    candidate, pixels = shipped
    with torch.no_grad():
        images = candidate.classifier.normalise(pixels)
        own = candidate.maps("gcm", pixels, torch.full((2, 1), -1)).clamp(min=0)
    assert (own == 0).float().mean() > 0.1  # ties
    saliency = torch.cat([own, tied_maps(2, 32)], dim=1)
    start = torch.from_numpy(np.stack([blur_by_loops(image, 11, 5) for image in images.numpy()]))
    found = insertion_deletion(
        for_many_passes(candidate).logits_of_normalised,
        images,
        saliency,
        start=blurred(images, blur_kernel(11, 5)),
        step=step,
    )
    for place, image in enumerate(images.numpy()):
        whole = candidate.logits_of_normalised(images[place, None])
        predicted = int(whole.argmax())
        for number, map_ in enumerate(saliency[place].numpy()):
            for curve, (first, last) in (
                (found.insertion[place, number], (start[place].numpy(), image)),
                (found.deletion[place, number], (image, np.zeros_like(image))),
            ):
                shown = torch.from_numpy(shown_step_by_step(image, map_, step, first, last))
                probabilities = candidate.logits_of_normalised(shown).softmax(dim=1)[:, predicted]
                assert curve.shape == (-(-1024 // step) + 1,)
                assert curve.tolist() == pytest.approx(probabilities.tolist(), abs=2e-5)


def test_batches_and_company_change_nothing(shipped) -> None:
    candidate, pixels = shipped
    images = candidate.classifier.normalise(pixels)
    saliency = torch.cat([tied_maps(2, 32, seed) for seed in range(2)], dim=1)
    together = insertion_deletion(candidate.logits_of_normalised, images, saliency, at_once=64)
    for at_once in (1, 16, 1000):
        again = insertion_deletion(candidate.logits_of_normalised, images, saliency, at_once=at_once)
        assert torch.stack(again).numpy() == pytest.approx(torch.stack(together).numpy(), abs=1e-5)
    known = candidate.logits_of_normalised(images)
    alone = insertion_deletion(candidate.logits_of_normalised, images[1:], saliency[1:, 1:], logits=known[1:])
    assert alone.insertion[0, 0].tolist() == pytest.approx(together.insertion[1, 1].tolist(), abs=1e-5)
    assert alone.deletion[0, 0].tolist() == pytest.approx(together.deletion[1, 1].tolist(), abs=1e-5)


def test_the_kernel_reflects_its_tails_and_is_no_gaussian_that_is_cut_off() -> None:
    kernel = blur_kernel(11, 5).numpy()
    # One dimension by hand: a Gaussian of 20 pixels to each side, of the dot and its reflections, which
    # lie 11 pixels apart and turned around.
    weights = np.exp(-0.5 * (np.arange(-20, 21) / 5) ** 2)
    weights /= weights.sum()
    line = np.zeros(11)
    for place in range(11):
        for offset in range(-20, 21):
            at = (place + offset) % 22
            line[place] += weights[offset + 20] * ((at if at < 11 else 21 - at) == 5)
    assert kernel == pytest.approx(np.outer(line, line), rel=1e-5)
    assert kernel.sum() == pytest.approx(1, abs=1e-6)
    cut = np.exp(-0.5 * (np.arange(-5, 6) / 5) ** 2)
    cut = np.outer(cut, cut) / cut.sum() ** 2
    assert np.abs(kernel / cut - 1).max() == pytest.approx(0.76, abs=0.01)


def test_a_blur_darkens_towards_the_border_since_zeros_are_beyond_it() -> None:
    soft = blurred(torch.ones(1, 2, 30, 30), blur_kernel(11, 5))
    assert soft[0, :, 15, 15].tolist() == pytest.approx([1, 1], abs=1e-6)
    assert soft[0, 0, 0, 0] == pytest.approx(float(blur_kernel(11, 5)[5:, 5:].sum()), abs=1e-6)


def test_an_even_kernel_has_no_middle() -> None:
    with pytest.raises(ValueError, match="a kernel of 10 pixels has no middle"):
        blur_kernel(10, 5)
    with pytest.raises(ValidationError, match="a kernel of 10 pixels has no middle"):
        InsertionDeletionParameters(kernel=10)


def test_the_default_step_makes_28() -> None:
    assert (default_step((224, 224)), default_step((32, 32)), default_step((2, 3))) == (8 * 224, 37, 1)


def test_the_area_is_by_trapezoids_each_as_wide_as_the_others() -> None:
    curves = torch.tensor([[1.0, 0.5, 0.25, 0.0], [0, 0, 0, 6]])
    assert area(curves).tolist() == pytest.approx([(0.5 + 0.5 + 0.25) / 3, 1])


@given(st.lists(st.lists(st.integers(0, 3), min_size=24, max_size=24), min_size=1, max_size=3))
def test_the_order_is_that_of_numpy_or_stable(values: list[list[int]]) -> None:
    saliency = torch.tensor(values, dtype=torch.float32).view(-1, 4, 6)
    for map_, order, stable in zip(
        saliency, salient_order(saliency), salient_order(saliency, "stable"), strict=True
    ):
        flat = map_.numpy().reshape(1, -1)
        assert (order.numpy() == np.flip(np.argsort(flat, axis=1), axis=-1)[0]).all()
        assert stable.tolist() == sorted(range(24), key=lambda place: (-flat[0, place], -place))


@pytest.fixture(scope="module")
def beside_libraries():
    """A network, images, and signed maps at their resolution, without ties; what torch-cam says of them."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 12, 3, 1, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4),
    ).eval()  # fmt: skip
    images = F.interpolate(torch.randn(5, 3, 4, 4) * 9, (32, 32)) + torch.randn(5, 3, 32, 32)
    with torch.no_grad():
        network[-1].bias -= network(images).mean(dim=0)
    with CAM(network, target_layer=network[2], fc_layer=network[5], input_shape=(3, 32, 32)) as extractor:
        metric = DeletionInsertionMetric(extractor, partial(torch.softmax, dim=-1), steps=16)
        metric.update(images)
        logits = network(images)
        [maps] = extractor(logits.argmax(dim=1).tolist(), logits, normalized=False)
    return network, images, maps, metric.summary()


def test_from_zeros_and_without_ties_as_torchcam_has_it(beside_libraries) -> None:
    network, images, maps, theirs = beside_libraries
    found = insertion_deletion(network, images, maps[:, None], step=64)
    assert float(area(found.insertion).mean()) == pytest.approx(theirs["insertion_auc"], abs=1e-5)
    assert float(area(found.deletion).mean()) == pytest.approx(theirs["deletion_auc"], abs=1e-5)
    assert theirs["insertion_auc"] > theirs["deletion_auc"]


def test_without_ties_quantus_has_the_same_deletion_but_for_its_first_point(beside_libraries) -> None:
    network, images, maps, _ = beside_libraries
    images, maps = images[:, :, :24, :24], maps[:, :24, :24]
    found = insertion_deletion(network, images, maps[:, None], step=64)
    # A feature of theirs is a channel of a pixel, and a step must divide the pixels.
    metric = quantus.PixelFlipping(features_in_step=3 * 64, perturb_baseline=0.0, disable_warnings=True)
    predicted = network(images).argmax(dim=1).numpy()
    curves = metric(network, images.numpy(), predicted, maps[:, None].numpy(), channel_first=True)
    assert np.array(curves) == pytest.approx(found.deletion[:, 0, 1:].numpy(), abs=1e-5)


def quarter(level: float = 1) -> torch.Tensor:
    """A map, or weights, of the upper left quarter."""
    region = torch.zeros(SIDE, SIDE)
    region[: SIDE // 2, : SIDE // 2] = level
    return region


def seer():
    """Sure of class 1 as long as a pixel of the quarter is white, sure of class 0 if none is."""
    return make_candidate(Linear(torch.stack([0 * quarter(), quarter(1000)]), bias=[500.0, 0.0]))


def white(count: int = 1):
    return [
        make_example(np.full((SIDE, SIDE, 3), 255, np.uint8), name=str(number)) for number in range(count)
    ]


def taken(candidate, maps, examples, **parameters):
    """Records of the registered measure."""
    batch = make_batch(candidate, *examples)
    measure = InsertionDeletionByPixels(candidate, Given(maps), InsertionDeletionParameters(**parameters))
    targets = batch.logits.argmax(dim=1, keepdim=True)
    return measure, measure.records(batch, targets, maps.expand(len(examples), 1, *maps.shape[-2:]))


def test_a_map_of_what_decides_has_a_perfect_deletion_and_insertion() -> None:
    # In steps of the quarter's 16 pixels: gone after the first, there after the first.
    measure, [found] = taken(seer(), quarter(), white(), step=16, insertion_from="zeros")
    assert found.values["deletion_curve"] == [1, 0, 0, 0, 0]
    assert found.values["insertion_curve"] == [0, 1, 1, 1, 1]
    assert (found.values["deletion"], found.values["insertion"]) == (1 / 8, 7 / 8)
    # The finer the steps, the nearer to 0 and 1: the very first pixel inserted is enough.
    _, [found] = taken(seer(), quarter(), white(), step=1, insertion_from="zeros")
    assert found.values["insertion_curve"] == [0] + [1] * 64
    assert found.values["deletion_curve"] == [1] * 16 + [0] * 49
    assert measure.curves()[0].x == (0, 0.25, 0.5, 0.75, 1)
    assert measure.settled() == {"step": 16}


def test_a_map_of_all_else_has_the_worst() -> None:
    _, [found] = taken(seer(), 1 - quarter(), white(), step=16, insertion_from="zeros")
    assert found.values["deletion_curve"] == [1, 1, 1, 1, 0]
    assert found.values["insertion_curve"] == [0, 0, 0, 0, 1]
    assert found.values["score"] == pytest.approx(1 / 8 - 7 / 8)


def test_a_constant_map_takes_pixels_in_the_order_of_ties() -> None:
    # Stable: the last in reading order first, so the quarter's 4 rows are the last to be touched.
    _, [found] = taken(
        seer(), torch.full((1, 1), 0.3), white(), step=4, insertion_from="zeros", ties="stable"
    )
    assert found.values["deletion_curve"] == [1] * 16 + [0]
    assert found.values["insertion_curve"] == [0] * 9 + [1] * 8
    assert found.values["flat"] == 1


def test_what_speaks_against_the_class_ranks_with_the_rest_unless_asked_for() -> None:
    # Only the quarter's negative values tell it from the rest.
    maps = -quarter() - 1
    _, [signed] = taken(
        seer(), maps, white(), step=16, insertion_from="zeros", saliency="signed", ties="stable"
    )
    assert signed.values["insertion_curve"] == [0, 0, 0, 0, 1]
    _, [important] = taken(seer(), maps, white(), step=16, insertion_from="zeros", ties="stable")
    assert important.values["insertion_curve"] == [0, 0, 0, 1, 1]
    assert [signed.values["flat"], important.values["flat"]] == [0, 1]


def test_insertion_starts_from_the_blur_of_the_image(shipped) -> None:
    candidate, pixels = shipped
    examples = [make_example(image) for image in pixels.numpy()]
    source = find_source("gcm", candidate)
    batch = make_batch(candidate, *examples)
    targets = batch.logits.argmax(dim=1, keepdim=True)
    maps = source.maps(candidate, pixels, targets)
    images = candidate.classifier.normalise(pixels)
    for kernel, sigma in ((11, 5.0), (5, 1.0)):
        measure = InsertionDeletionByPixels(
            candidate, source, InsertionDeletionParameters(kernel=kernel, sigma=sigma)
        )
        soft = torch.from_numpy(np.stack([blur_by_loops(image, kernel, sigma) for image in images.numpy()]))
        expected = candidate.logits_of_normalised(soft).softmax(dim=1).gather(1, targets)[:, 0]
        records = measure.records(batch, targets, maps)
        assert [record.values["insertion_curve"][0] for record in records] == pytest.approx(
            expected.tolist(), abs=1e-5
        )
        for record in records:
            assert record.values["insertion_curve"][-1] == record.values["deletion_curve"][0]


def test_statistics_are_means_over_the_images_whose_map_is_finite() -> None:
    maps = torch.stack([quarter(), 1 - quarter(), quarter() * torch.inf])[:, None]
    measure, records = taken(seer(), maps, white(3), step=16, insertion_from="zeros")
    assert all(np.isnan(np.hstack(list(records[2].values.values()))))
    columns = {name: np.array([record.values[name] for record in records]) for name in records[0].values}
    figures = {statistic.name: statistic.of(columns) for statistic in measure.statistics()}
    assert figures == {"insertion": 0.5, "deletion": 0.5, "score": 0, "flat": 0}


def test_maps_that_do_not_fit_and_no_maps_are_refused() -> None:
    images = torch.zeros(2, 3, SIDE, SIDE)
    with pytest.raises(ValueError, match="maps"):
        insertion_deletion(lambda shown: shown[:, :, 0, 0], images, torch.zeros(2, 1, 4, SIDE))
    with pytest.raises(Unsuited, match="by a map"):
        InsertionDeletionByPixels(seer(), None, InsertionDeletionParameters())
