"""``make chaos``: every scenario on real processes, a table in the end; exit code 1 if one does not hold."""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from benchmarks import machine

from chaos import (
    bad_engines,
    damaged_requests,
    decoding,
    guided,
    hostile,
    oip,
    openapi,
    overload,
    reload,
    rolling,
    soak,
    swapped,
)
from chaos.scenario import Context, NotHeldError, NotRunError, Scenario

SCENARIOS: dict[str, Scenario] = {
    "openapi": openapi.SCENARIO,
    "decoding": decoding.SCENARIO,
    "guided": guided.SCENARIO,
    "damaged-requests": damaged_requests.SCENARIO,
    "oip": oip.SCENARIO,
    "hostile": hostile.SCENARIO,
    "rolling": rolling.SCENARIO,
    "reload": reload.SCENARIO,
    "bad-engines": bad_engines.SCENARIO,
    "swapped": swapped.SCENARIO,
    "overload": overload.SCENARIO,
    "soak": soak.SCENARIO,
}
RESULTS = Path(__file__).parent.parent / "build" / "chaos.json"


def play(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One scenario: its figures, and whether it held."""
    scenario, started = SCENARIOS[name], time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"konkyo-{name}-") as folder:
        context = Context(options.short, Path(folder), options.seed, options.soak_minutes)
        outcome, why = "held", None
        try:
            scenario.run(context)
        except NotRunError as error:
            outcome, why = "not run", str(error)
        except NotHeldError as error:
            outcome, why = "DID NOT HOLD", str(error)
        except Exception as error:
            traceback.print_exc()
            outcome, why = "DID NOT HOLD", repr(error)
        if outcome == "DID NOT HOLD":
            why = f"{why}\n{_logs(context.folder)}"
    return {
        "title": scenario.title,
        "criterion": scenario.criterion,
        "outcome": outcome,
        "why": why,
        "seconds": round(time.monotonic() - started, 1),
        "figures": context.figures,
    }


def _logs(folder: Path) -> str:
    tails = {path.name: path.read_bytes()[-1500:] for path in sorted(folder.glob("*.log"))}
    legible = {name: re.sub(rb"[^\x20-\x7e\n]", b"?", tail).decode() for name, tail in tails.items()}
    return "\n".join(f"--- {name}\n{tail}" for name, tail in legible.items() if tail)


def table(results: dict[str, Any]) -> str:
    """In Markdown, as in docs/reliability.md."""
    lines = ["| scenario | passes when | measured | |", "|---|---|---|---|"]
    for name, result in results.items():
        figures = "; ".join(
            f"{key.replace('_', ' ')} {_shown(value)}" for key, value in result["figures"].items()
        )
        lines.append(
            f"| `{name}`: {result['title']} | {result['criterion']} | {figures} | {result['outcome']} |"
        )
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_shown(one)}" for key, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _kept() -> dict[str, Any]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}  # type: ignore[no-any-return]


def _keep(results: dict[str, Any], options: argparse.Namespace) -> None:
    """Write the results beside those of earlier runs of other scenarios."""
    about = {"machine": machine.describe(), "short": options.short, "seed": options.seed}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(_kept() | {name: about | one for name, one in results.items()}, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(SCENARIOS)}; all of them by default")
    parser.add_argument("--short", action="store_true", help="a few minutes for everything, as in CI")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--soak-minutes", type=float, help="length of the soak; 2 in a short run, else 20")
    parser.add_argument("--table", action="store_true", help="run nothing; the table of what was run last")
    options = parser.parse_args()
    if options.table:
        kept = _kept()
        print(table({name: kept[name] for name in SCENARIOS if name in kept}))
        return
    if options.soak_minutes is None:
        options.soak_minutes = 2 if options.short else 20
    unknown = set(options.names) - SCENARIOS.keys()
    if unknown:
        parser.error(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    print(
        f"{machine.describe()}; {'short' if options.short else 'full'} run, seed {options.seed}", flush=True
    )
    results = {}
    for name in options.names or SCENARIOS:
        results[name] = result = play(name, options)
        figures = _shown(result["figures"])
        print(f"{name:<18} {result['outcome']:<13} {result['seconds']:7.1f} s  {figures}", flush=True)
        if result["why"]:
            print(f"  {result['why']}", flush=True)
    print(f"\n{table(results)}\n\n{RESULTS}: these beside earlier ones; python -m chaos --table shows all")
    _keep(results, options)
    sys.exit(any(result["outcome"] == "DID NOT HOLD" for result in results.values()))


if __name__ == "__main__":
    main()
