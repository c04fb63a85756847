"""Stability of a map in another runtime: the exported graph in ONNX Runtime against torch.

The graph that the bundle holds, on the CPU, with its own explanation, or whatever else asks for nothing
but its predictions.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.exported import GraphCandidate
from konkyo.evaluation.measures import register
from konkyo.evaluation.measures.base import Parameters, Unsuited
from konkyo.evaluation.passes import for_many_passes
from konkyo.evaluation.sources import MethodSource, PerturbationSource, Source
from konkyo.evaluation.stability import Again, Stability
from konkyo.export.onnx import OnnxModel
from konkyo.models.card import ONNX


class ExportedCandidate(Candidate):
    """A candidate whose answers come from its exported graph.

    Args:
        candidate: of the same bundle, in torch.
        graph: path of the graph.
    """

    def __init__(self, candidate: Candidate, graph: Path) -> None:
        self.__dict__.update(vars(candidate))
        self._model = OnnxModel(graph)

    def logits(self, pixels: Tensor) -> Tensor:
        """See ``Candidate.logits``."""
        return self._run(pixels, torch.empty(len(pixels), 0, dtype=torch.int64))[0]

    def maps(self, method: str, pixels: Tensor, targets: Tensor) -> Tensor:
        """See ``Candidate.maps``, of the graph's own method only."""
        assert method == self.card.explanation.method, f"the graph does not hold {method}"
        return self._run(pixels, targets)[1]

    def _run(self, pixels: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits, maps = self._model(pixels.cpu().numpy(), np.ascontiguousarray(targets.cpu().numpy()))
        return torch.from_numpy(logits).to(self.device), torch.from_numpy(maps).to(self.device)


@register
class StabilityOnnx(Stability):
    """How far maps change in ONNX Runtime.

    Raises:
        Unsuited: no maps, those of a baseline, a bundle without a graph, a method that is not in it, or one
            that asks the graph already (``PerturbationSource``).
    """

    name = "stability_onnx"
    title = "Stability in ONNX Runtime"
    reference = "none: what happens in a server"
    asks_model = True

    def __init__(self, candidate: Candidate, source: Source | None, parameters: Parameters) -> None:
        super().__init__(candidate, source, parameters)
        graph = candidate.bundle.file(ONNX)
        if graph is None:
            raise Unsuited("the bundle has no ONNX graph")
        own = candidate.card.explanation.method
        if isinstance(source, MethodSource) and source.method != own:
            raise Unsuited(f"the ONNX graph holds {own} alone")
        if isinstance(source, PerturbationSource) and isinstance(for_many_passes(candidate), GraphCandidate):
            raise Unsuited("its maps are made of the graph's predictions in any case")
        self._exported = candidate.once("exported", lambda: ExportedCandidate(candidate, graph))

    def again(self, pixels: Tensor, targets: Tensor, maps: Tensor) -> Iterator[Again]:
        """See ``Stability.again``."""
        again = self._source.maps(self._exported, pixels, targets)
        yield Again(maps[:, 0], again[:, 0], self._exported.logits(pixels))
