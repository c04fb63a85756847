"""Maps before and after the layers are random: of toys whose answers are known, and of real networks."""

from __future__ import annotations

import copy
from functools import cache

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from quantus.helpers.model.pytorch_model import PyTorchModel
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity as by_skimage
from torch import Tensor, nn
from toys import SIDE, Given, Linear, make_candidate, make_example, take

from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.measures.base import Unsuited
from konkyo.evaluation.measures.randomization import (
    STAGES,
    Randomization,
    RandomizationParameters,
    cascade,
    layers_in_order,
    randomized,
    structural_similarity,
)
from konkyo.evaluation.sources import Source, find_source
from konkyo.models.bundle import read_bundle
from konkyo.models.classifier import Classifier
from konkyo.models.registry import build
from konkyo.service.settings import ZOO


class Weights(Source):
    """A map made of a layer's parameters."""

    def __init__(self, *path: str) -> None:
        super().__init__("weights")
        self.path = path

    def maps(self, candidate: Candidate, pixels: Tensor, targets: Tensor) -> Tensor:
        weight = candidate.classifier.network.get_parameter(".".join(self.path))
        return weight.detach()[:1].flatten(1).view(1, 1, 1, -1).expand(*targets.shape, 1, -1)


def three_layers() -> nn.Sequential:
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(144, 2),
    )


def noise(seed: int = 0):
    return make_example(np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), np.uint8))


@cache
def photos():
    found = []
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        image = getattr(skimage.data, name)()
        side = min(image.shape[:2])
        found.append(make_example(cv2.resize(image[:side, :side], (32, 32), interpolation=cv2.INTER_AREA)))
    return tuple(found)


def of_real(bundle: str, *sources: str):
    candidate = Candidate.load(read_bundle(ZOO / bundle / "1"))
    return [
        take(Randomization, find_source(name, candidate), *photos(), candidate=candidate) for name in sources
    ]


def test_stages_are_the_last_layer_a_third_two_thirds_and_all() -> None:
    assert cascade(21) == (1, 7, 14, 21)
    assert cascade(4) == (1, 2, 3, 4)
    assert cascade(1) == (1, 1, 1, 1)


def test_layers_are_random_from_the_head_on_each_as_the_module_draws_it() -> None:
    network = three_layers()
    first, middle, head = network[0].weight, network[2].weight, network[5].weight
    copies = [item.network for item in randomized(Classifier(network), cascade(3), seed=7)]
    expected = copy.deepcopy(network)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        for layer in (expected[5], expected[2], expected[0]):
            layer.reset_parameters()
    for stage, random in enumerate((1, 1, 2, 3)):
        for place, (index, trained) in enumerate(((5, head), (2, middle), (0, first))):
            wanted = expected[index].weight if place < random else trained
            assert torch.equal(copies[stage][index].weight, wanted)
    assert torch.equal(network[0].weight, first)


def test_the_head_is_what_quantus_makes_of_it() -> None:
    """Quantus draws each layer from the same seed, so that only the first of the cascade compares."""
    network = three_layers().eval()
    _, theirs = next(PyTorchModel(network, channel_first=True).get_random_layer_generator("top_down", seed=6))
    ours = randomized(Classifier(network), (1,), seed=7)[0].network
    for name, parameter in theirs.named_parameters():
        assert torch.equal(ours.get_parameter(name), parameter)


def test_a_map_of_a_layer_changes_when_that_layer_does() -> None:
    network = three_layers()
    candidate = make_candidate(network)
    found = take(Randomization, Weights("0", "weight"), noise(), candidate=candidate, seed=3)
    after = randomized(candidate.classifier, (3,), seed=3)[0].network[0].weight
    before = network[0].weight.detach()
    expected = spearmanr(before[0].flatten(), after[0].flatten()).statistic
    assert found.columns["correlation"][0] == pytest.approx([1, 1, 1, expected])
    expected = spearmanr(before[0].abs().flatten(), after[0].abs().flatten()).statistic
    assert found.columns["absolute"][0] == pytest.approx([1, 1, 1, expected])
    assert found.columns["unchanged_two_thirds"].tolist() == [1]
    assert found.columns["unchanged_all"].tolist() == [0]
    assert found.notes == (
        "Most maps hardly change with the last two thirds of the layers random: they show nothing of what "
        "these learnt.",
    )
    head = take(Randomization, Weights("5", "weight"), noise(), candidate=candidate, seed=3)
    assert (head.columns["correlation"][0] < 0.5).all()
    assert head.notes == ()


def test_parameters_of_modules_that_draw_none_are_shuffled() -> None:
    network = Linear(torch.arange(2 * SIDE * SIDE).float().view(2, SIDE, SIDE), [1.0, 2.0])
    [changed] = randomized(Classifier(network), (1,), seed=0)
    assert not torch.equal(changed.network.weights, network.weights)
    assert sorted(changed.network.weights.flatten().tolist()) == sorted(network.weights.flatten().tolist())


@pytest.mark.parametrize("seed", [0, 1])
def test_the_seed_and_nothing_else_decides(seed: int) -> None:
    network = Classifier(three_layers())
    torch.manual_seed(seed)
    [first] = randomized(network, (3,), seed=4)
    torch.rand(3)
    [again], [other] = randomized(network, (3,), seed=4), randomized(network, (3,), seed=5)
    assert torch.equal(first.network[0].weight, again.network[0].weight)
    assert not torch.equal(first.network[0].weight, other.network[0].weight)


@pytest.mark.parametrize(
    ("architecture", "arguments", "head", "unused"),
    [
        ("cnn", {}, "fc", set()),
        ("gcm", {}, "class_layer", set()),
        # The class output of the attention branch is no part of the decision.
        ("abn", {}, "backbone.parts.7", {"attention_branch.classify"}),
        (
            "timm",
            {"name": "vit_tiny_patch16_224", "image_size": [64, 64], "model_args": {"depth": 2}},
            "network.head",
            set(),
        ),
    ],
)
def test_every_layer_that_counts_has_its_place_and_the_head_is_last(
    architecture: str, arguments: dict[str, object], head: str, unused: set[str]
) -> None:
    network = build(architecture, 5, **arguments).eval()
    named = {module: name for name, module in network.named_modules()}
    found = [named[layer] for layer in layers_in_order(network)]
    known = {
        name
        for name, module in network.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    }
    assert known - set(found) == unused
    assert len(found) == len(set(found))
    assert found[-1] == head
    if architecture == "abn":  # attention comes before what it attends
        assert found.index("attention_branch.map.0") < found.index("backbone.parts.5.0.conv1")


@pytest.mark.parametrize("baseline", ["random", "centre", "edges"])
def test_a_baseline_does_not_change(baseline: str) -> None:
    [found] = of_real("cnn-cifar10", baseline)
    for stage in STAGES:
        for kind in ("correlation", "absolute", "ssim", "unchanged"):
            assert found.figures[f"{kind}_{stage}"] == pytest.approx(1, abs=1e-6)
    assert found.notes == (
        "Most maps hardly change with all layers random: they show the picture, not what was learnt.",
    )


def test_guided_backpropagation_hardly_knows_the_head_and_cam_does() -> None:
    """Adebayo et al., figure 2: guided backpropagation is invariant to the higher layers."""
    guided, cam = of_real("cnn-cifar10", "guided-backprop", "cam")
    assert guided.figures["correlation_head"] > 0.9
    assert guided.figures["unchanged_head"] == 1
    assert cam.figures["correlation_head"] < 0.5
    assert cam.figures["unchanged_all"] == 0


def test_a_map_that_becomes_constant_is_counted_and_is_not_unchanged() -> None:
    class ThenFlat(Given):
        calls = 0

        def maps(self, candidate: Candidate, pixels: Tensor, targets: Tensor) -> Tensor:
            self.calls += 1
            return super().maps(candidate, pixels, targets) * (self.calls < 5)

    candidate = make_candidate(three_layers())
    found = take(Randomization, ThenFlat(torch.rand(SIDE, SIDE)), noise(), candidate=candidate)
    assert found.columns["correlation"][0][:3] == pytest.approx([1, 1, 1])
    assert np.isnan(found.columns["correlation_all"]).all()
    assert np.isnan(found.columns["unchanged_all"]).all()
    assert found.figures["without_order"] == 1


def test_structural_similarity_is_scikit_images() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.rand(2, 1, 1, 24, 24, generator=generator) * 4 - 2
    # torchmetrics mirrors the maps at their edges.
    scaled = [np.pad((maps / maps.abs().max())[0, 0].double(), 5, "reflect") for maps in (first, second)]
    _, whole = by_skimage(
        *scaled, data_range=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    assert structural_similarity(first, second) == pytest.approx([whole[5:-5, 5:-5].mean()], abs=1e-4)
    assert structural_similarity(first, first * 3) == pytest.approx([1])


def test_no_maps_and_networks_that_are_no_graph_are_unsuited() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, image: Tensor) -> Tensor:
            mean = image.mean(dim=(2, 3))
            return self.fc(mean) if mean.sum() > 0 else -self.fc(mean)

    with pytest.raises(Unsuited, match="compares maps"):
        Randomization(make_candidate(three_layers()), None, RandomizationParameters())
    with pytest.raises(Unsuited, match="cannot be put in order: Branching"):
        Randomization(make_candidate(Branching()), Given(torch.eye(SIDE)), RandomizationParameters())
