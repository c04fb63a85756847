"""The outcome of a study as a file, ``score.json``: what its report is made from.

Per-entry tuples are in the order of ``StudyScores.entries``.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Agreement(_Part):
    """How much subjects order alike.

    Attributes:
        w: Kendall's coefficient of concordance, corrected for ties: 0 none, 1 all alike.
        chi_square: of Friedman's test, its statistic.
        p: probability of at least so much agreement by chance, by the chi-square distribution.
        subjects: how many are compared.
    """

    w: float
    chi_square: float
    p: float
    subjects: int


class EntryScore(_Part):
    """One of the things compared, over all images that were ranked.

    Attributes:
        name: model, version and method, as in the report.
        digest: of the bundle.
        place: from 1, the best; of equals the worse; None where no image was ranked.
        rank_score: sum over images of the ranks by total; the smaller the better.
        mean: ``rank_score`` by the number of images; None likewise.
        variance: of the rank scores over images, divided by their number; None likewise.
    """

    name: str
    model: str
    version: str
    digest: str
    method: str
    place: int | None
    rank_score: int
    mean: float | None
    variance: float | None


class ImageScore(_Part):
    """One image.

    Attributes:
        name: of the file it was made from.
        label: the class that its maps are for, as subjects read it.
        subjects: how many ranked its maps completely.
        counts: by entry, how many subjects gave it the places 1, 2, …; empty where there are none.
        totals: points of all subjects together, a rank being as many points; likewise.
        rank_scores: the totals' ranks, from 1, the fewest points; of equals the worse; likewise.
        agreement: None of fewer than two subjects.
        picture: id of the image.
        maps: ids of the pictures of its maps.
    """

    item: str
    name: str
    label: str
    subjects: int
    counts: tuple[tuple[int, ...], ...]
    totals: tuple[int, ...]
    rank_scores: tuple[int, ...]
    agreement: Agreement | None
    picture: str
    maps: tuple[str, ...]


class ClassScore(_Part):
    """The images of one class that were ranked.

    Attributes:
        images: their number.
        rank_scores: sums over them.
        variances: over them.
        places: from 1; of equals the worse.
    """

    label: str
    images: int
    rank_scores: tuple[int, ...]
    variances: tuple[float, ...]
    places: tuple[int, ...]


class SubjectProgress(_Part):
    """How far a subject came.

    Attributes:
        number: from 1, in the order of invitation.
        done: images ranked completely.
        finished: whether the subject said so.
    """

    number: int
    done: int
    finished: bool


class StudyScores(_Part):
    """Everything.

    Attributes:
        settings: of how the maps were made and drawn, and the rules of scoring.
        entries: in the order in which they were given.
        images: in the order of the study, with those that nobody ranked.
        classes: those with an image that was ranked, by name.
        agreement: between the subjects that ranked every image, by the sums of their ranks over all images;
            None of fewer than two.
        mean_w: mean of the images' W; None where no image has one.
        versions: of konkyo and of what computed.
    """

    format: Literal["konkyo-study/1"] = "konkyo-study/1"
    study: str
    title: str
    instruction: str
    created: str
    closed: str | None
    command: str
    date: str
    settings: dict[str, Any]
    versions: dict[str, str]
    entries: tuple[EntryScore, ...]
    images: tuple[ImageScore, ...]
    classes: tuple[ClassScore, ...]
    subjects: tuple[SubjectProgress, ...]
    agreement: Agreement | None
    mean_w: float | None
