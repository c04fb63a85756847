"""One copy of the weights for both runtimes: ``model.onnx`` reads them from ``weights.safetensors``.

A safetensors file is a header and then the plain bytes of the tensors, and an ONNX initializer may be
*external data*, plain bytes in another file from an offset on. So the graph needs no copy of what is
in the file beside it. What is stored there in half precision is cast in the graph, and what lies there
the other way round is transposed; runtimes fold both when they load, so inference pays nothing.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

SMALLEST = 1024
"""Numbers in the smallest tensor that is shared; the entry of one is about as long as 40."""

_DTYPES = {"F32": ("<f4", int(TensorProto.FLOAT)), "F16": ("<f2", int(TensorProto.FLOAT16))}


@dataclass(frozen=True)
class _Stored:
    """Where a tensor is in the file, and how to make the initializer of it."""

    element_type: int
    shape: tuple[int, ...]
    offset: int
    length: int
    transposed: bool = False


def share_weights(graph: bytes, weights: Path) -> bytes:
    """The graph with every large initializer that is in a file of weights read from there.

    Tensors are found by their values, so it does not matter how the exporter calls them; what the
    exporter has computed anew, such as a batch norm folded into a convolution, stays in the graph.

    Args:
        graph: with float32 initializers, as ``export_onnx`` returns it.
        weights: the safetensors file that will lie beside it, float32 or float16.

    Raises:
        OSError: the file cannot be read.
    """
    model = onnx.load_from_string(graph)
    stored = _contents(weights)
    casts: list[onnx.NodeProto] = []
    for initializer in model.graph.initializer:
        if initializer.data_type != TensorProto.FLOAT or np.prod(initializer.dims) < SMALLEST:
            continue
        values = numpy_helper.to_array(initializer)
        found = stored.get(_key(values))
        if found and (not found.transposed or values.shape == found.shape[::-1]):
            casts += _refer(initializer, found, weights.name)
    nodes = list(model.graph.node)
    model.graph.ClearField("node")
    model.graph.node.extend([*casts, *nodes])
    return bytes(model.SerializeToString(deterministic=True))


def _contents(path: Path) -> dict[bytes, _Stored]:
    """What is in a file of weights, by its values in float32 as they lie and transposed."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    found: dict[bytes, _Stored] = {}
    for name, entry in json.loads(data[8:start]).items():
        if name == "__metadata__" or entry["dtype"] not in _DTYPES:
            continue
        dtype, element_type = _DTYPES[entry["dtype"]]
        begin, end = entry["data_offsets"]
        shape = tuple(entry["shape"])
        values = np.frombuffer(data[start + begin : start + end], np.dtype(dtype)).astype(np.float32)
        values = values.reshape(shape)
        if values.ndim == 2:
            found[_key(values.T)] = _Stored(element_type, shape, start + begin, end - begin, transposed=True)
        found[_key(values)] = _Stored(element_type, shape, start + begin, end - begin)
    return found


def _key(values: npt.NDArray[np.float32]) -> bytes:
    """Of the bytes alone: a view of another shape is made of the same."""
    return hashlib.sha256(values.tobytes()).digest()


def _refer(initializer: TensorProto, stored: _Stored, location: str) -> list[onnx.NodeProto]:
    """Turn an initializer into a reference, in place; the nodes that make of it what it was."""
    name, dims = initializer.name, list(initializer.dims)
    initializer.Clear()
    initializer.name = name
    initializer.data_type = stored.element_type
    initializer.dims.extend(stored.shape if stored.transposed else dims)
    initializer.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", stored.offset), ("length", stored.length)):
        initializer.external_data.add(key=key, value=str(value))
    operators: list[tuple[str, dict[str, Any]]] = []
    if stored.transposed:
        operators.append(("Transpose", {"perm": [1, 0]}))
    if stored.element_type != TensorProto.FLOAT:
        operators.append(("Cast", {"to": TensorProto.FLOAT}))
    names = [*(f"{name}.stored{step}" for step in range(len(operators))), name]
    initializer.name = names[0]
    return [
        helper.make_node(operator, [before], [after], **attributes)
        for (operator, attributes), (before, after) in zip(operators, pairwise(names), strict=True)
    ]
