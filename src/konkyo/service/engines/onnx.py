"""ONNX Runtime: on CUDA where it works, else on the CPU."""

from __future__ import annotations

import ctypes
import logging
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort

from konkyo.errors import BundleError
from konkyo.imaging import UInt8
from konkyo.models.bundle import ONNX, WEIGHTS, Bundle
from konkyo.service.engines.base import Float32, Int64, Outputs, run_blank

logger = logging.getLogger(__name__)


class OnnxEngine:
    """A bundle's ``model.onnx`` in an inference session.

    Args:
        bundle: with an ONNX graph.
        device: ``cuda`` fails where CUDA does not work, ``auto`` falls back to the CPU and says so.
        threads: of one forward pass on the CPU; 0 takes one a core.

    Raises:
        BundleError: there is no graph, it cannot be loaded, or CUDA was insisted on and does not work.
    """

    name = "onnx"
    faithful = True
    differentiates = False

    def __init__(
        self, bundle: Bundle, *, device: Literal["auto", "cpu", "cuda"] = "auto", threads: int = 0
    ) -> None:
        path = bundle.file(ONNX)
        if path is None:
            raise BundleError(
                f"{bundle.path}: the bundle has no {ONNX}, as those have none whose explanation takes a "
                "gradient; serve it with engine=torch or engine=auto",
                file=ONNX,
            )
        self._card = bundle.card
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Threads that spin between batches would take the cores that decode and answer.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = ["CPUExecutionProvider"]
        if device != "cpu" and _cuda_present():
            providers.insert(0, "CUDAExecutionProvider")
        weights = _weights_beside(path)
        if weights is not None:
            options.add_external_initializers_from_files_in_memory([WEIGHTS], [weights], [len(weights)])
        try:
            self._session = ort.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # the runtime's own exception types are not public
            raise BundleError(f"{path}: ONNX Runtime cannot load it: {error}", file=ONNX) from error
        self.device = "cuda" if self._session.get_providers()[0] == "CUDAExecutionProvider" else "cpu"
        if device == "cuda" and self.device != "cuda":
            raise BundleError("device is cuda, but ONNX Runtime found no CUDA device that works")
        logger.info("%s runs in ONNX Runtime on %s", bundle.card.name, self.device)

    def run(self, images: UInt8, targets: Int64, attention: Float32 | None = None) -> Outputs:
        """See ``Engine.run``."""
        inputs = {"image": images, "targets": targets}
        if attention is not None:  # else the graph's own default
            inputs["attention"] = attention
        logits, maps = self._session.run(["logits", "maps"], inputs)
        return Outputs(np.asarray(logits), np.asarray(maps))

    def warm_up(self) -> None:
        """See ``Engine.warm_up``."""
        run_blank(self, self._card)

    def close(self) -> None:
        """Drop the session."""
        del self._session


def _weights_beside(graph: Path) -> bytes | None:
    """The weights, if the graph takes its own from that file.

    ONNX Runtime would map the file, and a file that is written over while it is served would end the
    process with SIGBUS.
    """
    if WEIGHTS.encode() not in graph.read_bytes():  # names of files lie in a graph as they are
        return None
    return (graph.parent / WEIGHTS).read_bytes()


def _cuda_present() -> bool:
    """Whether the driver knows a CUDA device; a session that has to find out is slow and loud."""
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        return False
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return False
    ort.preload_dlls()  # cuDNN and cuBLAS from their packages, where they are installed
    return True
