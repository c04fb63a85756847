"""The end of an ONNX classifier: where its features are, and the linear layer that makes logits of them.

Grad-CAM is had without a gradient where the logits are a linear layer of the global average of the
features (``models/explain/closed_form.py``). Whether they are is read off the operators, from the
output backwards; the figures are checked afterwards, on images (``onnx_parity.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, helper, numpy_helper

from konkyo.converters.errors import ConversionError
from konkyo.converters.onnx_file import OnnxFile

_PROBABILITIES = ("Softmax", "LogSoftmax")

_SHAPING = ("Identity", "Dropout", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose")
"""What changes no value. Of an average, where one axis beside the batch is longer than 1, no order either."""


@dataclass(frozen=True)
class Head:
    """Names of tensors.

    Attributes:
        logits: (B, N), or (B, N, 1, 1).
        features: (B, C, h, w).
        channels_last: the features are (B, h, w, C).
        weight: of the linear layer, (N, C) or (N, C, 1, 1).
        transposed: it is (C, N).
        bias: (N,), None where there is none.
        cut: the operator that made probabilities of the logits, if one did.
    """

    logits: str
    features: str
    channels_last: bool
    weight: str
    transposed: bool
    bias: str | None
    cut: str | None


@dataclass(frozen=True)
class _Linear:
    """As in ``Head``, and the tensor it is applied to."""

    input: str
    weight: str
    transposed: bool
    bias: str | None


def find_head(file: OnnxFile) -> Head:
    """Find the features and the linear layer.

    Raises:
        ConversionError: the end of the graph is another.
    """
    walk = _Walk(file)
    logits, cut = file.model.graph.output[0].name, None
    last = walk.back(logits)
    if last is not None and last.op_type in _PROBABILITIES:
        logits, cut = last.input[0], last.op_type
        last = walk.back(logits)
    pooled = walk.average(last)
    if pooled is not None and last is not None:  # fully convolutional: the layer is before the average
        linear = walk.linear(walk.producers.get(last.input[0]))
        if linear is None:
            raise walk.refusal("a convolution of one pixel before the global average", last.input[0])
        return Head(logits, linear.input, pooled, linear.weight, linear.transposed, linear.bias, cut)
    linear = walk.linear(last)
    if linear is None:
        raise walk.refusal("a linear layer or a global average at the end", logits)
    pool = walk.back(linear.input)
    pooled = walk.average(pool)
    if pool is None or pooled is None:
        raise walk.refusal("a global average before the linear layer", linear.input)
    return Head(logits, pool.input[0], pooled, linear.weight, linear.transposed, linear.bias, cut)


def depends_on(graph: GraphProto, name: str) -> set[str]:
    """The tensors that depend on a tensor, with that one."""
    found = {name}
    for node in graph.node:
        nested = any(item.HasField("g") or item.graphs for item in node.attribute)  # may use any tensor
        if nested or found.intersection(node.input):
            found.update(node.output)
    return found


def constant(graph: GraphProto, name: str) -> list[int] | None:
    """The values of a tensor of integers that is stored in the graph."""
    for item in graph.initializer:
        if item.name == name:
            return [int(value) for value in numpy_helper.to_array(item).ravel()]
    for node in graph.node:
        if name in node.output and node.op_type == "Constant":
            (value,) = _attributes(node).values()
            values = numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value
            return [int(number) for number in np.ravel(values)]
    return None


class _Walk:
    """A graph read from its output backwards."""

    def __init__(self, file: OnnxFile) -> None:
        self.file, self.graph = file, file.model.graph
        self.producers = {name: node for node in self.graph.node for name in node.output}
        self.variable = depends_on(self.graph, file.image)

    def back(self, name: str) -> NodeProto | None:
        """The node a tensor is of, but for what changes no value."""
        node = self.producers.get(name)
        while node is not None and node.op_type in _SHAPING:
            node = self.producers.get(node.input[0])
        return node

    def refusal(self, expected: str, name: str) -> ConversionError:
        """That something else was found where a tensor is made."""
        node = self.back(name)
        found = "nothing" if node is None else node.op_type
        return ConversionError(
            f"{self.file.path}: expected {expected}, found {found}; Grad-CAM without a gradient takes the "
            "global average of the features and one linear layer. If the network is one of timm's, give its "
            "weights: timm:NAME --checkpoint FILE"
        )

    def average(self, node: NodeProto | None) -> bool | None:
        """Whether the channels are last in what a node averages over both axes; None if it does not."""
        if node is None or node.op_type not in ("GlobalAveragePool", "ReduceMean"):
            return None
        if node.op_type == "GlobalAveragePool":
            return False
        axes = _attributes(node).get("axes")
        if axes is None and len(node.input) > 1:
            axes = constant(self.graph, node.input[1])
        found = sorted(axis % 4 for axis in axes or ())
        return {(2, 3): False, (1, 2): True}.get(tuple(found))

    def linear(self, node: NodeProto | None) -> _Linear | None:
        """The linear layer a node is; None if it is none."""
        added = None
        if node is not None and node.op_type == "Add":
            added, variable = sorted(node.input, key=lambda name: name in self.variable)
            node = self.back(variable)
            if added in self.variable:
                return None
        if node is None or len(node.input) < 2 or node.input[1] in self.variable:
            return None
        given = _attributes(node)
        plain = {
            "MatMul": True,
            "Gemm": not given.get("transA") and given.get("alpha", 1) == given.get("beta", 1) == 1,
            "Conv": _of_one_pixel(given),
        }
        own = node.input[2] if len(node.input) > 2 and node.input[2] else None
        if not plain.get(node.op_type) or (own and added):
            return None
        transposed = node.op_type == "MatMul" or (node.op_type == "Gemm" and not given.get("transB"))
        return _Linear(node.input[0], node.input[1], transposed, own or added)


def _of_one_pixel(given: dict[str, Any]) -> bool:
    ones = (*given.get("kernel_shape", [0]), *given.get("strides", []), given.get("group", 1))
    return set(ones) == {1} and not any(given.get("pads", []))


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}
