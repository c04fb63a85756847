"""The commands behind docs/results.md are commands: their options exist, their networks can be built."""

from __future__ import annotations

import json

import pytest
import typer
from experiments.plan import Run, plan

from konkyo.cli import app
from konkyo.models.registry import build

RUNS = list(plan())


def parsed(run: Run) -> dict[str, object]:
    """The options of a run's command, as the command line reads them."""
    _, command, *arguments = run.arguments
    group = typer.main.get_command(app)
    return group.commands[command].make_context(command, arguments).params  # type: ignore[attr-defined]


def test_every_run_comes_once_and_after_those_it_needs() -> None:
    seen: set[str] = set()
    for run in RUNS:
        assert run.name not in seen
        assert set(run.after) <= seen
        seen.add(run.name)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_the_command_can_be_read(run: Run) -> None:
    options = parsed(run)
    if run.arguments[1] != "export":
        assert str(options["out"]) == str(run.folder)
        assert options["seed"] == int(run.name[-1])


def test_the_networks_can_be_built_and_a_bundle_of_each_stays_small() -> None:
    networks = {
        (options["arch"], tuple(options["arch_arg"]))  # type: ignore[arg-type]
        for run in RUNS
        if run.arguments[1] == "train"
        for options in [parsed(run)]
    }
    assert {arch for arch, _ in networks} == {"backbone", "abn", "amb", "multiscale-abn"}
    for arch, arguments in networks:
        found = dict(item.split("=", 1) for item in arguments)
        network = build(arch, 6, **{name: json.loads(value) for name, value in found.items()})
        assert 2 * 4 * sum(parameter.numel() for parameter in network.parameters()) < 10e6
