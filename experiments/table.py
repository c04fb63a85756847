"""The tables of docs/results.md, made from the measured figures and put between their marks."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments import maps
from experiments.markdown import table
from experiments.measure import MEASURES
from experiments.plan import DATA, MINING, RUNS, SEEDS, SELECTIONS, SHARES, plan
from experiments.run import is_done

RESULTS = Path("docs/results.md")
TITLES = {"tiles": "magnetic tiles", "elpv": "solar cells"}
NETWORKS = {"backbone": "backbone alone", "abn": "ABN", "multiscale": "multi-scale ABN"}
VARIANTS = {
    "plain": "ABN, M·g",
    "amb": "+ AMB",
    "amb-pc": "+ AMB + PC",
    "amb-cot": "+ AMB + COT",
    "amb-all": "all",
}
assert VARIANTS.keys() == MINING.keys()


def write_tables() -> None:
    """Replace what stands between ``<!-- NAME -->`` and ``<!-- end -->`` by the table of that name.

    Training runs that are not here leave their tables as they are.
    """
    text = RESULTS.read_text(encoding="utf-8")
    trained = {
        "backbone": _networks(("backbone", "abn")),
        "mining": _mining(),
        "multiscale": _networks(("abn", "multiscale")),
        "sizes": _sizes(),
        "tuning": _tuning(),
        "correction": _correction(),
        "commands": _commands(),
    }
    here = any(is_done(run) for run in plan())
    for name, lines in {**(trained if here else {}), **dict(maps.tables())}.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"{RESULTS} has no place for the table {name}")
        body = "\n".join(lines)
        text = pattern.sub(lambda found, body=body: f"{found[1]}{body}\n{found[2]}", text)
    RESULTS.write_text(text, encoding="utf-8")


def _found(name: str) -> dict[str, Any] | None:
    path = RUNS / name / MEASURES
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _seeds(name: str) -> list[dict[str, Any]]:
    """The figures of every seed of a run that has them."""
    return [found for seed in SEEDS if (found := _found(f"{name}-{seed}"))]


def _percent(values: list[float]) -> str:
    """Mean, and each seed's value."""
    each = ", ".join(f"{100 * value:.1f}" for value in values)
    return f"{100 * statistics.mean(values):.1f} ({each})" if len(values) > 1 else each


def _number(values: list[float]) -> str:
    each = ", ".join(f"{value:.3f}" for value in values)
    return f"{statistics.mean(values):.3f} ({each})" if len(values) > 1 else each


def _networks(networks: tuple[str, ...]) -> Iterator[str]:
    rows = []
    for data in DATA:
        for network in networks:
            if runs := _seeds(f"{network}-{data}"):
                row = [TITLES[data], NETWORKS[network], f"{runs[0]['parameters']:,}"]
                row += [_percent([run[key] for run in runs]) for key in ("accuracy", "balanced_accuracy")]
                row.append(_number([run["kappa"] for run in runs]) if data == "elpv" else "")
                rows.append([*row, f"{statistics.mean(run['seconds'] for run in runs):.0f}"])
    return table(
        ("data", "network", "parameters", "accuracy, %", "balanced accuracy, %", "kappa", "seconds"), rows
    )


def _mining() -> Iterator[str]:
    rows = []
    for data in DATA:
        for variant, title in {"abn": "ABN, (1 + M)·g", **VARIANTS}.items():
            if runs := _seeds(f"{variant}-{data}"):
                row = [TITLES[data], title, _percent([run["accuracy"] for run in runs])]
                row += [_number([run[key] for run in runs]) for key in ("insertion", "deletion", "score")]
                row.append(_percent([run["kept"] for run in runs]))
                for key in ("energy_inside", "lift"):
                    means = [run["scales"][0][key][0]["mean"] for run in runs if "scales" in run]
                    row.append((_percent if key == "energy_inside" else _number)(means) if means else "")
                rows.append(row)
    return table(
        (
            "data",
            "network",
            "accuracy, %",
            "insertion ↑",
            "deletion ↓",
            "score ↑",
            "kept, %",
            "attention inside the defect, %",
            "lift over chance",
        ),
        rows,
    )


def _sizes() -> Iterator[str]:
    """Attention against the masks by the size of the defect; the first seed, before and after tuning."""
    rows = []
    for name, title in (
        ("abn-tiles-0", "ABN"),
        ("multiscale-tiles-0", "multi-scale ABN"),
        ("tuned-labels-tiles-0", "tuned on labels alone"),
        ("tuned-confidence-1-tiles-0", "tuned on all experts' maps"),
    ):
        found = _found(name)
        for scale, figures in enumerate(found["scales"] if found else []):
            of = f", map {scale + 1}" if len(found["scales"]) > 1 else ""  # type: ignore[index]
            for measure, label in (("map_error", "error"), ("lift", "lift")):
                bins = figures[measure]
                cells = ["-" if item["mean"] is None else f"{item['mean']:.3f}" for item in bins]
                rows.append([f"{title}{of}", label, *cells])
    found = _found("abn-tiles-0")
    heads = ["all"]
    if found:
        bins = found["scales"][0]["map_error"]
        heads = [f"{_share(item)} ({item['images']})" for item in bins]
    return table(("network", "measure", *heads), rows)


def _share(item: dict[str, Any]) -> str:
    if (item["low"], item["high"]) == (0, 1):
        return "all"
    return f"{100 * item['low']:g} to {100 * item['high']:g} %"


def _tuning() -> Iterator[str]:
    rows = []
    names = [("multiscale-tiles-0", "none", "before"), ("tuned-labels-tiles-0", "none", "labels alone")]
    names += [
        (f"tuned-{selection}-{share:g}-tiles-0", selection if share < 1 else "all", f"{100 * share:g} %")
        for selection in SELECTIONS
        for share in SHARES
    ]
    for name, selection, share in names:
        if found := _found(name):
            row = [selection, share, _percent([found["accuracy"]]), _percent([found["balanced_accuracy"]])]
            row += [f"{scale['map_error'][0]['mean']:.3f}" for scale in found["scales"]]
            row.append(_percent([found["scales"][-1]["energy_inside"][0]["mean"]]))
            row.append(f"{found['scales'][-1]['lift'][0]['mean']:.2f}")
            rows.append(row)
    return table(
        (
            "chosen by",
            "share",
            "accuracy, %",
            "balanced accuracy, %",
            "error, map 1",
            "map 2",
            "map 3",
            "map 3 inside the defect, %",
            "lift, map 3",
        ),
        rows,
    )


def _correction() -> Iterator[str]:
    rows = []
    for name, title in (
        ("abn-tiles", "ABN, (1 + M)·g"),
        *((f"{variant}-tiles", title) for variant, title in VARIANTS.items()),
        ("multiscale-tiles", "multi-scale ABN"),
        ("tuned-confidence-1-tiles", "multi-scale ABN, tuned on experts' maps"),
    ):
        runs = [run["corrected"] for run in _seeds(name)]
        if runs:
            row = [title, str(len(runs))]
            row += [str(sum(run[key] for run in runs)) for key in ("wrong", "right")]
            row += [
                str(sum(run[way][key] for run in runs))
                for way in ("replace", "paint")
                for key in ("turned_right", "turned_wrong")
            ]
            rows.append(row)
    return table(
        (
            "network",
            "seeds",
            "wrong before",
            "right before",
            "replaced: turned right",
            "turned wrong",
            "painted: turned right",
            "turned wrong",
        ),
        rows,
    )


def _commands() -> Iterator[str]:
    for run in plan():
        if is_done(run):
            yield f"    {run.command}    # {(run.folder / 'seconds').read_text().strip()} s"
