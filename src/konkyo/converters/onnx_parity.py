"""Does the wrapped graph answer as the file does, and do its maps explain those answers?"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime

from konkyo.converters.errors import ConversionError
from konkyo.converters.onnx_file import OnnxFile, first_line
from konkyo.converters.onnx_head import Head
from konkyo.export.onnx import Float32, OnnxModel
from konkyo.export.parity import SEVERAL, Comparison, Parity, difference, judge, targets_for
from konkyo.imaging import UInt8
from konkyo.models.card import InputSpec


class Original:
    """A file as it is, on the CPU, with images as many at a time as it was made for.

    Args:
        file: the graph.
        head: its end.
        spec: its input.

    Raises:
        ConversionError: ONNX Runtime cannot run it, or it is no classifier.

    Attributes:
        path: of the file.
        features: C, h, w of what is averaged.
        classes: N.
        bias: of the logits, (N,).
    """

    def __init__(self, file: OnnxFile, head: Head, spec: InputSpec) -> None:
        self._file, self._spec, self.path = file, spec, file.path
        self._tensors = [head.logits, head.features, *([head.bias] if head.bias else [])]
        model = onnx.ModelProto()
        model.CopyFrom(file.model)
        known = {item.name for item in model.graph.output}
        model.graph.output.extend(
            onnx.ValueInfoProto(name=name) for name in self._tensors if name not in known
        )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # it raises what it logs
        try:
            self._session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime's own exception types are not public
            raise self._fault(error) from error
        blank = np.zeros((1, spec.height, spec.width, 3), np.uint8)
        logits, features, *bias = self._run(blank)
        self.classes: int = logits[0].size
        if features.ndim != 4:
            raise ConversionError(f"{file.path}: what it averages has {features.ndim} axes, not 4")
        sizes = features.shape[1:]
        self.features = (sizes[2], *sizes[:2]) if head.channels_last else sizes
        self.bias = np.broadcast_to(bias[0].ravel() if bias else np.float32(0), self.classes)

    def __call__(self, images: UInt8) -> Float32:
        """The logits of images: (n, H, W, 3) -> (n, N)."""
        size = self._file.batch or 1
        batches = [images[start : start + size] for start in range(0, len(images), size)]
        logits = [self._run(batch)[0][: len(batch)] for batch in batches]
        return np.concatenate(logits).reshape(len(images), -1)

    def _run(self, images: UInt8) -> list[Any]:
        """The tensors for a batch, which is filled up by repetition."""
        scaled = images.astype(np.float32) / np.float32(255)
        normalised = (scaled - np.array(self._spec.mean, np.float32)) / np.array(self._spec.std, np.float32)
        batch = np.resize(normalised, (self._file.batch or len(images), *images.shape[1:]))
        if not self._file.channels_last:
            batch = batch.transpose(0, 3, 1, 2)
        try:
            return list(self._session.run(self._tensors, {self._file.image: np.ascontiguousarray(batch)}))
        except Exception as error:
            raise self._fault(error) from error

    def _fault(self, error: Exception) -> ConversionError:
        return ConversionError(f"{self._file.path}: ONNX Runtime cannot run it: {first_line(error)}")


def check_against_file(served: OnnxModel, original: Original, images: UInt8) -> Parity:
    """Compare a wrapped graph with what the file answers to the same images, one by one.

    The logits are compared as they are. The maps are checked by what makes them maps of these logits:
    those of a linear layer on an average add up, over the cells, to the logit less the bias.

    Batches of 1, 7 and all images, each with no target, with the predicted class, and with several
    classes that differ from image to image.

    Args:
        served: the wrapped graph.
        original: the file.
        images: (n, H, W, 3).

    Returns:
        Differences relative to the range of the file's logits.

    Raises:
        ConversionError: the batch of the file is fixed, and could not be made free.
        ParityError: a difference is over the tolerance.
    """
    logits, comparisons = original(images), []
    span = float(np.ptp(logits))
    for size in sorted({1, min(7, len(images)), len(images)}):
        for number in (0, 1, SEVERAL):
            targets = targets_for(size, number, original.classes)
            try:
                found, maps = served(images[:size], targets)
            except Exception as error:  # as above
                raise ConversionError(
                    f"{original.path}: its batch cannot be made free, export it with a free one; "
                    f"{size} at once: {first_line(error)}"
                ) from error
            expected = logits[:size]
            named = np.where(targets < 0, expected.argmax(axis=1)[:, None], targets)
            comparisons.append(
                Comparison(
                    size,
                    number,
                    difference(expected, found, span),
                    difference(
                        np.take_along_axis(expected, named, axis=1),
                        maps.sum(axis=(2, 3)) + original.bias[named],
                        span,
                    ),
                )
            )
    return judge(comparisons, "the wrapped graph differs from the file")
