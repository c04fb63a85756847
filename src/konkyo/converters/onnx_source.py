"""``onnx:FILE``: a classifier that another tool exported, explained by graph surgery; no torch runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto

from konkyo.converters.onnx_file import read_onnx
from konkyo.converters.onnx_head import find_head
from konkyo.converters.onnx_parity import Original, check_against_file
from konkyo.converters.onnx_wrapping import wrap
from konkyo.converters.preparation import Preparation
from konkyo.export.onnx import OnnxModel
from konkyo.export.writing import Served
from konkyo.imaging import UInt8
from konkyo.models.abilities import BY_PREDICTIONS
from konkyo.models.bundle import ONNX
from konkyo.models.card import MethodSpec

_GRADCAM = MethodSpec(method="gradcam", map_kind="class_activation_map", class_specific=True, needs="graph")


class OnnxSource:
    """A file that can be served.

    Args:
        path: of the file.
        preparation: what the file does not say of its input.

    Raises:
        ConversionError: it is no classifier of one image, ends in something else than a global average
            and a linear layer, or its normalisation or size is not known.

    Attributes:
        input: what it takes.
        head: where its logits and features are.
        original: the file as it is.
        architecture: in the card, where there is none of the registry.
        method: its explanation.
    """

    architecture = "onnx"
    method = _GRADCAM.method
    data = licence = "not stated"
    citation = None

    def __init__(self, path: Path, preparation: Preparation) -> None:
        self._file = read_onnx(path)
        self.head = find_head(self._file)
        self.input = preparation.input_spec(str(path), self._file.width, self._file.height)
        self.original = Original(self._file, self.head, self.input)

    @property
    def num_classes(self) -> int:
        """N."""
        return self.original.classes

    @property
    def arguments(self) -> dict[str, str]:
        """For the card: the tensor that is explained, and what was cut off behind the logits."""
        cut = {} if self.head.cut is None else {"without": self.head.cut}
        return {"features": self.head.features, **cut}

    def put(self, folder: Path, samples: UInt8) -> Served:
        """Write the graph into the folder of a bundle, and compare it with the file.

        Args:
            folder: of the bundle.
            samples: (n, H, W, 3), to compare them on.

        Raises:
            ConversionError: the graph cannot be wrapped, or given a free batch.
            ParityError: it answers otherwise than the file.
        """
        path = folder / ONNX
        path.write_bytes(
            wrap(self._file, self.head, self.input, self.original.features, self.original.classes)
        )
        served = OnnxModel(path)
        return Served(
            served,
            self.input,
            (_GRADCAM, *BY_PREDICTIONS),
            parameters=sum(
                int(np.prod(item.dims))
                for item in self._file.model.graph.initializer
                if item.data_type == TensorProto.FLOAT
            ),
            parity=check_against_file(served, self.original, samples),
        )
