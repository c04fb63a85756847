"""Measures by name, one a file.

Each file holds the measure as plain functions, for use as a library, and a class that tells the command
line and the report how to run it over a data set (``base.Measure``).
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TypeVar

from konkyo.evaluation.measures.base import Measure

M = TypeVar("M", bound=type[Measure])
_MEASURES: dict[str, type[Measure]] = {}


def register(measure: M) -> M:
    """Class decorator: make a measure findable by its ``name``.

    Raises:
        ValueError: the name is taken.
    """
    if measure.name in _MEASURES:
        raise ValueError(f"measure {measure.name!r} is registered twice")
    _MEASURES[measure.name] = measure
    return measure


def measures() -> dict[str, type[Measure]]:
    """Every registered measure by name."""
    package = importlib.import_module(__name__)
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return dict(sorted(_MEASURES.items()))
