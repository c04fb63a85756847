"""``make bench``: goodput against the bare session and the bare endpoint, latency, start, memory,
attention, explanations, measures of explanations, worker processes.

Everything that is compared runs in turn, several rounds, and the median of the rounds' ratios
counts: the machine's speed may drift, the ratio of neighbours does not.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import attention, evaluation, explanations, machine, worker_processes
from benchmarks import startup as loading
from benchmarks.load import Result, drive, request_bytes
from konkyo.models.bundle import ONNX
from konkyo.service.settings import ZOO

SAMPLES = Path(__file__).parent.parent / "src/konkyo/service/web/samples"
SMALL, LARGE, ATTENTION = "gcm-cifar10", "gcm-224", "abn-magnetic-tile"
BATCH = 32


def jpegs(side: int) -> list[bytes]:
    """Sixteen different crops of a photo as JPEG files."""
    photo = Image.open(SAMPLES / "chelsea.jpg").convert("RGB")
    found = []
    for shift in range(16):
        part = photo.crop((shift * 4, shift * 2, photo.width - 64 + shift * 4, photo.height - 32 + shift * 2))
        buffer = io.BytesIO()
        part.resize((side, side)).save(buffer, "JPEG", quality=90)
        found.append(buffer.getvalue())
    return found


def large_bundle(repository: Path) -> None:
    """A GCM at 224x224 beside the shipped one; untrained, since speed does not depend on weights."""
    import torch

    from konkyo.export.bundle import Origin, write_bundle
    from konkyo.models.classifier import Classifier
    from konkyo.models.registry import build

    torch.manual_seed(0)
    samples = np.random.default_rng(0).integers(0, 256, (8, 224, 224, 3), np.uint8)
    labels = tuple(f"class {index}" for index in range(10))
    origin = Origin(
        architecture="gcm", arguments={}, labels=labels, method="gcm", data="none", licence="Apache-2.0",
        command="make bench", epochs=0,
    )  # fmt: skip
    classifier = Classifier(build("gcm", len(labels)))
    write_bundle(repository / LARGE / "1", classifier.state_dict(), samples, origin)


def bare(model: Path, on: set[int], k: int, seconds: float) -> float:
    """Images a second of the bare session on these cores."""
    command = [
        sys.executable, "-m", "benchmarks.bare", str(model), "--batch", str(BATCH), "--threads",
        str(max(1, len(on))), "--k", str(k), "--seconds", str(seconds),
    ]  # fmt: skip
    before = machine.cores()[1]
    machine.pin(on)
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    machine.pin(before)
    return float(json.loads(output))


def load(address: str, path: str, bodies: list[bytes], connections: int, seconds: float) -> Result:
    """Drive one endpoint; stops the benchmark on any failure, since a failed answer is no goodput."""
    result = drive(
        address,
        [request_bytes(address, path, body) for body in bodies],
        connections=connections,
        seconds=seconds,
    )
    if result.failures:
        raise RuntimeError(f"{path}: {result.failures} of {len(result.latencies)} answers were not 200")
    return result


def report(title: str, pairs: list[tuple[float, float]], aim: str, unit: str) -> None:
    """Print the median of the rounds' ratios with their spread, and the medians behind it."""
    ratios = [ours / other for ours, other in pairs]
    ours, other = (statistics.median(side) for side in zip(*pairs, strict=True))
    print(
        f"{title:<40} {statistics.median(ratios):6.2f}  ({min(ratios):.2f} to {max(ratios):.2f})"
        f"  aim {aim:<7} {ours:.5g} to {other:.5g} {unit}",
        flush=True,
    )


def report_value(title: str, values: list[float], aim: str) -> None:
    """Print the median of a figure that is compared with nothing."""
    print(
        f"{title:<40} {statistics.median(values):6.2f}  ({min(values):.2f} to {max(values):.2f})  aim {aim}"
    )


def goodput(server: str, echo: str, repository: Path, on: set[int], rounds: int, seconds: float) -> None:
    """(a): HTTP goodput against the bare session and the bare endpoint."""
    large, small = jpegs(224), jpegs(32)
    for verb, k in (("predict", 0), ("explain", 1)):
        heavy, plain, light = [], [], []
        for _ in range(rounds):
            served = load(server, f"/v1/models/{LARGE}:{verb}", large, 2 * BATCH, seconds).per_second
            heavy.append((served, bare(repository / LARGE / "1" / ONNX, on, k, seconds)))
        for _ in range(rounds):
            echoed = load(echo, "/echo", small, 2 * BATCH, seconds).per_second
            served = load(server, f"/v1/models/{SMALL}:{verb}", small, 2 * BATCH, seconds).per_second
            plain.append((served, echoed))
            light.append((served, bare(repository / SMALL / "1" / ONNX, on, k, seconds)))
        report(f"goodput 224x224 :{verb} / bare session", heavy, ">= 0.8", "images/s")
        report(f"goodput 32x32 :{verb} / echo endpoint", plain, ">= 0.6", "requests/s")
        report(f"goodput 32x32 :{verb} / bare session", light, "-", "images/s")


def tiles() -> list[bytes]:
    """The sample tiles."""
    return [path.read_bytes() for path in sorted(SAMPLES.glob("tile-*.jpg"))]


def latency(server: str, rounds: int, seconds: float) -> None:
    """(b): one caller at a time, explain over predict."""
    for model, title, bodies in (
        (LARGE, "224x224", jpegs(224)),
        (SMALL, "32x32", jpegs(32)),
        (ATTENTION, "ABN 128x128", tiles()),
    ):
        pairs = []
        for _ in range(rounds):
            explain, predict = (
                load(server, f"/v1/models/{model}:{verb}", bodies, 1, seconds / 2).latencies
                for verb in ("explain", "predict")
            )
            pairs.append((1e3 * statistics.median(explain), 1e3 * statistics.median(predict)))
        report(f"latency {title} :explain / :predict", pairs, "<= 1.1", "ms")


def with_map(server: str, rounds: int, seconds: float) -> None:
    """(d): what the map of an attention branch network costs under load, raw and as a picture."""
    bodies = tiles()
    for query, title in (("?map=float32", "raw"), ("", "PNG, original frame")):
        pairs = []
        for _ in range(rounds):
            explain, predict = (
                load(server, f"/v1/models/{ATTENTION}:{verb}", bodies, BATCH, seconds).per_second
                for verb in (f"explain{query}", "predict")
            )
            pairs.append((predict, explain))  # seconds of work per answer: the inverse of the rate
        report(f"ABN with map ({title}) / without", pairs, "<= 1.05", "answers/s")


def startup(rounds: int) -> None:
    """(c): process start to ready, and resident memory, of the shipped ONNX bundles."""
    times, resident = [], []
    for _ in range(rounds):
        started = time.perf_counter()
        server = machine.process(["-m", "konkyo", "serve"], "/readyz", set(), KONKYO_LOG_LEVEL="error")
        with server as (address, pid):
            times.append(time.perf_counter() - started)
            load(address, f"/v1/models/{SMALL}:explain", jpegs(32), 8, 1)
            found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
            assert found
            resident.append(int(found[1]) / 1024)
    report_value("start to ready, shipped bundles (s)", times, "<= 2")
    report_value("largest resident memory (MB)", resident, "< 250")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4, help="of each measurement")
    options = parser.parse_args()
    on, client = machine.cores()
    print(f"{machine.describe()}; server on cores {sorted(on)}, client on {sorted(client)}; "
          f"{options.rounds} rounds of {options.seconds:g} s; median (least to most)")  # fmt: skip
    startup(options.rounds)
    loading.run(options.rounds, report)
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder)
        for model in (SMALL, ATTENTION):
            (repository / model).symlink_to(ZOO / model)
        large_bundle(repository)
        machine.pin(client)
        environment = {
            "KONKYO_REPOSITORY": folder, "KONKYO_LOG_LEVEL": "error", "KONKYO_MAX_BATCH": str(BATCH),
            "KONKYO_THREADS": str(len(on)), "KONKYO_DRAIN_SECONDS": "0",
        }  # fmt: skip
        with (
            machine.process(["-m", "konkyo", "serve"], "/readyz", on, **environment) as (server, _),
            machine.process(["-m", "benchmarks.echo"], "/readyz", on) as (echo, _),
        ):
            goodput(server, echo, repository, on, options.rounds, options.seconds)
            latency(server, options.rounds, options.seconds)
            with_map(server, options.rounds, options.seconds)
    attention.run(options.rounds, report)
    explanations.run(options.rounds, report)
    evaluation.run(options.rounds, report)
    bodies = {"32x32": jpegs(32), "512x512": jpegs(512)}
    worker_processes.run(options.rounds, options.seconds, report, bodies)


if __name__ == "__main__":
    main()
