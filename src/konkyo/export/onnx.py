"""The served module as an ONNX graph, and the graph as a function.

What is exported is ``Explained`` whole: pixels in, logits and maps out, so a runtime that knows
nothing of normalisation, targets or explanations gives the same answer.
"""

from __future__ import annotations

import warnings

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


def export_onnx(model: Explained, *, width: int, height: int) -> bytes:
    """Export to one self-contained ONNX file.

    Inputs are ``image`` (B, H, W, 3) uint8 and ``targets`` (B, K) int64, outputs ``logits`` (B, N)
    and ``maps`` (B, M, h, w) float32. B and K are free at run time, K may be 0; H and W are fixed.
    Batch norm is folded into the convolutions. The same network gives the same bytes.

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
    image = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    targets = torch.zeros(2, 3, dtype=torch.int64)
    with torch.no_grad():
        model(image, targets)  # the network's own complaint is clearer than the exporter's
    batch = Dim("B")
    with warnings.catch_warnings():
        # The batch of both inputs is one axis, and the exporter warns that it names it only once.
        warnings.filterwarnings("ignore", "# The axis name: B will not be used", UserWarning)
        program = torch.onnx.export(
            model,
            (image, targets),
            dynamo=True,
            opset_version=OPSET,
            input_names=["image", "targets"],
            output_names=["logits", "maps"],
            dynamic_shapes={"image": {0: batch}, "targets": {0: batch, 1: Dim("K", min=0)}},
            external_data=False,
            verbose=False,
        )
    if program is None:  # only for exporters other than dynamo
        raise RuntimeError("the exporter returned nothing")
    graph = _without_traces(program.model_proto)
    onnx.checker.check_model(graph, full_check=True)
    return bytes(graph.SerializeToString(deterministic=True))


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop what the exporter notes for debugging: it holds file paths and is a tenth of the file."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    graph.ClearField("value_info")  # runtimes infer the shapes in between themselves
    return model


class OnnxModel:
    """An exported graph on the CPU, called like the module it was exported from."""

    def __init__(self, graph: bytes) -> None:
        self._session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])

    def __call__(self, image: UInt8, targets: Int64) -> tuple[Float32, Float32]:
        """(B, H, W, 3), (B, K) -> logits (B, N), maps (B, M, h, w)."""
        logits, maps = self._session.run(["logits", "maps"], {"image": image, "targets": targets})
        return logits, maps
