"""A class typed, of a thousand; and what it should have been: the predicted and the true map side by side."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from .look import EXPLAIN, HELMET, IMAGENET, SHUTTLE, Visit, warmth
from .test_access import NARROW, SCHEMES, violations


def explained(visit: Visit) -> int:
    return sum(bool(EXPLAIN.search(url)) for url in visit.urls)


def test_the_maps_of_the_predicted_and_the_true_class_lie_side_by_side(visit: Visit) -> None:
    plain = visit.astronaut()
    assert plain["label"] == "football helmet"
    page = visit.page
    sentence = page.locator("#truth-words")
    expect(sentence).to_have_text("Wrong: it took space shuttle for football helmet.")  # the sample knows
    answer = visit.answer_to(lambda: page.get_by_role("button", name="Compare").click())
    assert "truth=space+shuttle" in visit.urls[-1]
    assert answer["truth"] == {**answer["truth"], "label": "space shuttle", "correct": False}
    expect(sentence).to_have_text("Wrong: it took space shuttle for football helmet.")
    expect(page.locator("#of-predicted")).to_have_text("Predicted: football helmet 14.4 %")
    expect(page.locator("#of-true")).to_have_text("True: space shuttle < 0.1 %")
    expect(page.get_by_role("img", name="what speaks for and against football helmet")).to_be_visible()
    expect(page.get_by_role("img", name="what speaks for and against space shuttle")).to_be_visible()
    predicted, true = visit.canvas("#canvas"), visit.canvas("#canvas-true")
    assert predicted.shape == true.shape
    assert warmth(predicted, HELMET) > warmth(predicted, SHUTTLE) + 30
    assert warmth(true, SHUTTLE) > warmth(true, HELMET) + 30

    # Each map on its own scale, so that the fainter one is seen as well; on the model's they compare.
    assert warmth(true, SHUTTLE) > warmth(predicted, HELMET) / 2
    expect(page.locator("#legend-high")).to_have_text("for, each on its own scale")
    page.get_by_role("radio", name="the model").check()
    assert warmth(visit.canvas("#canvas-true"), SHUTTLE) < warmth(true, SHUTTLE) / 2
    expect(page.locator("#legend-high")).to_have_text(re.compile(r"0\.\d+ for"))
    page.get_by_role("radio", name="this map").check()
    boxes = [page.locator(selector).bounding_box() for selector in ("#canvas", "#canvas-true")]
    assert boxes[0] is not None
    assert boxes[1] is not None
    assert boxes[0]["y"] == boxes[1]["y"]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]

    page.locator("#regions").check()
    expect(page.locator("#region-lists h4")).to_have_text(["football helmet", "space shuttle"])
    with page.expect_download() as download:
        page.click("#save-png")
    saved = np.asarray(Image.open(io.BytesIO(Path(download.value.path()).read_bytes())).convert("RGB"))
    np.testing.assert_array_equal(saved[:, : predicted.shape[1]], visit.canvas("#canvas"))
    np.testing.assert_array_equal(saved[:, -true.shape[1] :], visit.canvas("#canvas-true"))


def test_a_right_answer_is_told_and_has_one_map(visit: Visit) -> None:
    visit.use(IMAGENET)
    visit.sample("coffee.jpg")
    expect(visit.page.locator("#truth-words")).to_have_text("Right: it is espresso.")
    answer = visit.answer_to(lambda: visit.page.click("#truth-go"))
    assert len(answer["explanation"]["maps"]) == 1
    expect(visit.page.locator("#side-true")).to_be_hidden()
    expect(visit.page.locator("#truth-words")).to_have_text("Right: it is espresso.")


def test_a_true_class_is_asked_once_and_ended_by_another_choice(visit: Visit) -> None:
    answer = visit.sample("cifar10-ship.png")
    page = visit.page
    before = explained(visit)
    wrong = answer["top_k"][1]["label"]
    told = visit.answer_to(lambda: visit.type_class("#truth", wrong.upper()))
    assert told["truth"]["label"] == wrong
    assert explained(visit) == before + 1
    expect(page.locator("#truth")).to_have_value(wrong)
    expect(page.locator("#bars [aria-pressed=true]")).to_have_count(2)

    visit.answer_to(lambda: page.locator("#truth-end").press("Enter"))
    assert "truth" not in visit.urls[-1]
    expect(page.locator("#side-true")).to_be_hidden()
    expect(page.locator("#truth")).to_be_focused()

    visit.answer_to(lambda: page.click("#truth-go"))
    expect(page.locator("#side-true")).to_be_visible()
    other = answer["top_k"][2]["label"]
    visit.answer_to(lambda: page.click(f'#bars [data-label="{other}"]'))
    expect(page.locator("#side-true")).to_be_hidden()
    expect(page.locator("#target-name")).to_have_text(other)
    visit.sample("cifar10-frog.png")
    expect(page.locator("#truth")).to_have_value("frog")
    expect(page.locator("#target")).to_have_value("")


def test_one_of_a_thousand_classes_is_typed(visit: Visit) -> None:
    visit.astronaut()
    page = visit.page
    expect(page.locator("#classes option")).to_have_count(1000)
    answer = visit.answer_to(lambda: visit.type_class("#target", "space shuttle"))
    assert answer["explanation"]["target"]["label"] == "space shuttle"
    expect(page.locator("#target-words")).to_contain_text("space shuttle, which is not the predicted class")
    assert warmth(visit.canvas(), SHUTTLE) > warmth(visit.canvas(), HELMET) + 30

    # Picked from the browser's own list, which fills the input without a key.
    page.locator("#target").evaluate(
        """(input) => {
            input.value = "bobsled";
            input.dispatchEvent(new InputEvent("input", { inputType: "insertReplacementText" }));
        }"""
    )
    expect(page.locator("#target-name")).to_have_text("bobsled")
    answer = visit.answer_to(lambda: visit.type_class("#target", ""))
    assert answer["explanation"]["target"]["label"] == answer["label"]


@pytest.mark.parametrize("selector", ["#target", "#truth"])
def test_a_class_there_is_not_is_told_and_not_asked(visit: Visit, selector: str) -> None:
    visit.astronaut()
    before = explained(visit)
    visit.type_class(selector, "shutle")
    problem = visit.page.locator(f"{selector}-problem")
    expect(problem).to_contain_text("no class “shutle”. There is")
    expect(problem).to_contain_text("“space shuttle”")
    expect(visit.page.locator(selector)).to_have_attribute("aria-invalid", "true")
    if selector == "#truth":
        visit.page.click("#truth-go")
    assert explained(visit) == before
    visit.answer_to(lambda: visit.type_class(selector, "space shuttle"))
    expect(problem).to_be_empty()


@pytest.mark.parametrize("visit", SCHEMES, indirect=True)
def test_axe_finds_nothing_serious_side_by_side(visit: Visit) -> None:
    visit.astronaut()
    visit.answer_to(lambda: visit.page.click("#truth-go"))
    visit.type_class("#target", "shutle")
    expect(visit.page.locator("#target-problem")).not_to_be_empty()
    assert violations(visit) == []


@pytest.mark.parametrize("visit", NARROW, indirect=True)
def test_two_maps_fit_a_narrow_screen(visit: Visit) -> None:
    visit.astronaut()
    visit.answer_to(lambda: visit.page.click("#truth-go"))
    assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
