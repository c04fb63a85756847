"""Runs the plan, several commands at a time; what is done is not done again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from experiments.plan import Run

DONE = "seconds"
"""File of a finished run: the time it took."""


def is_done(run: Run) -> bool:
    """Whether the run has ended well."""
    return (run.folder / DONE).exists()


def run_all(runs: Sequence[Run], jobs: int, wanted: str = "") -> None:
    """Run what is not done and whose name contains ``wanted``, each process on one thread.

    Raises:
        RuntimeError: a command failed; those that were running are finished first.
    """
    pending = [run for run in runs if wanted in run.name and not is_done(run)]
    running: dict[Future[None], Run] = {}
    failed: list[str] = []
    done = {run.name for run in runs if is_done(run)}
    with ThreadPoolExecutor(jobs) as pool:
        while (pending and not failed) or running:
            ready = [run for run in pending if set(run.after) <= done]
            for run in ready[: 0 if failed else jobs - len(running)]:
                pending.remove(run)
                running[pool.submit(_run, run)] = run
            if not running:
                raise RuntimeError(f"{pending[0].name} waits for {', '.join(pending[0].after)}")
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                run = running.pop(future)
                if error := future.exception():
                    failed.append(f"{run.name}: {error}")
                else:
                    done.add(run.name)
    if failed:
        raise RuntimeError("; ".join(failed))


def _run(run: Run) -> None:
    run.folder.mkdir(parents=True, exist_ok=True)
    print(f"{time.strftime('%H:%M:%S')} {run.name}", flush=True)
    started = time.perf_counter()
    with (run.folder / "log.txt").open("w", encoding="utf-8") as log:
        subprocess.run(
            [sys.executable, "-m", "konkyo", *run.arguments[1:]],
            stdout=log,
            stderr=subprocess.STDOUT,
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    (run.folder / DONE).write_text(f"{time.perf_counter() - started:.0f}\n", encoding="utf-8")
