"""The outcome of an evaluation as a file, ``results.json``: what the report is made from.

NaN is null. Every setting that changes a figure stands beside it.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from konkyo.evaluation.measures.base import Better

FEW = 30
"""A figure of fewer images says so."""


def finite(value: float) -> float | None:
    """The number, or None where it is none."""
    return float(value) if math.isfinite(value) else None


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DifferenceResult(_Part):
    """How much larger a figure is than the same of another map, over the same draws of the same images.

    Attributes:
        candidate, source: whose the other is.
        value: over the records that both have.
        low, high: ends of its interval; None of fewer than 2 images.
    """

    candidate: str
    source: str | None
    value: float | None
    low: float | None
    high: float | None


class FigureResult(_Part):
    """A figure.

    Attributes:
        value: None where there is none.
        low, high: ends of its interval, None of fewer than 2 images, and of an extreme.
        images: how many images, or things in them, it rests on.
        units: of how many images, or groups of images, they are: what an interval counts as independent.
        few: whether these are fewer than ``FEW``.
        differences: to the best baseline of the model and to the best of all maps; none of a baseline's.
    """

    name: str
    title: str
    better: Better
    value: float | None
    low: float | None
    high: float | None
    images: int
    units: int | None = None
    few: bool
    differences: tuple[DifferenceResult, ...] = ()


class CurveResult(_Part):
    """A mean curve with its pointwise interval; of T points."""

    name: str
    x_title: str
    y_title: str
    x: tuple[float, ...]
    y: tuple[float | None, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]


class MatrixResult(_Part):
    """A table of counts, R by C."""

    name: str
    title: str
    row_title: str
    column_title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]


class WorstCase(_Part):
    """An image for which a measure came out badly.

    Attributes:
        example: its name.
        about: which thing marked in it.
        target: class index of the map; None where it is not one map.
        value: of the measure's ``worst`` statistic.
    """

    example: str
    about: str
    target: int | None
    value: float


class MeasureResult(_Part):
    """One measure of one model, by one method.

    Attributes:
        candidate: name of the model.
        source: of the maps; None for a measure of the model alone.
        settings: the measure's parameters.
        unsuited: why it was not taken; then the rest is empty.
        notes: sentences that belong to the figures.
        worst_by: title of the statistic that the worst cases come from.
        seconds: how long it took, maps not counted.
    """

    candidate: str
    source: str | None
    measure: str
    title: str
    reference: str
    settings: dict[str, Any]
    unsuited: str | None = None
    figures: tuple[FigureResult, ...] = ()
    curves: tuple[CurveResult, ...] = ()
    matrices: tuple[MatrixResult, ...] = ()
    notes: tuple[str, ...] = ()
    worst_by: str = ""
    worst: tuple[WorstCase, ...] = ()
    seconds: float = 0


class CandidateResult(_Part):
    """A model that was evaluated."""

    name: str
    digest: str
    architecture: str
    labels: tuple[str, ...]
    input: str


class DataResult(_Part):
    """What it was evaluated on.

    Attributes:
        images: how many examples there are that can be read.
        explained: how many of them maps were measured on.
        marked: how many of these have something marked in them.
        grouped: whether intervals are by groups of images.
        skipped: of each image that cannot be read, what is wrong with it.
    """

    name: str
    description: str
    licence: str
    images: int
    explained: int
    marked: int
    grouped: bool
    skipped: tuple[str, ...] = ()


class Results(_Part):
    """Everything.

    Attributes:
        settings: of the run: data, seed, resamples, level of the intervals, whatever else changes a
            figure.
        versions: of konkyo and of what computed.
    """

    format: Literal["konkyo-evaluation/1"] = "konkyo-evaluation/1"
    command: str
    date: str
    settings: dict[str, Any]
    versions: dict[str, str]
    data: DataResult
    candidates: tuple[CandidateResult, ...]
    measures: tuple[MeasureResult, ...]
