"""Measures by name, one a file.

Each file holds the measure as plain functions, for use as a library, and a class that tells the command
line and the report how to run it over a data set (``base.Measure``).
"""

from __future__ import annotations

from typing import TypeVar

from konkyo.evaluation.measures.base import Measure
from konkyo.named import Named

M = TypeVar("M", bound=type[Measure])
_MEASURES: Named[type[Measure]] = Named(__name__, "measure")


def register(measure: M) -> M:
    """Class decorator: make a measure findable by its ``name``.

    Raises:
        ValueError: the name is taken.
    """
    _MEASURES.add(measure.name, measure)
    return measure


def measures() -> dict[str, type[Measure]]:
    """Every registered measure by name."""
    return _MEASURES.all()
