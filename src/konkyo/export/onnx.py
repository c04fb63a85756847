"""The served module as an ONNX graph, and the graph as a function.

What is exported is ``Explained`` whole: pixels in, logits and maps out, so a runtime that knows
nothing of normalisation, targets or explanations gives the same answer.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from torch.export import Dim

from konkyo.imaging import UInt8
from konkyo.models.explained import Explained

OPSET = 20
"""Read by ONNX Runtime 1.17 and later."""

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]

_ATTENTION = "attention"


def export_onnx(model: Explained, *, width: int, height: int) -> bytes:
    """Export to one self-contained ONNX file.

    Inputs are ``image`` (B, H, W, 3) uint8 and ``targets`` (B, K) int64, outputs ``logits`` (B, N)
    and ``maps`` (B, M, h, w) float32. B and K are free at run time, K may be 0; H and W are fixed.
    Batch norm is folded into the convolutions. The same network gives the same bytes.

    Where the explanation takes one, a third input ``attention`` (B or 1, h', w') float32 is the edit of
    the map, at any resolution. It has a default, "every value is the network's own", so whoever runs
    the graph may leave it out.

    Args:
        model: in eval mode, on the CPU.
        width: W, in pixels.
        height: H, in pixels.

    Raises:
        ValueError: the model is in training mode, or the size does not suit it.
    """
    if model.training:
        raise ValueError("a model in training mode would be exported with the statistics of its batch")
    # Sizes that differ from each other and from 0 and 1, which the exporter would take as constants.
    inputs = {
        "image": torch.zeros(2, height, width, 3, dtype=torch.uint8),
        "targets": torch.zeros(2, 3, dtype=torch.int64),
    }
    batch = Dim("B")
    axes: dict[str, Any] = {"image": {0: batch}, "targets": {0: batch, 1: Dim("K", min=0)}}
    if model.explanation.takes_attention:
        inputs[_ATTENTION] = torch.full((2, 5, 7), -1.0)
        axes[_ATTENTION] = {0: batch, 1: Dim("edit_h"), 2: Dim("edit_w")}
    with torch.no_grad():
        model(*inputs.values())  # the network's own complaint is clearer than the exporter's
    with warnings.catch_warnings():
        # The batch of all inputs is one axis, and the exporter warns that it names it only once.
        warnings.filterwarnings("ignore", "# The axis name: B will not be used", UserWarning)
        program = torch.onnx.export(
            model,
            tuple(inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=["logits", "maps"],
            dynamic_shapes=axes,
            external_data=False,
            verbose=False,
        )
    if program is None:  # only for exporters other than dynamo
        raise RuntimeError("the exporter returned nothing")
    graph = without_traces(program.model_proto)
    if _ATTENTION in inputs:
        _make_optional(graph)
    onnx.checker.check_model(graph, full_check=True)
    return bytes(graph.SerializeToString(deterministic=True))


def without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop, in place, what exporters note for debugging: it holds file paths and is a tenth of the file."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    graph.ClearField("value_info")  # runtimes infer the shapes in between themselves
    return model


def _make_optional(model: onnx.ModelProto) -> None:
    """Give the input ``attention`` a default: an initializer of its name, which a runtime may override.

    The default is one cell for all images, so its batch is an axis apart: runtimes plan their memory
    by the names of the axes.
    """
    value = next(value for value in model.graph.input if value.name == _ATTENTION)
    value.type.tensor_type.shape.dim[0].dim_param = "edit_B"
    own = onnx.numpy_helper.from_array(np.full((1, 1, 1), -1, np.float32), _ATTENTION)
    model.graph.initializer.append(own)


class OnnxModel:
    """An exported graph on the CPU, called like the module it was exported from.

    Args:
        graph: its path, or its content where it holds all its weights itself.
    """

    def __init__(self, graph: bytes | Path) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # it warns of every input with a default, and raises what it logs
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def __call__(
        self, image: UInt8, targets: Int64, attention: Float32 | None = None
    ) -> tuple[Float32, Float32]:
        """(B, H, W, 3), (B, K), an edit (B or 1, h', w') -> logits (B, N), maps (B, M, h, w)."""
        inputs = {"image": image, "targets": targets}
        if attention is not None:
            inputs[_ATTENTION] = attention
        logits, maps = self._session.run(["logits", "maps"], inputs)
        return logits, maps
