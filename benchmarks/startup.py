"""``python -m benchmarks.startup``: from the start of the process until ready, and what that consists of;
models loaded one after the other against several at the same time, in turn."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine

PARALLEL = 4
Report = Callable[[str, list[tuple[float, float]], str, str], None]


def start(parallel: int) -> dict[str, float]:
    """Start a server of the shipped bundles on all cores: seconds by part, as it says itself, and as seen."""
    environment = {
        "KONKYO_LOG_LEVEL": "error",
        "KONKYO_PARALLEL_LOADS": str(parallel),
        "OMP_NUM_THREADS": "1",
    }
    environment["KONKYO_DRAIN_SECONDS"] = "0"
    started = time.perf_counter()
    with machine.process(["-m", "konkyo", "serve"], "/readyz", set(), **environment) as (address, pid):
        seen = time.perf_counter() - started
        found = dict(_get(address, "/v1/info")["startup_seconds"])
        for model in _get(address, "/v1/models")["models"]:
            for part, seconds in _get(address, f"/v1/models/{model['name']}")["load_seconds"].items():
                found[f"models: {part}"] = found.get(f"models: {part}", 0) + seconds
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        assert peak
        return {"interpreter": interpreter(), **found, "ready, as seen": seen, "MB": int(peak[1]) / 1024}


def interpreter() -> float:
    """Seconds until Python has started and ended, which has nothing to do with us."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return time.perf_counter() - started


def measure(rounds: int) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Serial and parallel starts, in turn; the first of each fills the caches of the disk."""
    pairs = [(start(1), start(PARALLEL)) for _ in range(rounds + 1)][1:]
    serial, parallel = zip(*pairs, strict=True)
    return list(serial), list(parallel)


def run(rounds: int, report: Report) -> None:
    """The ratios, for ``make bench``."""
    serial, parallel = measure(rounds)
    for part, title in (("models", "loading"), ("ready, as seen", "start to ready")):
        pairs = [(one[part], other[part]) for one, other in zip(parallel, serial, strict=True)]
        report(f"{title}, {PARALLEL} models at once / one", pairs, "< 1", "s")


def table(serial: Sequence[Mapping[str, float]], parallel: Sequence[Mapping[str, float]]) -> None:
    """Print the fastest starts side by side: what disturbs only ever adds."""
    fastest = [min(starts, key=lambda start: start["ready, as seen"]) for starts in (serial, parallel)]
    print(f"{'seconds':<22}{'one by one':>12}{f'{PARALLEL} at once':>12}")
    for part in fastest[0]:
        both = (start[part] for start in fastest)
        print(f"{part:<22}" + "".join(f"{value:>12.{0 if part == 'MB' else 3}f}" for value in both))


def _get(address: str, path: str) -> Any:
    with urllib.request.urlopen(address + path) as response:
        return json.load(response)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    print(machine.describe())
    table(*measure(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
