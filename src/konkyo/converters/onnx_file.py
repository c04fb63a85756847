"""A classifier in an ONNX file that another tool wrote, and what it takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx.inliner
from onnx import TensorProto

from konkyo.converters.errors import ConversionError

_OPSET = 9
"""The oldest; those before it cannot choose between the predicted class and a given one."""

_IR_VERSION = 8
"""What older files become: before 4, weights had to be inputs. ONNX Runtime has read 8 since 1.11."""


@dataclass(frozen=True)
class OnnxFile:
    """A graph with one image as its input and one output.

    Attributes:
        path: of the file.
        model: the graph.
        image: name of the input, float32.
        channels_last: the input is (B, H, W, 3), else (B, 3, H, W).
        batch: B where the file fixes it.
        width: W where the file fixes it.
        height: H likewise.
    """

    path: Path
    model: onnx.ModelProto
    image: str
    channels_last: bool
    batch: int | None
    width: int | None
    height: int | None


def read_onnx(path: Path) -> OnnxFile:
    """Read a file.

    Raises:
        ConversionError: it cannot be read, is no valid graph, or does not take one image and give one answer.
    """
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except OSError as error:
        raise ConversionError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # protobuf's own, and those of the checker
        raise ConversionError(f"{path}: not an ONNX file: {first_line(error)}") from None
    opset = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), 0)
    if opset < _OPSET:
        raise ConversionError(f"{path}: opset {opset} is too old; export it anew with {_OPSET} or later")
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    graph = model.graph
    stored = {item.name for item in graph.initializer}
    inputs = [item for item in graph.input if item.name not in stored]  # old files list the weights too
    for kind, found in (("input", inputs), ("output", graph.output)):
        if len(found) != 1:
            names = ", ".join(item.name for item in found)
            raise ConversionError(f"{path}: expected one {kind}, found {len(found)}: {names}")
        if found[0].type.tensor_type.elem_type != TensorProto.FLOAT:
            raise ConversionError(f"{path}: the {kind} {found[0].name} is not float32")
    model.ir_version = max(model.ir_version, _IR_VERSION)
    graph.ClearField("input")
    graph.input.extend(inputs)
    dims = inputs[0].type.tensor_type.shape.dim
    sizes = [dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in dims]
    if len(sizes) != 4 or 3 not in (sizes[1], sizes[3]):
        shape = ", ".join(str(size or "?") for size in sizes)
        raise ConversionError(
            f"{path}: the input {inputs[0].name} is ({shape}), not an image (B, 3, H, W) or (B, H, W, 3)"
        )
    channels_last = sizes[1] != 3
    height, width = sizes[1:3] if channels_last else sizes[2:4]
    return OnnxFile(path, model, inputs[0].name, channels_last, sizes[0], width, height)


def first_line(error: Exception) -> str:
    """Of what a library complains of, which may be many."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
