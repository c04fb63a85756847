"""The outcome of a study in words: who comes first, how far to trust it, how much the subjects agree."""

from __future__ import annotations

from konkyo.evaluation.report.numbers import counted, listed, number
from konkyo.study.scores import Agreement, EntryScore, StudyScores

FEW_SUBJECTS = 10
"""With fewer than this one more may well turn the order; the paper's study had 53."""

FEW_IMAGES = 10
"""The paper's study had 50, five of each class."""

_MARKS = (
    (0.0, "no"),
    (0.1, "very weak"),
    (0.3, "weak"),
    (0.5, "moderate"),
    (0.7, "strong"),
    (0.9, "unusually strong"),
)
"""Kendall's W in words (Schmidt, Managing Delphi Surveys, 1997, table 2); the nearest mark counts."""

CHANCE = 0.05


def in_short(scores: StudyScores) -> str:
    """Who comes first, and who last."""
    places = sorted({entry.place for entry in scores.entries if entry.place is not None})
    if not places:
        return "Nobody has ranked the maps of an image yet."
    if len(places) == 1:
        return "All are level."
    best, worst = (_those_at(scores.entries, place) for place in (places[0], places[-1]))
    return f"Best by these rankings: {best}. Last: {worst}."


def _those_at(entries: tuple[EntryScore, ...], place: int) -> str:
    return listed(sorted(entry.name for entry in entries if entry.place == place))


def cautions(scores: StudyScores) -> list[str]:
    """What a reader must know before the figures are believed; empty if there is nothing."""
    ranked = [image for image in scores.images if image.subjects]
    answering = sum(subject.done > 0 for subject in scores.subjects)
    found = []
    if ranked and answering < FEW_SUBJECTS:
        found.append(
            f"Few subjects: {counted(answering, 'person has', 'people have')} answered. "
            "One more may turn the order."
        )
    if ranked and len(ranked) < FEW_IMAGES:
        found.append(f"Few images: the places rest on {counted(len(ranked), 'image')}.")
    if ranked and len(ranked) < len(scores.images):
        left, images = len(scores.images) - len(ranked), len(scores.images)
        found.append(f"Nobody has ranked {left} of the {images} images; they count for nothing.")
    behind = [image.subjects for image in ranked]
    if behind and min(behind) < max(behind):
        found.append(
            f"Not every image was ranked by the same people: {min(behind)} to {max(behind)} subjects stand "
            "behind an image, and each image weighs the same."
        )
    if scores.agreement is not None and scores.agreement.p >= CHANCE:
        found.append(
            "The subjects agree no more than chance may give: the order of the places is not settled."
        )
    if scores.closed is None:
        found.append("The study is still open: the figures may change.")
    return found


def agreement_words(agreement: Agreement | None, entries: int) -> str:
    """Kendall's W and what it means."""
    if agreement is None:
        return (
            "Fewer than two subjects have ranked every image, so nothing can be said about how far they "
            "agree over all."
        )
    chance = "less than 0.1 %" if agreement.p < 0.001 else f"{number(100 * agreement.p, 1)} %"
    verdict = (
        "more than chance explains"
        if agreement.p < CHANCE
        else "no more than chance may give, so the order of the places is not settled"
    )
    return (
        f"Kendall's W is {number(agreement.w, 2)}: {strength(agreement.w)} agreement between "
        f"{counted(agreement.subjects, 'subject')} who ranked every image, {verdict} (subjects who order at "
        f"random agree as much in {chance} of studies; Friedman's χ² {number(agreement.chi_square, 1)} with "
        f"{counted(entries - 1, 'degree')} of freedom)."
    )


def strength(w: float) -> str:
    """Kendall's W in a word."""
    return min(_MARKS, key=lambda mark: abs(mark[0] - w))[1]


def ordinal(place: int) -> str:
    """``1st``, ``12th``."""
    ending = "th" if place % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return f"{place}{ending}"


def day(moment: str) -> str:
    """The day of a moment in ISO 8601."""
    return moment[:10]
