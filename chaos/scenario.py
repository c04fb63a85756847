"""What every scenario is given, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Figures = dict[str, Any]
"""Names and values for the table and the JSON file; what is measured, in the unit its name says."""


class NotHeldError(Exception):
    """The pass criterion does not hold; the message says how to see it again."""


class NotRunError(Exception):
    """A tool is missing; the message names it."""


@dataclass
class Context:
    """One run.

    Attributes:
        short: a few minutes for everything, as in CI.
        folder: for logs and repositories of this scenario.
        seed: of everything that is random.
        soak_minutes: length of the soak.
        figures: filled in as they are measured, so that those of a run that fails are told too.
    """

    short: bool
    folder: Path
    seed: int
    soak_minutes: float
    figures: Figures = field(default_factory=dict)

    def pick(self, short: int, full: int) -> int:
        """A size, by the length of the run."""
        return short if self.short else full

    def hold(self, condition: bool, why: str) -> None:
        """Raise ``NotHeldError`` unless a part of the criterion holds."""
        if not condition:
            raise NotHeldError(why)


@dataclass(frozen=True)
class Scenario:
    """One load or fault.

    Attributes:
        title: as in the table.
        criterion: when it passes.
        run: measures, and raises ``NotHeldError`` or ``NotRunError``.
    """

    title: str
    criterion: str
    run: Callable[[Context], None]
