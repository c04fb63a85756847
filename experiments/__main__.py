"""``python -m experiments run | measure | evaluate | table | picture``: what docs/ shows, made anew."""

from __future__ import annotations

import argparse

import torch

from experiments import maps
from experiments.measure import MEASURES, measure
from experiments.picture import draw_maps
from experiments.plan import plan
from experiments.run import is_done, run_all
from experiments.table import write_tables


def main() -> None:
    """Do one of the five; each goes on where it was left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("run", "measure", "evaluate", "table", "picture"))
    parser.add_argument("--only", default="", help="runs whose name contains this")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each on one thread")
    given = parser.parse_args()
    if given.what == "run":
        run_all(list(plan()), given.jobs, given.only)
    elif given.what == "measure":
        torch.set_num_threads(1)
        for run in plan():
            trained = is_done(run) and (run.folder / "best.ckpt").exists()
            if given.only in run.name and trained and not (run.folder / MEASURES).exists():
                measure(run.folder, curves=run.wants_curves)
                print(run.name, flush=True)
    elif given.what == "evaluate":
        run_all([evaluation.run for evaluation in maps.PLAN], given.jobs, given.only)
    elif given.what == "table":
        write_tables()
    else:
        draw_maps()


if __name__ == "__main__":
    main()
