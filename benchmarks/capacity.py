"""``python -m benchmarks.capacity``: what a request costs, to plan how many servers there must be.

Processor time is what is measured, and not how many answers come a second: it hardly depends on what else
runs on the machine. A core answers 1 / (seconds of a request) requests a second.
"""

from __future__ import annotations

import re
import statistics
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import machine
from benchmarks.__main__ import jpegs
from benchmarks.load import drive, request_bytes
from konkyo.service.demo import running_server
from konkyo.service.settings import ZOO

MODELS = {
    "gcm-cifar10": (32, 1000),
    "abn-magnetic-tile": (224, 1000),
    "efficientnet-lite0-imagenet": (224, 1000),
}
"""Sides of the images that are sent, small and large, in pixels."""

ASKED = {
    "predict": ":predict",
    "explain": ":explain",
    "explain, overlay": ":explain?overlay=spotlight&map=none",
}
CONNECTIONS, SECONDS, ROUNDS = 16, 2.0, 5


def main() -> None:
    """Print a table for each model."""
    print(machine.describe())
    print(
        f"{CONNECTIONS} connections, one thread of the engine, median of {ROUNDS} rounds of {SECONDS:g} s\n"
    )
    with server(next(iter(MODELS)), "fake") as address:
        print(f"memory of a server without a network: {megabytes(address):.0f} MB\n")
    for model, sides in MODELS.items():
        measure(model, sides)


def measure(model: str, sides: tuple[int, ...]) -> None:
    with server(model, "onnx") as address:
        print(f"{model}: {megabytes(address):.0f} MB when it is ready")
        for side in sides:
            files = jpegs(side)
            for name, path in ASKED.items():
                requests = [request_bytes(address, f"/v1/models/{model}{path}", file) for file in files]
                costs = [cost(address, requests) for _ in range(ROUNDS)]
                median = statistics.median(costs)
                print(
                    f"  {name:17} JPEG {side:4} px  {median * 1e3:6.2f} ms of a core, "
                    f"{1 / median:6.0f} a second and core"
                )
        print(f"  {megabytes(address):.0f} MB afterwards\n")


def cost(address: str, requests: list[bytes]) -> float:
    """Seconds of processor time that a request takes."""
    before = sample(address, "process_cpu_seconds_total")
    result = drive(address, requests, connections=CONNECTIONS, seconds=SECONDS)
    assert not result.failures
    return (sample(address, "process_cpu_seconds_total") - before) / len(result.latencies)


def megabytes(address: str) -> float:
    return sample(address, "process_resident_memory_bytes") / 1e6


def sample(address: str, metric: str) -> float:
    with urllib.request.urlopen(f"{address}/metrics") as response:
        found = re.search(rf"^{metric} (\S+)$", response.read().decode(), re.M)
    assert found, metric
    return float(found[1])


@contextmanager
def server(model: str, engine: str) -> Iterator[str]:
    """A server of this model alone."""
    with tempfile.TemporaryDirectory(prefix="konkyo-") as folder:
        (Path(folder) / model).symlink_to(ZOO / model)
        options = {
            "threads": 1,
            "device": "cpu",
            "log-level": "error",
            "engine": engine,
            "repository": folder,
        }
        with running_server(*(f"--{name}={value}" for name, value in options.items())) as address:
            yield address


if __name__ == "__main__":
    main()
