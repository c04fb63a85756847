"""Maps made a second time: by maps whose change is known, and by real bundles."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr
from torch import Tensor, nn
from toys import SIDE, Given, Linear, make_candidate, make_example, take

from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.measures.base import Parameters, Unsuited
from konkyo.evaluation.measures.stability_batch import StabilityBatch
from konkyo.evaluation.measures.stability_half import HalfParameters, StabilityHalf
from konkyo.evaluation.measures.stability_jpeg import JpegParameters, StabilityJpeg
from konkyo.evaluation.measures.stability_onnx import StabilityOnnx
from konkyo.evaluation.measures.stability_shift import ShiftParameters, StabilityShift
from konkyo.evaluation.sources import BASELINES, Source, find_source
from konkyo.models.bundle import read_bundle
from konkyo.service.settings import ZOO

ALL = (StabilityJpeg, StabilityShift, StabilityBatch, StabilityHalf, StabilityOnnx)


class Grey(Source):
    """The picture itself as a map, which moves and is compressed as it is."""

    def maps(self, candidate: Candidate, pixels: Tensor, targets: Tensor) -> Tensor:
        return pixels.float().mean(dim=3)[:, None].expand(*targets.shape, *pixels.shape[1:3])


class Weights(Source):
    """The weights of the class, in the precision of the network."""

    def maps(self, candidate: Candidate, pixels: Tensor, targets: Tensor) -> Tensor:
        return candidate.classifier.network.weights[targets].float()


class OfTheFirst(Grey):
    """A method that mixes its batch up: everybody gets the map of the first image."""

    def maps(self, candidate: Candidate, pixels: Tensor, targets: Tensor) -> Tensor:
        return super().maps(candidate, pixels[:1].expand_as(pixels), targets)


def noise(seed: int = 0, side: int = SIDE):
    return make_example(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8))


def real(name: str) -> Candidate:
    return Candidate.load(read_bundle(ZOO / name / "1"))


def clouds(count: int, side: int = 32):
    coarse = np.random.default_rng(1).integers(0, 256, (count, 4, 4, 3), np.uint8)
    return [make_example(np.asarray(Image.fromarray(one).resize((side, side)))) for one in coarse]


def test_a_map_that_is_the_picture_changes_as_jpeg_changes_it() -> None:
    example, rough = noise(side=16), noise(1, side=16)
    found = take(StabilityJpeg, Grey("grey"), example, rough, candidate=of_side(16), quality=20)
    for place, image in enumerate((example.pixels, rough.pixels)):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "jpeg", quality=20)
        after = np.asarray(Image.open(file)).mean(axis=2)
        before = image.mean(axis=2)
        expected = spearmanr(before.ravel(), after.ravel()).statistic
        assert found.columns["correlation"][place] == pytest.approx(expected, abs=1e-3)
        span = max(np.ptp(before), np.ptp(after))
        assert found.columns["difference"][place] == pytest.approx(np.abs(before - after).max() / span)
    assert found.figures["largest_difference"] == found.columns["difference"].max()
    worse = take(StabilityJpeg, Grey("grey"), example, rough, candidate=of_side(16), quality=5)
    assert worse.figures["correlation"] < found.figures["correlation"] < 1


def of_side(side: int) -> Candidate:
    return make_candidate(Linear(torch.zeros(2, side, side)), side=side)


def test_a_map_that_moves_with_the_picture_is_stable_under_shifts_and_one_that_stays_is_not() -> None:
    moving = take(StabilityShift, Grey("grey"), noise(), noise(1), pixels=2)
    assert moving.columns["correlation"] == pytest.approx([1, 1])
    assert moving.columns["difference"].tolist() == [0, 0]
    ramp = torch.arange(SIDE).float().expand(SIDE, SIDE)  # rises to the right by 1 a pixel
    staying = take(StabilityShift, Given(ramp), noise(), pixels=2)
    # Shifted back, it is off by 2, where it has a range of 7, or of 5 where two columns are cut off.
    assert staying.figures["difference"] == pytest.approx(2 / 5)
    random = take(StabilityShift, Given(torch.rand(SIDE, SIDE)), noise(), pixels=2)
    assert random.figures["correlation"] < 0.5


def test_coarse_maps_are_shifted_back_on_the_input() -> None:
    """A cell is two pixels, so a shift of two pixels is one of a cell and nothing is lost by it."""

    class Cells(Grey):
        def maps(self, candidate: Candidate, pixels: Tensor, targets: Tensor) -> Tensor:
            return torch.nn.functional.avg_pool2d(super().maps(candidate, pixels, targets), 2)

    found = take(StabilityShift, Cells("cells"), *clouds(2), candidate=of_side(32), pixels=2)
    # Only the outermost cells, where bilinear enlargement has no neighbour, are others.
    assert found.figures["correlation"] > 0.99


def test_the_worst_of_the_four_shifts_counts() -> None:
    """A network that looks at the left edge alone changes its mind when something else comes there."""
    weights = torch.zeros(2, SIDE, SIDE)
    weights[1, :, 0] = 1
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[:, 0] = 200
    pixels[:, 7] = np.arange(SIDE)[:, None]
    candidate = make_candidate(Linear(weights, [0.5, 0.0]))
    found = take(StabilityShift, Grey("grey"), make_example(pixels), candidate=candidate, pixels=1)
    assert found.columns["same_class"].tolist() == [0]  # only the shift to the left takes the edge away
    kept = take(StabilityJpeg, Grey("grey"), make_example(pixels), candidate=candidate, quality=95)
    assert kept.columns["same_class"].tolist() == [1]


def test_a_map_that_depends_on_its_batch_is_found() -> None:
    examples = [noise(seed) for seed in range(3)]
    own = take(StabilityBatch, Grey("grey"), *examples)
    assert own.columns["correlation"] == pytest.approx([1, 1, 1])
    assert own.columns["difference"].tolist() == [0, 0, 0]
    mixed = take(StabilityBatch, OfTheFirst("first"), *examples)
    assert (mixed.columns["correlation"] < 0.5).all()  # the first, too, among strangers
    assert mixed.columns["correlation"][0] == pytest.approx(-1)  # there the first is its own negative
    alone = take(StabilityBatch, OfTheFirst("first"), examples[0])
    assert alone.columns["correlation"] == pytest.approx([-1])


@pytest.mark.parametrize(("precision", "step"), [("float16", 2**-12), ("bfloat16", 2**-9)])
def test_what_half_precision_rounds_away_is_the_difference(precision: str, step: float) -> None:
    weights = torch.zeros(2, SIDE, SIDE)
    weights[0, 0, 0] = 1 + step  # rounds to 1
    weights[0, 0, 1] = 0.5
    candidate = make_candidate(Linear(weights))
    found = take(StabilityHalf, Weights("weights"), noise(), candidate=candidate, precision=precision)
    assert found.figures["difference"] == pytest.approx(step / (1 + step))
    assert found.figures["correlation"] == pytest.approx(1)
    assert found.figures["same_class"] == 1
    assert candidate.classifier.network.weights.dtype == torch.float32


def test_what_overflows_in_half_precision_is_counted() -> None:
    weights = torch.zeros(2, SIDE, SIDE)
    weights[0] = torch.linspace(1, 1e5, SIDE * SIDE).view(SIDE, SIDE)
    found = take(StabilityHalf, Weights("weights"), noise(), candidate=make_candidate(Linear(weights)))
    assert found.figures["without_order"] == 1
    assert all(
        math.isnan(found.figures[name]) for name in ("correlation", "difference", "largest_difference")
    )


def test_a_network_that_cannot_be_halved_is_unsuited() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, image: Tensor) -> Tensor:
            return self.fc(image.float().mean(dim=(2, 3)))

    with pytest.raises(Unsuited, match="does not run in float16: mat1 and mat2 must have the same dtype"):
        StabilityHalf(make_candidate(Fixed()), Grey("grey"), HalfParameters())


@pytest.mark.parametrize(
    ("bundle", "source"), [("gcm-cifar10", "gcm"), ("gcm-cifar10", "contribution"), ("cnn-cifar10", "cam")]
)
def test_bundles_are_stable_in_batches_in_half_precision_and_in_onnx(bundle: str, source: str) -> None:
    candidate = real(bundle)
    maps = find_source(source, candidate)
    for kind, close in ((StabilityBatch, 1e-4), (StabilityHalf, 0.05), (StabilityOnnx, 1e-4)):
        found = take(kind, maps, *clouds(4), candidate=candidate)
        assert found.figures["correlation"] > 0.999
        assert found.figures["largest_difference"] < close
        assert found.figures["same_class"] == 1
    halved = take(StabilityHalf, maps, *clouds(4), candidate=candidate)
    assert halved.figures["difference"] > 1e-5  # it did run in half precision


def test_onnx_runs_the_graph_and_not_the_network_in_torch() -> None:
    candidate = real("cnn-cifar10")
    with torch.no_grad():
        candidate.classifier.network.fc.bias[7] += 1000  # torch says 7 now; the graph does not know
    found = take(StabilityOnnx, find_source("cam", candidate), *clouds(4), candidate=candidate)
    assert found.columns["same_class"].tolist() == [0, 0, 0, 0]
    assert found.figures["correlation"] > 0.999  # the map of 7 is what it was


def test_onnx_picks_the_scale_of_a_map_that_has_several() -> None:
    candidate = real("multiscale-abn-magnetic-tile")
    height, width = candidate.size
    coarse = np.random.default_rng(1).integers(0, 256, (4, 4, 3), np.uint8)
    example = make_example(np.asarray(Image.fromarray(coarse).resize((width, height))))
    for name in ("attention", "attention:1"):
        found = take(StabilityOnnx, find_source(name, candidate), example, candidate=candidate)
        assert found.figures["correlation"] > 0.999, name


def test_who_asks_the_model_alone_says_nothing_of_a_baseline() -> None:
    edges = BASELINES["edges"]("edges")
    candidate = real("cnn-cifar10")
    for kind in (StabilityBatch, StabilityHalf, StabilityOnnx):
        with pytest.raises(Unsuited, match="asks no model"):
            kind(candidate, edges, kind.parameters())
    assert StabilityJpeg(candidate, edges, JpegParameters())
    for kind in ALL:
        with pytest.raises(Unsuited, match="compares maps"):
            kind(candidate, None, kind.parameters())


def test_what_has_no_graph_or_is_not_in_it_is_unsuited() -> None:
    candidate = real("cnn-cifar10")
    with pytest.raises(Unsuited, match="holds cam alone"):
        StabilityOnnx(candidate, find_source("gradcam", candidate), Parameters())
    with pytest.raises(Unsuited, match="made of the graph's predictions"):
        StabilityOnnx(candidate, find_source("occlusion", candidate), Parameters())
    with pytest.raises(Unsuited, match="no ONNX graph"):
        StabilityOnnx(make_candidate(Linear(torch.zeros(2, SIDE, SIDE))), Grey("grey"), Parameters())


def test_a_shift_over_the_whole_input_is_unsuited() -> None:
    with pytest.raises(Unsuited, match="leave nothing of an input"):
        StabilityShift(of_side(8), Grey("grey"), ShiftParameters(pixels=4))
