"""Goodput of several worker processes against one, under the same load, on all cores."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benchmarks import machine
from benchmarks.load import drive, request_bytes
from konkyo.service.settings import ZOO

Report = Callable[[str, list[tuple[float, float]], str, str], None]

MODEL, NUMBERS = "gcm-cifar10", (1, 2)


def run(rounds: int, seconds: float, report: Report, bodies: dict[str, list[bytes]]) -> None:
    """Print the ratios.

    Args:
        bodies: image files to post by what they are.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        (Path(folder) / MODEL).symlink_to(ZOO / MODEL)
        addresses = []
        for number in NUMBERS:
            environment = {
                "KONKYO_REPOSITORY": folder, "KONKYO_LOG_LEVEL": "error", "KONKYO_DRAIN_SECONDS": "0",
                "KONKYO_PROCESSES": str(number), "KONKYO_THREADS": "1",
            }  # fmt: skip
            started = stack.enter_context(
                machine.process(["-m", "konkyo", "serve"], "/readyz", set(), **environment)
            )
            addresses.append(started[0])
        for name, files in bodies.items():
            for verb in ("predict", "explain"):
                pairs = []
                for _ in range(rounds):
                    one, several = (goodput(address, verb, files, seconds) for address in addresses)
                    pairs.append((several, one))
                report(f"{NUMBERS[1]} processes / 1, {name} :{verb}", pairs, "-", "answers/s")


def goodput(address: str, verb: str, files: list[bytes], seconds: float) -> float:
    requests = [request_bytes(address, f"/v1/models/{MODEL}:{verb}", file) for file in files]
    result = drive(address, requests, connections=16, seconds=seconds)
    if result.failures:
        raise RuntimeError(f"{result.failures} of {len(result.latencies)} answers were not 200")
    return result.per_second


if __name__ == "__main__":
    from benchmarks.__main__ import jpegs, report

    print(f"{machine.describe()}; load average {os.getloadavg()[0]:.1f}")
    run(5, 3, report, {"32x32": jpegs(32), "512x512": jpegs(512)})
