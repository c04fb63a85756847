"""The commands behind docs/results.md are commands: their options exist, their networks can be built."""

from __future__ import annotations

import json

import pytest
import typer
from experiments import maps
from experiments.plan import Run, plan
from experiments.table import RESULTS

from konkyo.cli import app
from konkyo.evaluation.measures import measures
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


@pytest.mark.parametrize("evaluation", maps.PLAN, ids=lambda evaluation: evaluation.name)
def test_an_evaluation_can_be_read_and_its_tables_have_a_place(evaluation: maps.Evaluation) -> None:
    options = parsed(evaluation.run)
    assert str(options["out"]) == str(evaluation.folder)
    asked = str(options["measures"]).split(",")
    assert set(asked) <= measures().keys()
    places = RESULTS.read_text(encoding="utf-8")
    for name, columns in evaluation.tables.items():
        assert f"<!-- {name} -->" in places
        # Runs that share a table need not all have its columns, but each has some.
        assert {measure for measure, _ in columns.values()} & set(asked)
