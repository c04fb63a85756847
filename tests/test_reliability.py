"""docs/reliability.md names tests and scenarios that exist, and every scenario."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from chaos.__main__ import SCENARIOS, table

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (\d+) \| .*$", TEXT, re.M)
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)))


def test_every_row_is_there() -> None:
    assert {int(row) for row in ROWS} == set(range(1, 14))
    assert len(TESTS) > 20


@pytest.mark.parametrize(("file", "name"), TESTS)
def test_the_tests_exist(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert name in {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_the_scenarios_are_those_of_the_run() -> None:
    assert set(re.findall(r"`chaos ([\w-]+)`", TEXT)) == set(SCENARIOS)


def test_the_table_has_a_line_for_every_scenario() -> None:
    measured = re.findall(r"^\| `([\w-]+)`: (.*?) \| (.*?) \|", TEXT, re.M)
    assert {name: (title, criterion) for name, title, criterion in measured} == {
        name: (scenario.title, scenario.criterion) for name, scenario in SCENARIOS.items()
    }


def test_a_table_tells_figures_and_outcomes() -> None:
    result = {
        "title": "t",
        "criterion": "c",
        "outcome": "held",
        "figures": {"sent": 12000, "by_status": {"200": 1500, "400": 3}, "range": [1, 2.5]},
    }
    assert table({"x": result}).splitlines()[2:] == [
        "| `x`: t | c | sent 12,000; by status 200: 1,500, 400: 3; range 1, 2.5 | held |"
    ]
