"""From rankings to places: a worked example by hand, and what must hold for any rankings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import friedmanchisquare

from konkyo.study.records import Answers, Entry, Shown
from konkyo.study.scores import StudyScores
from konkyo.study.scoring import concordance, score, worse_ranks

ROW = {
    "id": "study", "title": "Where?", "instruction": "Order them.", "settings": {"target": "true"},
    "created": "2026-01-01T00:00:00+00:00", "closed": None, "ready": True,
}  # fmt: skip


def scored(
    rankings: Mapping[str, Mapping[int, str]],
    labels: Mapping[str, str] = MappingProxyType({}),
    subjects: int | None = None,
) -> StudyScores:
    """Rankings as words of entries, best first: of each image, by subject from 1."""
    names = sorted(
        {letter for of_image in rankings.values() for word in of_image.values() for letter in word}
    )
    names = names or ["A", "B"]
    numbers = [number for of_image in rankings.values() for number in of_image]
    answers = Answers(
        study=ROW,
        entries=tuple(Entry(letter, "1", f"sha256:{letter}", "cam") for letter in names),
        items=tuple(
            Shown(image, f"{image}.png", labels.get(image, "cat"), image, tuple(image + e for e in names))
            for image in rankings
        ),
        subjects=tuple((number, False) for number in range(1, (subjects or max(numbers, default=0)) + 1)),
        rankings={
            (number, image): tuple(f"{image}{letter}" for letter in word)
            for image, of_image in rankings.items()
            for number, word in of_image.items()
        },
    )  # fmt: skip
    return score(answers, command="konkyo study score study", date="2026-01-02", versions={"konkyo": "1"})


def of_entries(scores: StudyScores, field: str) -> list[Any]:
    return [getattr(entry, field) for entry in scores.entries]


# The worked example: maps A, B, C; three subjects; a cat (image 1) and a dog (image 2).
#
# image 1      A  B  C        image 2      A  B  C     points: a rank is as many
# subject 1    1  2  3  ABC   subject 1    2  1  3  BAC
# subject 2    1  3  2  ACB   subject 2    2  1  3  BAC
# subject 3    3  2  1  CBA   subject 3    1  2  3  ABC
# total        5  7  6        total        5  4  9
# rank score   1  3  2        rank score   2  1  3
#
# rank scores over both: A 1+2 = 3, B 3+1 = 4, C 2+3 = 5, so the places are A 1, B 2, C 3;
# means 3/2, 2, 5/2; variances ((1-3/2)^2 + (2-3/2)^2)/2 = 1/4, (1+1)/2 = 1, 1/4.
#
# W of image 1: the mean total is 6, the squares 1 + 1 + 0 = 2; 12 * 2 / (3^2 (3^3 - 3)) = 24/216 = 1/9.
# W of image 2: 1 + 4 + 9 = 14; 12 * 14 / 216 = 7/9. Their mean is 4/9.
#
# Overall: sums of ranks over both images, and their ranks by subject, equals sharing the mean
# subject 1    3  3  6  ->  1.5  1.5  3     t^3 - t = 2^3 - 2 = 6
# subject 2    3  4  5  ->  1    2    3     0
# subject 3    4  4  4  ->  2    2    2     3^3 - 3 = 24
#              sums         4.5  5.5  8     mean 6; squares 2.25 + 0.25 + 4 = 6.5
# W = 12 * 6.5 / (216 - 3 (6 + 0 + 24)) = 78/126 = 13/21; chi^2 = 3 (3 - 1) 13/21 = 26/7.
# The chi-square distribution of two degrees of freedom is above x with probability exp(-x/2).
EXAMPLE = {
    "cat1": {1: "ABC", 2: "ACB", 3: "CBA"},
    "dog1": {1: "BAC", 2: "BAC", 3: "ABC"},
}
LABELS = {"cat1": "cat", "dog1": "dog"}


class TestTheWorkedExample:
    scores = scored(EXAMPLE, LABELS)

    def test_each_image(self) -> None:
        cat, dog = self.scores.images
        assert (cat.subjects, cat.totals, cat.rank_scores) == (3, (5, 7, 6), (1, 3, 2))
        assert (dog.subjects, dog.totals, dog.rank_scores) == (3, (5, 4, 9), (2, 1, 3))
        assert cat.counts == ((2, 0, 1), (0, 2, 1), (1, 1, 1))  # A was twice first and once third
        assert dog.counts == ((1, 2, 0), (2, 1, 0), (0, 0, 3))
        assert (cat.picture, cat.maps, cat.name, cat.label) == (
            "cat1",
            ("cat1A", "cat1B", "cat1C"),
            "cat1.png",
            "cat",
        )

    def test_over_all(self) -> None:
        assert of_entries(self.scores, "rank_score") == [3, 4, 5]
        assert of_entries(self.scores, "place") == [1, 2, 3]
        assert of_entries(self.scores, "mean") == [1.5, 2, 2.5]
        assert of_entries(self.scores, "variance") == [0.25, 1, 0.25]

    def test_each_class(self) -> None:
        cat, dog = self.scores.classes
        assert (cat.label, cat.images, cat.rank_scores, cat.places) == ("cat", 1, (1, 3, 2), (1, 3, 2))
        assert (dog.label, dog.images, dog.rank_scores, dog.places) == ("dog", 1, (2, 1, 3), (2, 1, 3))
        assert cat.variances == dog.variances == (0, 0, 0)

    def test_agreement(self) -> None:
        cat, dog = (image.agreement for image in self.scores.images)
        assert cat is not None
        assert dog is not None
        assert self.scores.agreement is not None
        assert (cat.w, cat.chi_square, cat.p) == pytest.approx((1 / 9, 2 / 3, math.exp(-1 / 3)))
        assert (dog.w, dog.chi_square, dog.p) == pytest.approx((7 / 9, 14 / 3, math.exp(-7 / 3)))
        assert self.scores.mean_w == pytest.approx(4 / 9)
        overall = self.scores.agreement
        assert (overall.w, overall.chi_square, overall.p) == pytest.approx(
            (13 / 21, 26 / 7, math.exp(-13 / 7))
        )
        assert overall.subjects == 3

    def test_it_comes_back_from_its_file(self) -> None:
        assert StudyScores.model_validate_json(self.scores.model_dump_json()) == self.scores


# Equals


def test_equal_totals_take_the_worse_rank() -> None:
    """A 2 + 1, B 1 + 2, C 3 + 3: A and B share the places 1 and 2."""
    scores = scored({"i": {1: "BAC", 2: "ABC"}})
    assert scores.images[0].totals == (3, 3, 6)
    assert scores.images[0].rank_scores == (2, 2, 3)
    assert of_entries(scores, "place") == [2, 2, 3]


def test_two_may_share_the_last_place() -> None:
    """As in the table of the paper: two at 10, and none at 9."""
    assert worse_ranks([*range(8), 99, 99]).tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 10, 10]


# What is missing


def test_an_image_counts_with_the_subjects_it_has() -> None:
    scores = scored({"i": {1: "ABC", 2: "ABC", 3: "ABC"}, "j": {2: "CAB"}, "k": {}}, subjects=4)
    assert [image.subjects for image in scores.images] == [3, 1, 0]
    one, none = scores.images[1:]
    assert (one.totals, one.rank_scores, one.agreement) == ((2, 3, 1), (2, 3, 1), None)
    assert (none.totals, none.rank_scores, none.counts, none.agreement) == ((), (), (), None)
    assert of_entries(scores, "rank_score") == [3, 5, 4]  # of two images
    assert of_entries(scores, "mean") == [1.5, 2.5, 2]
    assert [(subject.number, subject.done) for subject in scores.subjects] == [(1, 1), (2, 2), (3, 1), (4, 0)]
    assert scores.agreement is None  # nobody ranked every image
    assert scores.mean_w == 1
    assert [found.images for found in scores.classes] == [2]


def test_a_study_that_nobody_answered() -> None:
    scores = scored({"i": {}, "j": {}}, subjects=2)
    assert of_entries(scores, "place") == of_entries(scores, "mean") == [None, None]
    assert of_entries(scores, "rank_score") == [0, 0]
    assert scores.classes == ()
    assert scores.mean_w is scores.agreement is None


# Any rankings

ORDERS = st.integers(2, 5).flatmap(
    lambda entries: st.lists(
        st.lists(st.permutations("ABCDE"[:entries]).map("".join), min_size=2, max_size=5),
        min_size=1,
        max_size=4,
    )
)  # of each image, of each subject


def as_rankings(orders: Sequence[Sequence[str]]) -> dict[str, dict[int, str]]:
    return {f"i{n}": dict(enumerate(of_image, 1)) for n, of_image in enumerate(orders)}


@given(ORDERS, st.randoms())
def test_names_do_not_matter(orders: Sequence[Sequence[str]], random: Any) -> None:
    letters = sorted(orders[0][0])
    names = letters.copy()
    random.shuffle(names)
    renamed = str.maketrans(dict(zip(letters, names, strict=True)))
    before = scored(as_rankings(orders))
    after = scored(as_rankings([[word.translate(renamed) for word in of_image] for of_image in orders]))
    position = [names.index(letter) for letter in letters]  # which entry has this name now
    for field in ("place", "rank_score", "mean", "variance"):
        assert of_entries(after, field) == [of_entries(before, field)[index] for index in position]
    assert after.mean_w == pytest.approx(before.mean_w)
    assert (after.agreement is None) == (before.agreement is None)
    if after.agreement and before.agreement:
        assert after.agreement.w == pytest.approx(before.agreement.w)


@given(st.permutations("ABCDE").map("".join), st.integers(2, 6), st.integers(1, 4))
def test_who_all_agree_have_w_1(order: str, subjects: int, images: int) -> None:
    scores = scored(as_rankings([[order] * subjects] * images))
    assert scores.agreement is not None
    assert (scores.mean_w, scores.agreement.w) == (1, 1)
    assert scores.agreement.chi_square == subjects * 4
    assert of_entries(scores, "place") == [order.index(letter) + 1 for letter in "ABCDE"]
    assert of_entries(scores, "variance") == [0] * 5


@given(ORDERS)
def test_everything_reversed(orders: Sequence[Sequence[str]]) -> None:
    """The best is the worst; of equals, who had the worse rank would now have the better."""
    before = scored(as_rankings(orders))
    after = scored(as_rankings([[word[::-1] for word in of_image] for of_image in orders]))
    entries = len(before.entries)
    for there, back in zip(before.images, after.images, strict=True):
        totals = np.array(there.totals)
        better = [1 + int((totals < total).sum()) for total in totals]
        assert back.rank_scores == tuple(entries + 1 - rank for rank in better)
        assert there.agreement is not None
        assert back.agreement is not None
        assert back.agreement.w == pytest.approx(there.agreement.w)


@given(st.permutations("ABCD").map("".join), st.permutations("ABCD").map("".join))
def test_one_who_ranks_unlike_all_others_changes_no_rank_score(order: str, other: str) -> None:
    """Of five alike and one: totals of neighbours differ by 5 and at most 3, so their order stays."""
    alike = scored({"i": dict.fromkeys(range(1, 6), order)})
    with_one = scored({"i": {**dict.fromkeys(range(1, 6), order), 6: other}})
    assert with_one.images[0].rank_scores == alike.images[0].rank_scores
    assert of_entries(with_one, "place") == of_entries(alike, "place")
    if other != order:  # where the points, by number of subjects, do change
        points = [
            np.array(scores.images[0].totals) / scores.images[0].subjects for scores in (alike, with_one)
        ]
        assert not np.allclose(*points)


@given(
    st.tuples(st.integers(2, 6), st.integers(3, 6)).flatmap(
        lambda shape: st.lists(
            st.lists(st.integers(1, 4), min_size=shape[1], max_size=shape[1]),
            min_size=shape[0],
            max_size=shape[0],
        )
    )
)
def test_agreement_is_friedmans_with_its_correction_for_ties(values: list[list[int]]) -> None:
    found = concordance(values)
    if all(len(set(of_subject)) == 1 for of_subject in values):
        assert found is None  # nobody tells any apart
        return
    assert found is not None
    expected = friedmanchisquare(*np.array(values).T)
    assert (found.chi_square, found.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert found.w == pytest.approx(expected.statistic / (len(values) * (len(values[0]) - 1)))
    assert -1e-9 <= found.w <= 1 + 1e-9


def test_agreement_by_a_textbook_example() -> None:
    """Siegel (1956), chapter 9: three executives rank six applicants, W = .16."""
    ranks = [[1, 6, 3, 2, 5, 4], [1, 5, 6, 4, 2, 3], [6, 3, 2, 5, 4, 1]]
    found = concordance(ranks)  # sums 8 14 11 11 11 8, mean 10.5; squares 6.25*2 + 12.25 + .25*3 = 25.5
    assert found is not None
    assert found.w == pytest.approx(12 * 25.5 / (9 * (216 - 6)))
    assert round(found.w, 2) == 0.16


@pytest.mark.parametrize("ranks", [[[1, 2, 3]], [[1], [1]]])
def test_one_alone_agrees_with_nobody(ranks: list[list[int]]) -> None:
    assert concordance(ranks) is None
