"""The bare ONNX Runtime session, fed batches that are ready: what no server can beat."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort


def measure(model: Path, *, batch: int, threads: int, k: int, seconds: float) -> float:
    """Images a second with K maps an image."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    _, height, width, _ = session.get_inputs()[0].shape
    image = np.random.default_rng(0).integers(0, 256, (batch, height, width, 3), np.uint8)
    feed = {"image": image, "targets": np.full((batch, k), -1, np.int64)}
    for _ in range(3):
        session.run(None, feed)
    runs, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        session.run(None, feed)
        runs += 1
    return batch * runs / (time.perf_counter() - started)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    for name, kind in (("batch", int), ("threads", int), ("k", int), ("seconds", float)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    options = parser.parse_args()
    rate = measure(
        options.model, batch=options.batch, threads=options.threads, k=options.k, seconds=options.seconds
    )
    print(json.dumps(rate))
