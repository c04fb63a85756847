"""Damaged images through the decoder, in a process of its own that is watched.

``python -m chaos.decoding --seed 0 --first 4711 --count 1 --tell`` sees one of them again.
"""

from __future__ import annotations

import argparse
import collections
import json
import select
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chaos import files
from chaos.mutation import mutant
from chaos.scenario import Context, Scenario
from chaos.servers import forget_peak, status
from konkyo.errors import KonkyoError
from konkyo.imaging import decode, decoding_bytes, open_image, prepare

MAX_PIXELS = 2_000_000
"""Small enough that what takes memory for another reason than its pixels stands out."""

MAX_SECONDS = 5.0
MAX_GROWTH = 32 * files.MEBIBYTE
"""Beside what ``decoding_bytes`` says: a body, its parts, and what the allocator keeps."""


def run(context: Context) -> None:
    """Decode them all; the process must not end, hang, grow, or raise what is no error of an image."""
    count = context.pick(12_000, 100_000)
    outcomes: collections.Counter[str] = collections.Counter()
    slowest, largest = 0.0, 0
    for line in apart(context, count):
        again = f"python -m chaos.decoding --seed {context.seed} --first {line['number']} --tell"
        where = f"{line['recipe']}; {again}"
        context.hold(line["fault"] is None, f"{line['fault']}: {where}")
        context.hold(line["seconds"] < MAX_SECONDS, f"took {line['seconds']:.1f} s: {where}")
        context.hold(line["grown"] < MAX_GROWTH, f"took {line['grown'] >> 20} MiB too much: {where}")
        outcomes[line["outcome"]] += 1
        slowest, largest = max(slowest, line["seconds"]), max(largest, line["grown"])
    context.figures |= {
        "files": sum(outcomes.values()),
        "read": outcomes["read"],
        "refused": {code: number for code, number in outcomes.most_common() if code != "read"},
        "slowest_seconds": round(slowest, 3),
        "most_memory_beside_the_pixels_mib": round(largest / files.MEBIBYTE, 1),
    }
    context.hold(sum(outcomes.values()) == count, "some were not tried")
    context.hold(outcomes["read"] > count / 20, "hardly any was read: the damage is too great to reach far")


def apart(context: Context, count: int) -> Iterator[dict[str, Any]]:
    """What a process that decodes them says of each; raises if it ends early or is silent for too long."""
    command = [sys.executable, "-m", "chaos.decoding", "--seed", str(context.seed), "--count", str(count)]
    with (context.folder / "decoding.log").open("wb") as errors:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
    assert child.stdout is not None
    last = -1
    try:
        while True:
            silent = not select.select([child.stdout], [], [], 10 * MAX_SECONDS)[0]
            context.hold(not silent, f"hangs at number {last + 1}")
            line = child.stdout.readline()
            if not line:
                break
            told = json.loads(line)
            last = told["number"]
            yield told
        code = child.wait()
        why = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        context.hold(code == 0, f"the process ended with {why} at number {last + 1}")
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def try_one(data: bytes) -> tuple[str, str | None, int]:
    """Decode and prepare a file: the outcome, a fault if it is one, and bytes that are known to be needed."""
    needed = 0
    try:
        opened = open_image(data, max_pixels=MAX_PIXELS)
        needed = decoding_bytes(opened)
        decoded = decode(opened)
        pixels, _ = prepare(decoded, (32, 32))
    except KonkyoError as error:
        return error.code, None if error.status < 500 else repr(error), needed
    except Exception as error:
        return "fault", f"{type(error).__name__}: {error}", needed
    if pixels.shape != (32, 32, 3) or decoded.image.mode != "RGB":
        return "fault", f"gave {pixels.shape} of {decoded.image.mode}", needed
    return "read", None, needed


def main() -> None:
    """Try a range of numbers and say a line of each."""
    parser = argparse.ArgumentParser(prog="python -m chaos.decoding", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--tell", action="store_true", help="save the file as FIRST.bin")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    try_one(next(iter(files.honest().values())))
    for number in range(options.first, options.first + options.count):
        found = mutant(options.seed, number)
        if options.tell:
            Path(f"{number}.bin").write_bytes(found.data)
        forget_peak(0)
        before, started = status(0, "VmRSS"), time.perf_counter()
        outcome, fault, needed = try_one(found.data)
        seconds = time.perf_counter() - started
        line = {
            "number": number,
            "recipe": found.recipe,
            "outcome": outcome,
            "fault": fault,
            "seconds": seconds,
            "grown": status(0, "VmHWM") - before - needed,
        }
        print(json.dumps(line), flush=True)


SCENARIO = Scenario(
    "damaged images through the decoder",
    f"each is read or refused by an image error, within {MAX_SECONDS:g} s and {MAX_GROWTH >> 20} MiB "
    "beside its pixels",
    run,
)

if __name__ == "__main__":
    main()
