"""Figures, intervals and settings in words."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

from konkyo.evaluation.results import DifferenceResult, FigureResult

PLACES = 4
"""Decimals at most."""


def decimals(figures: Iterable[FigureResult | DifferenceResult]) -> int:
    """As many as the middle one of the intervals' widths needs, and 2 at least of figures up to 1."""
    figures = list(figures)
    widths = sorted(
        figure.high - figure.low
        for figure in figures
        if figure.low is not None and figure.high is not None and figure.high > figure.low
    )
    if not widths:
        return 3
    least = 2 if all(abs(figure.value or 0) <= 1 for figure in figures) else 0
    return min(max(1 - math.floor(math.log10(5 * widths[len(widths) // 2])), least), PLACES)


def number(value: float | None, places: int = 3) -> str:
    """A figure, with a minus sign and no minus zero; a dash where there is none."""
    if value is None:
        return "–"  # noqa: RUF001
    text = f"{value:,.{places}f}"
    return text.lstrip("-") if not float(text.replace(",", "")) else text.replace("-", "−")  # noqa: RUF001


def brief(value: float) -> str:
    """A single value in three digits, or all that stand before its point."""
    size = abs(value)
    return number(value, 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3)


def interval(figure: FigureResult, places: int = 3) -> str:
    """``0.65 to 0.77``; empty where there is none."""
    if figure.low is None or figure.high is None:
        return ""
    return f"{number(figure.low, places)} to {number(figure.high, places)}"


def counted(count: int, noun: str, plural: str = "") -> str:
    """``1 image``, ``1,200 images``."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def listed(items: Iterable[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    *first, last = items
    return f"{', '.join(first)} and {last}" if first else last


def setting(value: Any) -> str:
    """A setting as a person would write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(setting, value)) or "none"
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    return "none" if value is None else str(value)
