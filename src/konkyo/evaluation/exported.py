"""The network of a bundle's exported graph, for many forward passes on a CPU.

ONNX Runtime takes less time there than torch. The graph takes pixels; perturbations work on the normalised
image, so it is cut where normalisation ends. The maps are cut off too.

Shape legend: B batch, D input channels, H, W input size, N classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from torch import Tensor

from konkyo.evaluation.candidate import Candidate, images_within
from konkyo.evaluation.parts import parts
from konkyo.models.card import ONNX

Float32 = npt.NDArray[np.float32]

TARGETS = "targets"
"""The input that may stay: exporters read the size of the batch from it."""
NORMALISATION = ("Transpose", "Cast", "Div", "Sub", "Div")
"""What ``Classifier.normalise`` is exported as."""
PIXELS_AT_ONCE = 2**16
"""Pixels of the images of a run, at most ``MOST_AT_ONCE``: features of more leave the processor's cache."""
MOST_AT_ONCE = 16
CLOSE = 1e-3
"""Largest difference from torch, of the largest logit, at which a graph is taken for the network."""


class ExportedNetwork:
    """Normalised images in, logits out.

    Args:
        path: of the graph of a bundle.

    Raises:
        ValueError: it does not begin as our graphs do, or needs more than the image for its logits.
    """

    def __init__(self, path: Path) -> None:
        graph = cut(onnx.load(path))
        self._input, *others = (value.name for value in graph.graph.input)
        self._takes_targets = bool(others)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(
            graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, image: Tensor) -> Tensor:
        """(B, D, H, W) -> (B, N) float32."""
        whole = image.float().contiguous().numpy()
        size = images_of_a_run((whole.shape[2], whole.shape[3]))
        found = [self._run(whole[part]) for part in parts(len(whole), size)]
        return torch.from_numpy(np.concatenate(found))

    def _run(self, image: Float32) -> Float32:
        given: dict[str, npt.NDArray[Any]] = {self._input: image}
        if self._takes_targets:
            given[TARGETS] = np.empty((len(image), 0), np.int64)
        logits: Float32 = self._session.run(["logits"], given)[0]
        return logits


class GraphCandidate(Candidate):
    """A candidate whose logits come from its exported graph; its maps do not."""

    def __init__(self, candidate: Candidate, network: ExportedNetwork) -> None:
        self.__dict__.update(vars(candidate))
        self._network = network

    @property
    def at_once(self) -> int:
        """See ``Candidate.at_once``."""
        return images_of_a_run(self.size)

    def logits(self, pixels: Tensor) -> Tensor:
        """See ``Candidate.logits``."""
        return self._network(self.classifier.normalise(pixels))

    def logits_of_normalised(self, image: Tensor) -> Tensor:
        """See ``Candidate.logits_of_normalised``."""
        return self._network(image)


def images_of_a_run(size: tuple[int, int]) -> int:
    """Images of H, W in a run."""
    return images_within(PIXELS_AT_ONCE, size, MOST_AT_ONCE)


def exported(candidate: Candidate) -> GraphCandidate | None:
    """The same in ONNX Runtime; None on a device, without a graph, or where the graph is not this network."""
    path = candidate.bundle.file(ONNX)
    if candidate.device.type != "cpu" or path is None or not path.exists():
        return None
    try:
        network = ExportedNetwork(path)
    except ValueError:
        return None
    size = (2, *candidate.size, 3)
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, size, np.uint8))
    expected = candidate.logits(pixels)
    found = network(candidate.classifier.normalise(pixels))
    same = (found - expected).abs().max() <= CLOSE * expected.abs().max()
    return GraphCandidate(candidate, network) if same else None


def cut(model: onnx.ModelProto) -> onnx.ModelProto:
    """The part of an exported graph from the normalised image to the logits, both float32.

    Raises:
        ValueError: see ``ExportedNetwork``.
    """
    start = _end_of_normalisation(model.graph)
    wanted, nodes = {"logits"}, []
    for node in reversed(model.graph.node):  # they are in the order in which they are computed
        if wanted.intersection(node.output) and start not in node.output:
            wanted.update(node.input)
            nodes.append(node)
    weights = [weight for weight in model.graph.initializer if weight.name in wanted]
    known = {weight.name for weight in weights}
    inputs = [value for value in model.graph.input if value.name in wanted - known]
    if {value.name for value in inputs} - {TARGETS}:
        raise ValueError("the logits depend on more than the normalised image")
    image = onnx.helper.make_tensor_value_info(start, onnx.TensorProto.FLOAT, [None] * 4)
    logits = [value for value in model.graph.output if value.name == "logits"]
    part = onnx.helper.make_graph(nodes[::-1], "network", [image, *inputs], logits, weights)
    return onnx.helper.make_model(part, opset_imports=model.opset_import, ir_version=model.ir_version)


def _end_of_normalisation(graph: onnx.GraphProto) -> str:
    """Name of the normalised image."""

    def follow(name: str) -> Iterator[str]:
        for kind in NORMALISATION:
            users = [node for node in graph.node if name in node.input]
            if [node.op_type for node in users] != [kind]:
                raise ValueError("the graph does not begin with our normalisation")
            name = users[0].output[0]
            yield name

    return list(follow("image"))[-1]
