"""The report of an evaluation: everything that the page shows, and the page."""

from __future__ import annotations

from pathlib import Path

from konkyo.evaluation.report.base import render
from konkyo.evaluation.report.cases import all_cases
from konkyo.evaluation.report.glance import ANSWERS, glance
from konkyo.evaluation.report.look import Looking
from konkyo.evaluation.report.numbers import counted, setting
from konkyo.evaluation.report.sections import anchor, chapters, not_taken
from konkyo.evaluation.report.tables import Styles
from konkyo.evaluation.report.words import INTRODUCTIONS
from konkyo.evaluation.results import FEW, Results
from konkyo.evaluation.sources import BASELINES

TEMPLATE = Path(__file__).with_name("report.html.j2")


def write_report(results: Results, look: Looking, out: Path) -> Path:
    """Write the page of an evaluation.

    The same results and pictures give the same bytes.

    Args:
        results: what was measured.
        look: asked for each worst case that is shown, one at a time.
        out: folder that is there.

    Returns:
        ``report.html`` in it.
    """
    path = out / "report.html"
    path.write_text(report(results, look), encoding="utf-8")
    return path


def report(results: Results, look: Looking) -> str:
    """The page of an evaluation, see ``write_report``."""
    sources = dict.fromkeys(result.source for result in results.measures if result.source not in BASELINES)
    styles = Styles(
        [item.name for item in results.candidates], [name for name in sources if name is not None]
    )
    return render(
        TEMPLATE,
        [TEMPLATE.with_name("report.css")],
        results=results,
        names=styles.candidates,
        glance=glance(results),
        answers=ANSWERS,
        introductions=INTRODUCTIONS,
        chapters=chapters(results, styles, all_cases(results.measures, look)),
        not_taken=not_taken(results, styles),
        anchor=anchor,
        counted=counted,
        setting=setting,
        few=FEW,
        intervals=_intervals(results),
    )


def _intervals(results: Results) -> str:
    """How the intervals were made, in words."""
    of = results.settings
    level, times, seed = (of.get(name) for name in ("level", "resamples", "seed"))
    drawn = "images are drawn"
    if results.data.grouped:
        drawn = "groups of images, each of one object, are drawn together"
    share = f"{100 * level:g} %" if isinstance(level, float) else "a share"
    return (
        f"Intervals hold {share} of the figures of {setting(times)} resamples (percentile bootstrap, seed "
        f"{setting(seed)}): {drawn} with repetition, as many as there are, and the figure is taken again. "
        "They tell how much the choice of images matters, not whether these images are like yours."
    )
