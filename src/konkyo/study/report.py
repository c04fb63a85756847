"""The report of a study: one HTML page with its pictures inside, which needs nothing beside it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from konkyo.evaluation.report.base import HERE, data_uri, render
from konkyo.evaluation.report.charts import DOTS_EDGE, DOTS_WIDTH, Dots
from konkyo.evaluation.report.numbers import counted, number, setting
from konkyo.evaluation.report.shades import Shades, shades
from konkyo.evaluation.results import MatrixResult
from konkyo.imaging import UInt8
from konkyo.rendering import encode_image
from konkyo.study.report_words import agreement_words, cautions, day, in_short, ordinal
from konkyo.study.scores import EntryScore, ImageScore, StudyScores

TEMPLATE = Path(__file__).with_name("report.html.j2")

SIDE, QUALITY = 220, 82
"""Of the pictures in the page: the longer side, in pixels, and the quality of their JPEG."""

Pictures = Callable[[str], bytes]


def write_report(scores: StudyScores, picture: Pictures, out: Path) -> None:
    """Write the page of a study.

    Args:
        scores: see ``scoring.score``.
        picture: id of a picture to its PNG.
        out: folder that is there; gets ``report.html``.
    """
    (out / "report.html").write_text(report(scores, picture), encoding="utf-8")


def report(scores: StudyScores, picture: Pictures) -> str:
    """The page of a study, see ``write_report``."""
    order = sorted(range(len(scores.entries)), key=lambda index: _standing(scores.entries[index]))
    return render(
        TEMPLATE,
        [HERE / "report.css", TEMPLATE.with_name("report.css")],
        scores=scores,
        order=order,
        lead=in_short(scores),
        cautions=cautions(scores),
        agreed=agreement_words(scores.agreement, len(scores.entries)),
        dots=[_dots(entry, len(scores.entries)) for entry in scores.entries],
        subtotals=_subtotals(scores, order),
        images=[_shown(image, scores, picture) for image in scores.images],
        ranked=sum(image.subjects > 0 for image in scores.images),
        complete=sum(subject.done == len(scores.images) for subject in scores.subjects),
        finished=sum(subject.finished for subject in scores.subjects),
        counted=counted,
        day=day,
        number=number,
        ordinal=ordinal,
        setting=setting,
    )


def _standing(entry: EntryScore) -> tuple[int, str]:
    return entry.place or 0, entry.name


def _dots(entry: EntryScore, entries: int) -> Dots | None:
    """The mean rank score of an image on the line from 1 to E, with its standard deviation to each side."""
    if entry.mean is None or entry.variance is None or entries < 2:
        return None

    def place(rank: float) -> float:
        share = min(max((rank - 1) / (entries - 1), 0.0), 1.0)
        return round(DOTS_EDGE + share * (DOTS_WIDTH - 2 * DOTS_EDGE), 1)

    deviation = entry.variance**0.5
    return Dots(place(entry.mean), (place(entry.mean - deviation), place(entry.mean + deviation)), None, None)


def _subtotals(scores: StudyScores, order: list[int]) -> Shades | None:
    """How often subjects gave each place to each entry, over all images; None where nobody gave any."""
    ranked = [image.counts for image in scores.images if image.subjects]
    if not ranked:
        return None
    counts = np.sum(ranked, axis=0)[order]  # (E, E)
    matrix = MatrixResult(
        name="subtotals",
        title="How often each subtotal was given",
        rows=tuple(scores.entries[index].name for index in order),
        columns=tuple(map(str, range(1, len(order) + 1))),
        row_title="whose map",
        column_title="the subtotal that a subject gave it",
        values=tuple(tuple(map(float, row)) for row in counts),
    )
    return shades(matrix, scores.title)


class ShownMap(NamedTuple):
    """A map in the page; ``total`` and ``rank`` are None where nobody ranked it."""

    name: str
    uri: str
    total: int | None
    rank: int | None


class ShownImage(NamedTuple):
    """An image in the page, with its maps in the order of their totals."""

    score: ImageScore
    uri: str
    size: tuple[int, int]
    maps: list[ShownMap]


def _shown(image: ImageScore, scores: StudyScores, picture: Pictures) -> ShownImage:
    uri, size = _thumbnail(picture(image.picture))
    maps = [
        ShownMap(
            entry.name,
            _thumbnail(picture(identity))[0],
            image.totals[index] if image.subjects else None,
            image.rank_scores[index] if image.subjects else None,
        )
        for index, (entry, identity) in enumerate(zip(scores.entries, image.maps, strict=True))
    ]
    return ShownImage(image, uri, size, sorted(maps, key=lambda shown: (shown.total or 0, shown.name)))


def _thumbnail(png: bytes) -> tuple[str, tuple[int, int]]:
    """A picture small enough that hundreds fit in a page, and its width and height."""
    with Image.open(io.BytesIO(png)) as image:
        small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    pixels: UInt8 = np.asarray(small)
    return data_uri(encode_image(pixels, "jpeg", QUALITY), "image/jpeg"), small.size
