"""The report of an evaluation: one HTML page that needs nothing beside it."""

from __future__ import annotations

from konkyo.evaluation.report.look import Look, Looking
from konkyo.evaluation.report.page import write_report

__all__ = ["Look", "Looking", "write_report"]
