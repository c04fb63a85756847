"""From rankings to places: the scoring of the paper, and how much the subjects agree.

For each image each rank gives points, a rank as many points as it says (the subtotal of a subject); the
points of all subjects add up (the total); the *rank of the totals* is the rank score of the image, so that
one subject who ranks unlike all others weighs no more than the order allows. Rank scores add up over the
images of a class and over all images, and their variance is over these images. The smaller, the better.

Equal totals, and equal sums, take the worse rank: two that share the places 9 and 10 are both at 10. The
paper does not state its rule; its table of places, with two at 10 and none at 9, is of this one. Nor does
it say by what it divides the variance: here it is by the number of images.

Shape legend: S subjects, E entries, I images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2, rankdata

from konkyo.study.records import Answers, Shown
from konkyo.study.scores import (
    Agreement,
    ClassScore,
    EntryScore,
    ImageScore,
    StudyScores,
    SubjectProgress,
)

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

RULES = {
    "points": "a rank gives as many points as it says; fewer are better",
    "equal_totals": "the worse rank",
    "variance": "over images, divided by their number",
    "counted": "rankings that a subject has confirmed, of all maps of the image",
}
"""What the paper leaves open, for the report."""


def worse_ranks(values: npt.ArrayLike) -> Int64:
    """Ranks from 1, the smallest value; of equals each gets the worse: (E,) -> (E,)."""
    return np.asarray(rankdata(values, method="max"), np.int64)


def concordance(ranks: npt.ArrayLike) -> Agreement | None:
    """Kendall's coefficient of concordance W, corrected for ties, and Friedman's test.

    ``W = 12 Σ (R_e − mean R)² / (S² (E³ − E) − S Σ T)``, R the sums of ranks over subjects, T of a subject
    the sum of ``t³ − t`` over its groups of t equal ranks; ``chi² = S (E − 1) W`` (Kendall and Babington
    Smith, 1939; Siegel and Castellan, 1988, section 9.5).

    Args:
        ranks: (S, E), or any values to be ranked subject by subject, where equals share the mean rank.

    Returns:
        None of fewer than two subjects or entries, or where every subject finds all equal.
    """
    own = np.asarray(ranks, np.float64)
    subjects, entries = own.shape
    if subjects < 2 or entries < 2:
        return None
    own = rankdata(own, axis=1)
    sums = own.sum(axis=0)
    ties = sum(float((counts**3 - counts).sum()) for counts in map(_counts, own))
    most = subjects**2 * (entries**3 - entries) - subjects * ties
    if most <= 0:
        return None
    w = float(12 * ((sums - sums.mean()) ** 2).sum() / most)
    statistic = subjects * (entries - 1) * w
    return Agreement(w=w, chi_square=statistic, p=float(chi2.sf(statistic, entries - 1)), subjects=subjects)


def score(answers: Answers, *, command: str, date: str, versions: Mapping[str, str]) -> StudyScores:
    """Score a study as far as it has been answered.

    Args:
        answers: see ``Store.answers``.
        command: that was called, for the report.
        date: likewise.
        versions: likewise.
    """
    ranks = {item.id: ranks_of(answers, item) for item in answers.items}
    images = tuple(_image(item, ranks[item.id]) for item in answers.items)
    ranked = [image for image in images if image.subjects]
    table = _table(ranked, len(answers.entries))
    sums, variances = table.sum(axis=0), table.var(axis=0) if ranked else None
    places = worse_ranks(sums)
    study = answers.study
    return StudyScores(
        study=study["id"],
        title=study["title"],
        instruction=study["instruction"],
        created=study["created"],
        closed=study["closed"],
        command=command,
        date=date,
        settings={**study["settings"], "scoring": RULES},
        versions=dict(versions),
        entries=tuple(
            EntryScore(
                name=entry.name,
                model=entry.model,
                version=entry.version,
                digest=entry.digest,
                method=entry.method,
                place=int(places[index]) if ranked else None,
                rank_score=int(sums[index]),
                mean=float(sums[index] / len(ranked)) if ranked else None,
                variance=None if variances is None else float(variances[index]),
            )
            for index, entry in enumerate(answers.entries)
        ),
        images=images,
        classes=_classes(ranked, len(answers.entries)),
        subjects=_progress(answers),
        agreement=concordance(_sums_of_subjects(answers, ranks)),
        mean_w=_mean([image.agreement.w for image in images if image.agreement]),
    )


def ranks_of(answers: Answers, item: Shown) -> dict[int, Int64]:
    """Ranks of the entries for an image, from 1, by subject: each (E,)."""
    found = {}
    for number, _ in answers.subjects:
        ranking = answers.rankings.get((number, item.id))
        if ranking is not None:
            found[number] = np.array([ranking.index(picture) + 1 for picture in item.maps], np.int64)
    return found


def _image(item: Shown, ranks: Mapping[int, Int64]) -> ImageScore:
    points = np.array(list(ranks.values()))  # (S, E)
    totals = points.sum(axis=0) if len(points) else points
    places = range(1, len(item.maps) + 1)
    counts = [[int((column == place).sum()) for place in places] for column in points.T]
    return ImageScore(
        item=item.id,
        name=item.name,
        label=item.label,
        subjects=len(points),
        counts=tuple(map(tuple, counts)),
        totals=tuple(totals.tolist()),
        rank_scores=tuple(worse_ranks(totals).tolist()),
        agreement=concordance(points) if len(points) else None,
        picture=item.picture,
        maps=item.maps,
    )


def _table(images: Sequence[ImageScore], entries: int) -> Int64:
    """Rank scores: (I, E)."""
    return np.array([image.rank_scores for image in images], np.int64).reshape(-1, entries)


def _classes(images: Sequence[ImageScore], entries: int) -> tuple[ClassScore, ...]:
    found = []
    for label in sorted({image.label for image in images}):
        table = _table([image for image in images if image.label == label], entries)
        sums = table.sum(axis=0)
        found.append(
            ClassScore(
                label=label,
                images=len(table),
                rank_scores=tuple(sums.tolist()),
                variances=tuple(table.var(axis=0).tolist()),
                places=tuple(worse_ranks(sums).tolist()),
            )
        )
    return tuple(found)


def _sums_of_subjects(answers: Answers, ranks: Mapping[str, Mapping[int, Int64]]) -> Int64:
    """Sums of ranks over all images, of the subjects that ranked every one: (S, E)."""
    complete = [
        number
        for number, _ in answers.subjects
        if ranks and all(number in of_item for of_item in ranks.values())
    ]
    sums = [np.sum([of_item[number] for of_item in ranks.values()], axis=0) for number in complete]
    return np.array(sums, np.int64).reshape(-1, len(answers.entries))


def _progress(answers: Answers) -> tuple[SubjectProgress, ...]:
    done = [number for number, _ in answers.rankings]
    return tuple(
        SubjectProgress(number=number, done=done.count(number), finished=finished)
        for number, finished in answers.subjects
    )


def _counts(values: Float64) -> Int64:
    return np.unique(values, return_counts=True)[1]


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
