"""What a measure is: records of single images, and statistics of many records.

A measure never sees the whole data set. It is handed a batch of examples with their maps and gives one
record for each image, or for each thing marked in it; records are kept in a file, so that a run that was
interrupted goes on. What is reported are statistics of all records, with intervals by resampling them.

Shape legend: B batch, K targets, h, w grid of the maps, n records.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.examples import Batch
from konkyo.evaluation.sources import Source

Float64 = npt.NDArray[np.float64]
Columns = Mapping[str, Float64]
"""Values of many records by name: (n,), or (n, T) where a record's value is a curve."""

Wants = Literal["nothing", "predicted", "truth", "marked", "top5", "all"]
"""Of which classes a measure wants maps: ``nothing``, no maps at all, and it is run once a model; the
``predicted`` class; the ``truth``; a class for each thing ``marked``; the ``top5`` predicted, best first;
``all`` classes in their order."""

Better = Literal["higher", "lower", "neither"]


class Parameters(BaseModel):
    """Base of the parameters of a measure; a name or a value it does not know is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Unsuited(Exception):
    """A measure cannot be taken of this model, method or data; the message says why, for the report."""


class Record(NamedTuple):
    """What a measure found in one image, or in one thing marked in it.

    Attributes:
        position: of the image in its batch.
        values: numbers or curves by name, the same names in every record; NaN where nothing can be said.
        about: which thing, where an image may have several.
    """

    position: int
    values: Mapping[str, float | Sequence[float]]
    about: str = ""


class Statistic(NamedTuple):
    """A figure of many records.

    Attributes:
        name: as in the report, such as ``accuracy``.
        of: columns to the figure; NaN where there is none.
        better: which way.
        title: in words.
        resampled: whether it gets an interval; of an extreme, which is of one record, resamples say nothing.
    """

    name: str
    of: Callable[[Columns], float]
    better: Better
    title: str
    resampled: bool = True


class Curve(NamedTuple):
    """The mean of a column of curves.

    Attributes:
        name: as in the report.
        column: (n, T).
        x: (T,).
        x_title, y_title: of the axes.
    """

    name: str
    column: str
    x: tuple[float, ...]
    x_title: str
    y_title: str


class Matrix(NamedTuple):
    """A table of many records, such as how often which class was taken for which.

    Attributes:
        name: as in the report.
        title: in words.
        of: columns to (R, C) counts.
        rows, columns: R and C names.
        row_title, column_title: what they are, such as ``true class``.
    """

    name: str
    title: str
    of: Callable[[Columns], Float64]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    row_title: str
    column_title: str


@dataclass(frozen=True)
class Mean:
    """The mean of a column over the records where it is a number; NaN if there are none."""

    column: str

    def __call__(self, columns: Columns) -> float:
        """See ``Statistic.of``."""
        values = columns[self.column]
        values = values[~np.isnan(values)]
        return float(values.mean()) if len(values) else math.nan


@dataclass(frozen=True)
class Missing:
    """The share of the records where a column is no number; NaN of no records."""

    column: str

    def __call__(self, columns: Columns) -> float:
        """See ``Statistic.of``."""
        values = columns[self.column]
        return float(np.isnan(values).mean()) if len(values) else math.nan


class Measure(ABC):
    """A measure of one model, or of one model's maps by one method.

    Args:
        candidate: the model.
        source: of the maps; None for a measure that wants none.
        parameters: an instance of ``parameters``.

    Raises:
        Unsuited: it cannot be taken of these.
    """

    name: ClassVar[str]
    """As on the command line."""
    title: ClassVar[str]
    """As in the report."""
    reference: ClassVar[str]
    """The paper, with its section or equation."""
    wants: ClassVar[Wants]
    parameters: ClassVar[type[Parameters]] = Parameters
    worst: ClassVar[str | None] = None
    """Name of the statistic by whose column images are shown as worst cases; None shows none."""

    def __init__(self, candidate: Candidate, source: Source | None, parameters: Parameters) -> None:
        self.candidate = candidate
        self.source = source

    @abstractmethod
    def records(self, batch: Batch, targets: Tensor, maps: Tensor) -> Sequence[Record]:
        """Look at a batch.

        Args:
            batch: examples and logits.
            targets: (B, K) int64 class indices as ``wants`` says, all resolved; −1 where an image has fewer:
                no truth, or fewer things marked than another. (B, 0) where it wants nothing.
            maps: (B, K, h, w) float32 of these classes, raw and signed, on the device; what it holds at −1
                does not matter. (B, 0, 1, 1) where it wants nothing.

        Returns:
            None to any number for each image.
        """

    @abstractmethod
    def statistics(self) -> Sequence[Statistic]:
        """The figures, the most important first."""

    def settled(self) -> Mapping[str, Any]:
        """Parameters whose default depends on the model, as they came out: reported in their place."""
        return {}

    def curves(self) -> Sequence[Curve]:
        """Curves to draw."""
        return ()

    def matrices(self) -> Sequence[Matrix]:
        """Tables of counts to show."""
        return ()

    def notes(self, columns: Columns) -> Sequence[str]:
        """Sentences that belong to the figures, such as what caused them."""
        return ()
