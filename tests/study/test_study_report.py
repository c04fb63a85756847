"""The report of a study, from answers by hand; the numbers in it are those one gets on paper."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from konkyo.evaluation.report.numbers import number
from konkyo.study.records import Answers, Entry, Shown
from konkyo.study.report import SIDE, report
from konkyo.study.report_words import FEW_SUBJECTS, ordinal, strength
from konkyo.study.scores import StudyScores
from konkyo.study.scoring import score

A, B, C = "alpha/1 cam", "beta/2 gradcam", "gamma/1 cam"
ENTRIES = tuple(
    Entry(*name.split(" ")[0].split("/"), f"sha256:{name[0]}", name.split(" ")[1]) for name in (A, B, C)
)
ITEMS = tuple(
    Shown(item, f"{item}.jpg", label, f"{item}-image", tuple(f"{item}-{letter}" for letter in "abc"))
    for item, label in (("one", "cat"), ("two", "dog"), ("three", "dog"))
)
ORDERS = {(1, "one"): "abc", (2, "one"): "bac", (3, "one"): "acb", (1, "two"): "bac", (2, "two"): "bca"}
"""By subject and image. Totals of one: 4, 6, 8. Totals of two: 5, 2, 5."""
STUDY = {
    "id": "5f", "title": "Cats & <dogs>", "instruction": "Order them.",
    "created": "2026-11-20T10:00:00+00:00", "closed": None, "settings": {"colours": "jet"},
}  # fmt: skip


def scored(
    items: int = 3, subjects: int = 3, orders: dict[tuple[int, str], str] = ORDERS, **study: str
) -> StudyScores:
    shown = ITEMS[:items]
    rankings = {
        (subject, item): tuple(f"{item}-{letter}" for letter in order)
        for (subject, item), order in orders.items()
        if subject <= subjects and item in {each.id for each in shown}
    }
    people = tuple((number, number == 1) for number in range(1, subjects + 1))
    answers = Answers({**STUDY, **study}, ENTRIES, shown, people, rankings)
    return score(
        answers, command="konkyo study score 5f", date="2026-11-21T09:00:00+00:00", versions={"konkyo": "9"}
    )


def picture(identity: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (440, 330), (200, 10, 10)).save(buffer, "png")
    return buffer.getvalue()


class Page(HTMLParser):
    """Tables by caption, captions of figures, sources of pictures, and all the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.figures: list[str] = []
        self.sources: list[str] = []
        self.tags: set[str] = set()
        self._into: list[list[str]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag in ("td", "th", "caption", "figcaption"):
            self._into.append([])
        if tag == "tr":
            self._rows.append([])
        if tag == "table":
            self._rows: list[list[str]] = []
            self._caption = ""
        if tag == "img":
            self.sources.append(dict(attributes)["src"] or "")

    def handle_data(self, data: str) -> None:
        self.text += data
        for texts in self._into:
            texts.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th", "caption", "figcaption"):
            text = " ".join(" ".join(self._into.pop()).split())
            if tag == "caption":
                self._caption = text
            elif tag == "figcaption":
                self.figures.append(text)
            else:
                self._rows[-1].append(text)
        if tag == "table":
            self.tables[self._caption.split(":")[0].split(".")[0]] = self._rows

    def rows(self, caption: str) -> list[list[str]]:
        """Of the table whose caption begins so, without its head."""
        return next(rows for title, rows in self.tables.items() if title.startswith(caption))[1:]

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(report(scored(), picture))


def test_places(page: Page) -> None:
    assert [row[:5] for row in page.rows("Over 2 images")] == [
        ["1", B, "3", "1.50", "0.25"],
        ["2", A, "4", "2.00", "1.00"],
        ["3", C, "6", "3.00", "0.00"],
    ]
    assert f"Best by these rankings: {B}. Last: {C}." in page.words


def test_how_often_each_subtotal_was_given(page: Page) -> None:
    assert page.rows("How often") == [[B, "3", "1", "1"], [A, "2", "2", "1"], [C, "0", "2", "3"]]


def test_classes(page: Page) -> None:
    assert page.rows("Rank score over the images of a class") == [
        ["cat", "1", "2 2nd, variance 0.00", "1 1st, variance 0.00", "3 3rd, variance 0.00"],
        ["dog", "1", "1 1st, variance 0.00", "3 3rd, variance 0.00", "3 3rd, variance 0.00"],
    ]


def test_maps_of_an_image_are_in_the_order_of_their_totals(page: Page) -> None:
    assert page.figures == [
        "the image", f"{A} 4 points, rank 1", f"{B} 6 points, rank 2", f"{C} 8 points, rank 3",
        "the image", f"{B} 2 points, rank 1", f"{A} 5 points, rank 3", f"{C} 5 points, rank 3",
        "the image", A, B, C,
    ]  # fmt: skip


def test_who_answered_and_how_far(page: Page) -> None:
    assert "0 of 3 invited subjects ranked every image, 1 said that they had finished" in page.words
    assert page.tables[""][1:] == [["1", "2 of 3", "yes"], ["2", "2 of 3", "no"], ["3", "1 of 3", "no"]]


@pytest.mark.parametrize(
    "words",
    [
        "Few subjects: 3 people have answered.",
        "Few images: the places rest on 2 images.",
        "Nobody has ranked 1 of the 3 images",
        "2 to 3 subjects stand behind an image",
        "The study is still open",
    ],
)
def test_what_weakens_the_figures_is_said(page: Page, words: str) -> None:
    assert words in page.words


def test_of_enough_subjects_and_images_nothing_is_warned_of() -> None:
    scores = scored(closed="2026-11-21T08:00:00+00:00")
    subjects = tuple(
        scores.subjects[0].model_copy(update={"number": n, "done": 10}) for n in range(FEW_SUBJECTS)
    )
    images = tuple(scores.images[0].model_copy(update={"subjects": FEW_SUBJECTS}) for _ in range(10))
    html = report(scores.model_copy(update={"subjects": subjects, "images": images}), picture)
    assert 'class="cautions"' not in html


def test_agreement_by_hand() -> None:
    """Sums of ranks 3, 3, 6 and 5, 2, 5: W = 12 * 4.5 / (96 - 24), chi² = 3, p = exp(-1.5)."""
    page = Page(report(scored(items=2, subjects=2), picture))
    assert "Kendall's W is 0.75: strong agreement between 2 subjects who ranked every image" in page.words
    assert "no more than chance may give, so the order" in page.words
    assert "no more than chance may give: the order of the places is not settled." in page.words  # said first
    assert "agree as much in 22.3 % of studies; Friedman's χ² 3.0 with 2 degrees of freedom" in page.words


def test_agreement_beyond_chance() -> None:
    orders = {(subject, "one"): "abc" for subject in range(1, 9)}
    page = Page(report(scored(items=1, subjects=8, orders=orders), picture))
    assert "Kendall's W is 1.00: unusually strong agreement between 8 subjects" in page.words
    assert "more than chance explains" in page.words
    assert "no more than chance" not in page.words
    assert "in less than 0.1 % of studies" in page.words  # exp(-8)


def test_equals_share_the_first_place() -> None:
    page = Page(report(scored(items=1, subjects=2), picture))  # totals 3, 3, 6
    assert f"Best by these rankings: {A} and {B}. Last: {C}." in page.words
    assert [row[0] for row in page.rows("Over 1 image")] == ["2", "2", "3"]


def test_nobody_has_answered() -> None:
    page = Page(report(scored(orders={}), picture))
    assert "Nobody has ranked the maps of an image yet." in page.words
    nothing = number(None)
    expected = [[nothing, name, *[nothing] * 3] for name in (A, B, C)]
    assert [row[:5] for row in page.rows("Over 0 images")] == expected
    assert page.figures == ["the image", A, B, C] * 3
    assert "Class by class" not in page.text


def test_the_page_needs_nothing_beside_it(page: Page) -> None:
    assert len(page.sources) == 3 * 4
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert not page.tags & {"script", "link", "iframe"}
    html = report(scored(), picture)
    assert "Cats &amp; &lt;dogs&gt;" in html
    assert (
        re.findall(r'width="(\d+)" height="(\d+)" alt="\S+ as subjects saw it"', html)
        == [(str(SIDE), str(SIDE * 3 // 4))] * 3
    )
    assert html == report(scored(), picture)


@pytest.mark.parametrize(
    ("w", "word"),
    [(0.0, "no"), (0.04, "no"), (0.06, "very weak"), (0.3, "weak"), (0.45, "moderate"), (0.79, "strong")],
)
def test_agreement_in_a_word(w: float, word: str) -> None:
    assert strength(w) == word


def test_places_in_words() -> None:
    found = [ordinal(place) for place in (1, 2, 3, 4, 11, 12, 13, 21, 102, 111)]
    assert found == ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "102nd", "111th"]
