"""The page of a report, read as a tree."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
import pytest
from html_tree import classed, rows, section, text, tree

from konkyo.evaluation.report import Look, write_report
from konkyo.evaluation.report.cases import MOST_BYTES
from konkyo.evaluation.results import (
    CandidateResult,
    DataResult,
    MatrixResult,
    MeasureResult,
    Results,
    WorstCase,
)
from made_results import BASELINES, LABELS, METHODS, MODEL, figure, look, measured, realistic, results

OTHERS = ("gcm-cifar10/1", "amb-elpv/1")
HOSTILE = "<script>alert(1)</script>\"' onerror=x &amp; {{ 7 * 7 }}"


def nothing(result: MeasureResult, worst: WorstCase) -> None:
    return None


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Element:
    return tree(write_report(realistic(), look, tmp_path_factory.mktemp("report")))


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Element]:
    def make(given: Results, looking: Callable[[MeasureResult, WorstCase], Look | None] = nothing) -> Element:
        return tree(write_report(given, looking, tmp_path))

    return make


def table_of(page: Element, heading: str) -> Element:
    return classed(section(page, heading), "figures", "table")[0]


def test_figures_stand_with_their_intervals_and_what_changes_them(page: Element) -> None:
    table = table_of(page, "Pointing game")
    values = rows(table)
    result = next(
        item for item in realistic().measures if (item.measure, item.source) == ("pointing", "gradcam")
    )
    first = result.figures[0]
    assert values["gradcam"][0].startswith(f"{first.value:.2f} {first.low:.2f} to {first.high:.2f}")
    assert list(values) == [*METHODS, *(f"{name} never asks the model" for name in BASELINES)]
    heads = [text(head) for head in table.iter("th") if head.get("scope") == "col"]
    assert heads[1].startswith("hits within 15 px, mean of the classes of 62 ↑ higher is better")
    assert "↓ lower is better" in heads[3]
    assert text(next(table.iter("caption"))) == "Pointing game, with intervals. Settings: tolerance 15.0."


def test_what_a_measure_says_and_does_not_say_stands_beside_it(page: Element) -> None:
    said = text(section(page, "Energy inside the mask"))
    assert "It says: How much of the whole map" in said
    assert "It does not say: A small thing under a coarse map" in said
    assert "Score-CAM (Wang et al., 2020), section 4.3." in said


def test_the_first_screen_says_which_map_to_look_at(page: Element) -> None:
    short = section(page, "In short")
    assert text(classed(short, "lead")[0]) == (
        f"Of {MODEL}, look at the map attention: it is better than a map that never asks the model in "
        "3 of 4 measures of place and 2 of 2 measures of the decision. "
        "Its answers: accuracy 0.91 (0.87 to 0.94)."
    )
    found = rows(classed(short, "glance")[0])
    assert found["attention"][:3] == [
        "May be read as the place of the thing and as the reason of the answer.",
        "Yes better: pointing, energy, boxes too few images: seeds",
        "Yes better: insertion and deletion, occlusion",
    ]
    assert (
        found["guided-backprop"][0] == "Not proven: more images may settle it. Until then, do not rely on it."
    )
    ids = {element.get("id") for element in page.iter()}
    targets = [link.get("href", "")[1:] for link in page.iter("a")]
    assert len(targets) > 20
    assert set(targets) <= ids


def test_who_does_not_beat_the_best_baseline_is_told_so(page: Element) -> None:
    of = {item.source: item.figures[0] for item in realistic().measures if item.measure == "pointing"}

    def differs(source: str) -> str:
        to = next(item for item in of[source].differences if item.source == "centre")
        low, high = (f"{end:+.2f}".replace("-", "−") for end in (to.low or 0, to.high or 0))  # noqa: RUF001
        return f"{source} ({low} to {high})"

    told = text(classed(section(page, "Pointing game"), "against")[0])
    assert told == (
        "Best map that never asks the model, by hits within 15 px, mean of the classes: centre, 0.33. "
        f"Better: {differs('attention')} and {differs('gradcam')}. "
        f"Not shown to be better, as the difference may be 0: {differs('guided-backprop')}."
    )
    assert not classed(section(page, "Stability under JPEG"), "against")


def test_a_best_figure_is_marked_only_where_it_is_told_apart(read: Callable[..., Element]) -> None:
    apart = [
        measured("pointing", name, figure("f", v, v - 0.05, v + 0.05)) for name, v in (("a", 0.8), ("b", 0.5))
    ]
    close = [
        measured("energy", name, figure("f", v, v - 0.05, v + 0.05)) for name, v in (("a", 0.55), ("b", 0.5))
    ]
    far = measured("energy", "c", figure("f", 0.1, 0.05, 0.15))
    found = read(results(*apart, *close, far))

    def marks(heading: str) -> list[str | None]:
        cells = table_of(found, heading).iter("td")
        return [next((mark.get("aria-label") for mark in classed(cell, "mark")), None) for cell in cells]

    assert marks("Pointing") == ["best", None]
    assert marks("Energy") == ["level with the best", "level with the best", None]


def test_few_images_are_named(page: Element, read: Callable[..., Element]) -> None:
    heads = [text(head) for head in table_of(page, "Overlap of segmentation seeds").iter("th")]
    assert "only 12 images" in heads[1]
    grouped = figure("f", 0.5, 0.4, 0.6, images=200).model_copy(update={"few": True, "units": 14})
    mixed = [
        measured("pointing", "a", grouped),
        measured("pointing", "b", figure("f", 0.5, 0.4, 0.6, images=200)),
    ]
    cells = rows(table_of(read(results(*mixed)), "Pointing"))
    assert "of 200, only 14 independent" in cells["a"][0]
    assert "of 200" in cells["b"][0]


def test_what_was_not_taken_says_why(page: Element) -> None:
    assert "Not taken of random, centre and edges: a baseline has the same map for every class." in text(
        section(page, "Decline ratio")
    )
    assert "the bundle has no model.onnx" in text(section(page, "Measures that were not taken"))


def test_a_decline_shows_its_constructions_and_its_causes(page: Element) -> None:
    part = section(page, "Decline ratio")
    assert len(rows(table_of(page, "Decline ratio"))["attention"]) == 4
    assert "+0.120 by the ReLU" in text(part)
    further = rows(classed(part, "figures", "table")[1])
    assert list(further) == list(METHODS)


def test_curves_are_drawn_with_bands_and_told_in_words(page: Element) -> None:
    part = section(page, "Insertion and deletion")
    charts = [item for item in part.iter("svg") if item.get("role") == "img"]
    assert len(charts) == 2
    for drawn in charts:
        assert len(classed(drawn, "line", "path")) == len(METHODS) + len(BASELINES)
        assert len(classed(drawn, "band", "path")) == len(METHODS) + len(BASELINES)
    said = charts[1].get("aria-label", "")
    assert said.startswith("Deletion: probability of the class over share of the pixels that is removed.")
    assert "attention: 1.00 at 0.00" in said
    legend = [text(item) for item in next(iter(classed(part, "legend"))).iter("li")]
    assert legend == [*METHODS, *BASELINES]


def test_several_models_share_tables_and_charts(read: Callable[..., Element]) -> None:
    names = (MODEL, *OTHERS)
    found = read(realistic(names, worst=0))
    groups = [
        text(head) for head in table_of(found, "Pointing game").iter("th") if head.get("scope") == "rowgroup"
    ]
    assert groups == [*METHODS, *(f"{name} never asks the model" for name in BASELINES)]
    part = section(found, "Insertion and deletion")
    charts = [item for item in part.iter("svg") if item.get("role") == "img"]
    assert len(charts) == 2 * (len(METHODS) + len(BASELINES))
    assert all(len(classed(drawn, "line", "path")) == len(names) for drawn in charts)
    assert [text(item) for item in next(iter(classed(part, "legend"))).iter("li")] == list(names)
    assert len(classed(found, "lead")) == 3


def test_notes_of_all_maps_of_a_model_are_told_once(read: Callable[..., Element]) -> None:
    def noted(candidate: str, source: str, *notes: str) -> MeasureResult:
        return measured("energy", source, figure("energy", 0.5), candidate=candidate, notes=notes)

    found = read(
        results(
            noted("first/1", "cam", "Two are left out."),
            noted("first/1", "gradcam", "Two are left out."),
            noted("second/1", "cam", "Two are left out."),
            noted("second/1", "gradcam", "Three are left out."),
            candidates=("first/1", "second/1"),
        )
    )
    notes = {
        text(next(part.iter("h4"))): text(next(part.iter("ul"))) for part in classed(found, "notes", "div")
    }
    assert notes == {
        "all maps of first/1 and cam of second/1": "Two are left out.",
        "gradcam of second/1": "Three are left out.",
    }


def test_confusions_are_a_table_with_shades(page: Element) -> None:
    table = classed(section(page, "Classification"), "shades", "table")[0]
    assert rows(table)["crack"] == ["1", "1", "8", "1", "1", "1"]
    crack = next(row for row in table.iter("tr") if text(row).startswith("crack"))
    assert [cell.get("class") for cell in crack.iter("td")][2] == "h6"  # 8 of 13
    assert [text(head) for head in table.iter("th") if head.get("scope") == "col"] == list(LABELS)


def test_worst_cases_are_pictures_with_their_names(page: Element) -> None:
    cases = classed(section(page, "Pointing game"), "case", "figure")
    assert len(cases) == 6 * len(METHODS)
    pictures = list(cases[1].iter("img"))
    assert [picture.get("alt") for picture in pictures] == [
        "crack/exp1_num_37.jpg as the model saw it",
        "The map for crack over crack/exp1_num_37.jpg",
        "What is marked in crack/exp1_num_37.jpg, outlined",
    ]
    assert [picture.get("width") for picture in pictures] == ["192"] * 3  # 64 px, three times
    assert text(next(cases[1].iter("figcaption"))) == (
        "crack/exp1_num_37.jpg: crack Wrong: crack, taken for free, 83 %. Map for crack. "
        "hits within 15 px, mean of the classes: 0.020"
    )


def test_headings_are_in_order_and_tables_have_captions_and_scopes(page: Element) -> None:
    levels = [int(element.tag[1]) for element in page.iter() if re.fullmatch("h[1-6]", element.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(levels))
    for table in page.iter("table"):
        assert text(next(table.iter("caption")))
        assert all(head.get("scope") for head in table.iter("th"))
    assert all(picture.get("alt") for picture in page.iter("img"))
    ids = [element.get("id") for element in page.iter() if element.get("id")]
    assert len(ids) == len(set(ids))


def test_the_page_asks_for_nothing_and_runs_nothing(page: Element) -> None:
    policy = next(
        m.get("content", "") for m in page.iter("meta") if m.get("http-equiv") == "Content-Security-Policy"
    )
    style = next(page.iter("style")).text or ""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.split("; ") == [
        "default-src 'none'", "img-src data:", f"style-src 'sha256-{digest}'",
        "base-uri 'none'", "form-action 'none'",
    ]  # fmt: skip
    assert "url(" not in style
    assert "@import" not in style
    for element in page.iter():
        assert element.tag not in ("script", "link", "iframe", "object", "embed", "base", "form")
        assert not any(name.startswith("on") or name == "style" for name in element.attrib)
        for name in ("src", "href", "srcset", "xlink:href", "action", "data"):
            assert re.match(r"#|data:image/(png|jpeg);base64,|$", element.get(name, ""))


def test_whatever_is_given_is_escaped(read: Callable[..., Element]) -> None:
    hostile = MeasureResult(
        candidate=HOSTILE, source=HOSTILE, measure=HOSTILE, title=HOSTILE, reference=HOSTILE,
        settings={HOSTILE: HOSTILE}, figures=(figure(HOSTILE, 0.5, 0.4, 0.6, title=HOSTILE),),
        notes=(HOSTILE,), worst_by=HOSTILE,
        worst=(WorstCase(example=HOSTILE, about=HOSTILE, target=0, value=1),),
        matrices=(
            MatrixResult(name=HOSTILE, title=HOSTILE, row_title=HOSTILE, column_title=HOSTILE,
                         rows=(HOSTILE,), columns=(HOSTILE,), values=((1,),)),
        ),
    )  # fmt: skip
    refused = hostile.model_copy(update={"figures": (), "unsuited": HOSTILE, "measure": HOSTILE + "2"})
    data = DataResult(
        name=HOSTILE, description=HOSTILE, licence=HOSTILE, images=1, explained=1, marked=0, grouped=False,
        skipped=(HOSTILE,),
    )  # fmt: skip
    model = CandidateResult(
        name=HOSTILE, digest=HOSTILE, architecture=HOSTILE, labels=(HOSTILE,), input=HOSTILE
    )
    given = results(
        hostile, refused, data=data, command=HOSTILE, date=HOSTILE, versions={HOSTILE: HOSTILE},
        settings={HOSTILE: HOSTILE}, candidates=(HOSTILE,),
    ).model_copy(update={"candidates": (model,)})  # fmt: skip

    def seen(result: MeasureResult, worst: WorstCase) -> Look:
        pixels = np.zeros((8, 8, 3), np.uint8)
        return Look(pixels, HOSTILE, HOSTILE, 0.5, HOSTILE, np.eye(8, dtype=np.float32), HOSTILE)

    found = read(given, seen)
    assert not list(found.iter("script"))
    assert not any("onerror" in element.attrib for element in found.iter())
    assert "49" not in text(section(found, "How it was made"))
    assert text(next(found.iter("pre"))) == HOSTILE
    assert [picture.get("alt") for picture in found.iter("img")] == [
        f"{HOSTILE} as the model saw it", f"The map for {HOSTILE} over {HOSTILE}",
    ]  # fmt: skip


def test_results_come_back_from_their_file_and_give_the_same_bytes(tmp_path: Path) -> None:
    given = realistic(worst=1)
    again = Results.model_validate_json(given.model_dump_json())
    assert again == given
    pages = []
    for name, item in (("one", given), ("two", again)):
        (tmp_path / name).mkdir()
        pages.append(write_report(item, look, tmp_path / name).read_bytes())
    assert pages[0] == pages[1]


def test_a_large_evaluation_stays_small(tmp_path: Path) -> None:
    methods = (
        "attention",
        "gradcam",
        "guided-backprop",
        "occlusion",
        "rise",
        "cam",
        "guided-gradcam",
        "counterfactual",
    )
    noise = np.random.default_rng(0).integers(0, 256, (224, 224, 3)).astype(np.uint8)
    drawn = 0

    def seen(result: MeasureResult, worst: WorstCase) -> Look:
        nonlocal drawn
        drawn += 1
        return Look(noise, worst.example, "a", 0.5, map=noise[..., 0].astype(np.float32))

    large = realistic((MODEL, *OTHERS), methods, worst=6, points=225)
    path = write_report(large, seen, tmp_path)
    assert MOST_BYTES < path.stat().st_size < 15_000_000
    assert 48 <= drawn < 6 * 2 * 24  # each map has its worst case
    left = re.findall(r"(\d+) more (?:is|are) in results.json", path.read_text(encoding="utf-8"))
    assert sum(map(int, left)) == 6 * 2 * 24 - drawn


def test_an_image_that_is_gone_is_counted(read: Callable[..., Element]) -> None:
    worst = (WorstCase(example="gone.jpg", about="", target=0, value=0.1),)
    found = read(results(measured("pointing", "gradcam", figure("f", 0.5), worst=worst)))
    assert "1 more is in results.json and not shown" in text(section(found, "Pointing"))


def test_no_figures_at_all_still_give_a_page(read: Callable[..., Element]) -> None:
    found = read(results(measured("pointing", "gradcam", unsuited="nothing is marked")))
    assert "nothing is marked" in text(section(found, "Measures that were not taken"))
    assert "not compared" in text(classed(found, "lead")[0])
