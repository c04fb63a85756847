"""A table of counts with shaded cells; of many classes, the largest cells off its diagonal as a list."""

from __future__ import annotations

from typing import NamedTuple

from konkyo.evaluation.report.numbers import number
from konkyo.evaluation.results import MatrixResult

LARGEST = 20
"""Rows and columns that are still read as a table."""
PAIRS = 15
STEPS = 10


class Shade(NamedTuple):
    """A cell; ``step`` is its share of its row, from 0 to ``STEPS``."""

    text: str
    step: int


class ShadeRow(NamedTuple):
    """A row with its name."""

    name: str
    cells: list[Shade]


class Pair(NamedTuple):
    """A cell off the diagonal."""

    row: str
    column: str
    text: str


class Shades(NamedTuple):
    """A table; ``rows`` is empty where ``pairs`` takes its place."""

    candidate: str
    title: str
    row_title: str
    column_title: str
    columns: tuple[str, ...]
    rows: list[ShadeRow]
    pairs: list[Pair]


def shades(matrix: MatrixResult, candidate: str) -> Shades:
    """Make a table of it, or a list."""
    fits = max(len(matrix.rows), len(matrix.columns)) <= LARGEST
    return Shades(
        candidate, matrix.title, matrix.row_title, matrix.column_title, matrix.columns,
        _rows(matrix) if fits else [], [] if fits else _pairs(matrix),
    )  # fmt: skip


def _text(value: float) -> str:
    return number(value, 0 if value == round(value) else 2)


def _rows(matrix: MatrixResult) -> list[ShadeRow]:
    found = []
    for name, values in zip(matrix.rows, matrix.values, strict=True):
        total = sum(values)
        cells = [Shade(_text(value), round(STEPS * value / total) if total else 0) for value in values]
        found.append(ShadeRow(name, cells))
    return found


def _pairs(matrix: MatrixResult) -> list[Pair]:
    cells = [
        (value, row, column)
        for row, values in enumerate(matrix.values)
        for column, value in enumerate(values)
        if value and matrix.rows[row] != matrix.columns[column]
    ]
    cells.sort(key=lambda cell: (-cell[0], cell[1:]))
    return [
        Pair(matrix.rows[row], matrix.columns[column], _text(value)) for value, row, column in cells[:PAIRS]
    ]
