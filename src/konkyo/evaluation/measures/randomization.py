"""Whether a map changes when the network forgets what it has learnt.

The model parameter randomisation test (Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018,
section 3): the layers of a copy of the network are given random parameters, from the head to the input,
and the map of the class that the trained network predicts is made anew. A map that looks as before
cannot show what was learnt; such a map is one of the picture.

Layers are modules with parameters of their own, in the order in which the network uses them. They are
randomised in four stages: the last layer, then the last third, the last two thirds, and all. A module
draws its parameters as it does when it is made (``reset_parameters``); batch norms forget what they
measured, too. Parameters of other modules, such as position embeddings, are shuffled.

As in the paper, maps are compared by rank correlation, of the values and of their absolute values, and by
structural similarity, for which they are scaled to a largest absolute value of 1 and enlarged to the input.

Shape legend: B images, h, w grid of the maps, H, W input size, L layers, T stages.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure

from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.examples import Batch
from konkyo.evaluation.measures import register
from konkyo.evaluation.measures.base import (
    Columns,
    Curve,
    Float64,
    Mean,
    Measure,
    Missing,
    Parameters,
    Record,
    Statistic,
    Unsuited,
)
from konkyo.evaluation.similarity import rank_correlation
from konkyo.evaluation.sources import Source, enlarged
from konkyo.models.classifier import Classifier
from konkyo.models.cut import Trace

STAGES = {
    "head": "the last layer random",
    "third": "the last third of the layers random",
    "two_thirds": "the last two thirds of the layers random",
    "all": "all layers random",
}
"""In the order of the cascade, in words."""

_KINDS = {
    "correlation": "rank correlation with the map of the trained network",
    "absolute": "rank correlation of the absolute values",
    "ssim": "structural similarity",
}


def layers_in_order(network: nn.Module) -> list[nn.Module]:
    """Modules with parameters of their own, in the order in which the network uses them.

    Raises:
        ValueError: the network is no graph.
    """
    found: dict[nn.Module, None] = {}
    for node in Trace(network).graph.nodes:
        if node.op == "get_attr":
            path, _, _ = str(node.target).rpartition(".")
            used = [network.get_submodule(path)]
        elif node.op == "call_module":
            used = list(network.get_submodule(str(node.target)).modules())
        else:
            continue
        found |= dict.fromkeys(
            module for module in used if any(True for _ in module.parameters(recurse=False))
        )
    return list(found)


def cascade(layers: int) -> tuple[int, ...]:
    """How many layers, from the head on, are random: the last, a third, two thirds, all of L."""
    return tuple(max(1, math.ceil(layers * share)) for share in (0, 1 / 3, 2 / 3, 1))


def randomized(classifier: Classifier, counts: Sequence[int], seed: int) -> list[Classifier]:
    """Copies on the CPU whose last layers are random: for each of ``counts``, rising, that many of them.

    Raises:
        ValueError: the network is no graph.
    """
    current = copy.deepcopy(classifier).cpu()
    layers = layers_in_order(current.network)[::-1]
    copies = []
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # modules draw from it, and there is no other way
        done = 0
        for count in counts:
            for layer in layers[done:count]:
                _randomize(layer)
            done = count
            copies.append(copy.deepcopy(current))
    return copies


@torch.no_grad()
def _randomize(layer: nn.Module) -> None:
    reset = getattr(layer, "reset_parameters", None)
    if reset is not None:
        reset()
        return
    for parameter in layer.parameters(recurse=False):
        shuffled = parameter.flatten()[torch.randperm(parameter.numel())]
        parameter.copy_(shuffled.view_as(parameter))


def structural_similarity(first: Tensor, second: Tensor) -> Float64:
    """Of maps scaled to a largest absolute value of 1: (n, 1, H, W) each, a side at least 6 -> (n,).

    By torchmetrics, with its Gaussian window of deviation 1.5 (Wang et al., 2004).
    """
    found = structural_similarity_index_measure(
        _scaled(first), _scaled(second), data_range=2.0, reduction="none"
    )
    assert isinstance(found, Tensor)  # a second result comes only where it is asked for
    return np.asarray(found.double().cpu().numpy(), np.float64)


def _scaled(maps: Tensor) -> Tensor:
    largest = maps.abs().amax(dim=(1, 2, 3), keepdim=True)
    return maps / torch.where(largest > 0, largest, 1)


class RandomizationParameters(Parameters):
    """Parameters of ``Randomization``."""

    seed: int = Field(default=0, ge=0, lt=2**63, description="of the random parameters")
    unchanged: float = Field(
        default=0.8,
        gt=0,
        le=1,
        description="a map hardly changes if the rank correlation of its values, or of their absolute "
        "values, is at least this",
    )


@register
class Randomization(Measure):
    """Similarity of maps before and after the layers are randomised.

    Raises:
        Unsuited: no maps, or a network whose layers cannot be put in order.
    """

    name = "randomization"
    title = "Randomised parameters"
    reference = "Sanity checks for saliency maps, Adebayo et al., NeurIPS 2018, section 3"
    wants = "predicted"
    parameters = RandomizationParameters
    worst = "correlation_all"

    def __init__(self, candidate: Candidate, source: Source | None, parameters: Parameters) -> None:
        super().__init__(candidate, source, parameters)
        assert isinstance(parameters, RandomizationParameters)
        if source is None:
            raise Unsuited("it compares maps")
        self._source = source
        self._limit = parameters.unchanged
        try:
            layers = len(layers_in_order(candidate.classifier.network))
        except ValueError as error:
            raise Unsuited(f"its layers cannot be put in order: {error}") from None
        counts, seed = cascade(layers), parameters.seed
        self._shares = tuple(count / layers for count in counts)
        self._twins = candidate.once(
            ("randomized", seed),
            lambda: [
                candidate.with_classifier(copy.to(candidate.device))
                for copy in randomized(candidate.classifier, counts, seed)
            ],
        )

    def records(self, batch: Batch, targets: Tensor, maps: Tensor) -> Sequence[Record]:
        """See ``Measure.records``."""
        values: dict[str, Float64] = {}
        for stage, twin in zip(STAGES, self._twins, strict=True):
            after = self._source.maps(twin, batch.pixels, targets)
            size = self.candidate.size
            signed = rank_correlation(maps[:, 0], after[:, 0])
            absolute = rank_correlation(maps[:, 0].abs(), after[:, 0].abs())
            similar = np.fmax(signed, absolute)
            values[f"correlation_{stage}"] = signed
            values[f"absolute_{stage}"] = absolute
            values[f"ssim_{stage}"] = structural_similarity(enlarged(maps, size), enlarged(after, size))
            values[f"unchanged_{stage}"] = np.where(np.isnan(similar), np.nan, similar >= self._limit)
        values |= {kind: np.stack([values[f"{kind}_{stage}"] for stage in STAGES], axis=1) for kind in _KINDS}
        return [
            Record(place, {name: found[place].tolist() for name, found in values.items()})
            for place in range(len(batch))
        ]

    def statistics(self) -> Sequence[Statistic]:
        """See ``Measure.statistics``."""
        kinds = [
            Statistic(f"{kind}_{stage}", Mean(f"{kind}_{stage}"), "lower", f"{title}, {STAGES[stage]}")
            for stage in reversed(STAGES)
            for kind, title in {**_KINDS, "unchanged": "share of maps that hardly change"}.items()
        ]
        title = "share of images without a correlation: a map is constant when all layers are random"
        return [*kinds, Statistic("without_order", Missing("correlation_all"), "neither", title)]

    def curves(self) -> Sequence[Curve]:
        """See ``Measure.curves``."""
        return [
            Curve(kind, kind, self._shares, "share of layers randomised", title)
            for kind, title in _KINDS.items()
        ]

    def notes(self, columns: Columns) -> Sequence[str]:
        """See ``Measure.notes``: whether the maps pass."""
        means = {stage: Mean(f"unchanged_{stage}")(columns) for stage in STAGES}
        for stage, share in reversed(means.items()):
            if share >= 0.5:
                shown = (
                    "the picture, not what was learnt" if stage == "all" else "nothing of what these learnt"
                )
                return (f"Most maps hardly change with {STAGES[stage]}: they show {shown}.",)
        return ()
