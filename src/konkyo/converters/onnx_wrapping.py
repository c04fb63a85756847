"""Puts a graph under the contract of a bundle: normalisation before it, Grad-CAM after it.

    image (B, H, W, 3) uint8, targets (B, K) int64  ->  logits (B, N), maps (B, K, h, w) float32

The graph in between stays as it is, under other names. Its batch is made free where the file fixes it.
The maps are the mean gradients of the logits and the features, which a global average and a linear
layer give in closed form (``models/explain/closed_form.py``):

    maps = W[targets] features / (h w)

Shape legend: B batch, N classes, K targets, C feature channels, h, w grid.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, compose, helper, numpy_helper

from konkyo.converters.errors import ConversionError
from konkyo.converters.onnx_file import OnnxFile
from konkyo.converters.onnx_head import Head, constant, depends_on
from konkyo.export.onnx import without_traces
from konkyo.models.card import InputSpec

_PREFIX = "network/"


def wrap(file: OnnxFile, head: Head, spec: InputSpec, features: tuple[int, ...], classes: int) -> bytes:
    """The graph of a file as the graph of a bundle; the same file gives the same bytes.

    Args:
        file: the graph.
        head: its end.
        spec: its input.
        features: C, h, w.
        classes: N.

    Raises:
        ConversionError: the result is no valid graph, or too large for one file.
    """
    model = onnx.ModelProto()
    model.CopyFrom(file.model)
    if file.batch is not None:
        _free_batch(model.graph, file)
    model = compose.add_prefix(without_traces(model), _PREFIX)
    graph = model.graph
    new = _Nodes()
    before = _preprocessing(new, file, spec)
    middle, after = list(graph.node), _explanation(new, head, features)
    for field, values in (
        ("node", [*before, *middle, *after]),
        ("initializer", [*graph.initializer, *new.constants]),
        (
            "input",
            [
                helper.make_tensor_value_info("image", TensorProto.UINT8, ["B", spec.height, spec.width, 3]),
                helper.make_tensor_value_info("targets", TensorProto.INT64, ["B", "K"]),
            ],
        ),
        (
            "output",
            [
                helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", classes]),
                helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["B", "K", *features[1:]]),
            ],
        ),
    ):
        values = list(values)
        graph.ClearField(field)
        getattr(graph, field).extend(values)
    try:
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString(deterministic=True))
    except Exception as error:  # of the checker, of shape inference, of protobuf over 2 GiB
        reason = " ".join(str(error).split())[:300]
        raise ConversionError(f"{file.path}: cannot be wrapped into a graph to serve: {reason}") from error


class _Nodes:
    """Makes nodes, and keeps the constants they use."""

    def __init__(self) -> None:
        self.constants: list[TensorProto] = []

    def __call__(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> NodeProto:
        return helper.make_node(operator, inputs, [output], name=output, **attributes)

    def constant(self, name: str, values: npt.ArrayLike, dtype: npt.DTypeLike) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name


def _preprocessing(new: _Nodes, file: OnnxFile, spec: InputSpec) -> list[NodeProto]:
    """(image / 255 - mean) / std, in the layout the graph takes."""
    last = "normalised" if file.channels_last else "normalised_last"
    nodes = [
        new("Cast", ["image"], "pixels", to=TensorProto.FLOAT),
        new("Div", ["pixels", new.constant("white", 255, np.float32)], "scaled"),
        new("Sub", ["scaled", new.constant("mean", spec.mean, np.float32)], "centred"),
        new("Div", ["centred", new.constant("std", spec.std, np.float32)], last),
    ]
    if not file.channels_last:
        nodes.append(new("Transpose", [last], "normalised", perm=[0, 3, 1, 2]))
    return [*nodes, new("Identity", ["normalised"], _PREFIX + file.image)]


def _explanation(new: _Nodes, head: Head, features: tuple[int, ...]) -> list[NodeProto]:
    """Logits, and the maps of the targets, of which those below 0 are the predicted class."""
    channels, height, width = features
    weight, found = _PREFIX + head.weight, _PREFIX + head.features
    shape = new.constant("rows_shape", [0, channels], np.int64)
    nodes = [
        new("Flatten", [_PREFIX + head.logits], "logits", axis=1),
        new("ArgMax", ["logits"], "predicted", axis=1, keepdims=1),
        new("Less", ["targets", new.constant("zero", 0, np.int64)], "unnamed"),
        new("Where", ["unnamed", "predicted", "targets"], "classes"),  # (B, K)
        new("Transpose", [weight], "rows", perm=[1, 0])
        if head.transposed
        else new("Reshape", [weight, shape], "rows"),  # (N, C)
        new("Gather", ["rows", "classes"], "chosen", axis=0),  # (B, K, C)
    ]
    if head.channels_last:
        nodes.append(new("Transpose", [found], "features", perm=[0, 3, 1, 2]))
        found = "features"
    return [
        *nodes,
        new("Reshape", [found, new.constant("cells_shape", [0, channels, -1], np.int64)], "cells"),
        new("MatMul", ["chosen", "cells"], "sums"),  # (B, K, h w)
        new("Div", ["sums", new.constant("area", height * width, np.float32)], "flat_maps"),
        new("Reshape", ["flat_maps", new.constant("grid", [0, 0, height, width], np.int64)], "maps"),
    ]


def _free_batch(graph: onnx.GraphProto, file: OnnxFile) -> None:
    """Let what is reshaped keep its batch, where the file says its size.

    A shape that starts with the number by chance is taken for one too; the answers are compared with
    those of the file, so that does not go unseen.
    """
    variable = depends_on(graph, file.image)
    for index, node in enumerate(graph.node):
        if node.op_type != "Reshape" or node.input[0] not in variable:
            continue
        shape = constant(graph, node.input[1])
        if shape and shape[0] == file.batch:
            name = f"free_shape_{index}"
            graph.initializer.append(numpy_helper.from_array(np.array([0, *shape[1:]], np.int64), name))
            node.input[1] = name
            node.ClearField("attribute")  # allowzero: 0 is "as it comes"
