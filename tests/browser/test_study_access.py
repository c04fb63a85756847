"""Everyone can take part in a study: screen reader, light and dark, narrow screens."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from konkyo.study.report import report
from konkyo.study.scoring import score

from .studies import TITLE, Opening, Sitting, Study, make_study


def violations(sitting: Sitting) -> list[str]:
    return [
        f"{violation['id']}: {node['target']} {node['failureSummary']}"
        for violation in Axe().run(sitting.page).response["violations"]
        for node in violation["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(sit: Opening, study: Study, scheme: str) -> None:
    sitting = sit(make_study(study.store, study.address, images=1), color_scheme=scheme)
    page = sitting.page
    sitting.open()
    assert violations(sitting) == []
    page.click("#plain-go")
    sitting.wait_for_image(1)
    assert violations(sitting) == []
    page.click("#next")
    expect(page.locator("#doubt")).not_to_be_empty()
    sitting.drag(2, 1, drop=False)
    assert violations(sitting) == []
    page.mouse.up()
    sitting.card(1).click()
    assert violations(sitting) == []
    page.keyboard.press("Escape")
    page.click("#overview-button")
    assert violations(sitting) == []
    page.keyboard.press("Escape")
    page.click("#next")
    expect(page.locator("h1:visible")).to_have_text("The image is ordered")
    assert violations(sitting) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_goes_wrong_is_told_accessibly(sitting: Sitting, sit: Opening, scheme: str) -> None:
    other = sit(color_scheme=scheme)
    other.begin()
    sitting.drag(1, 2)
    sitting.saved()
    other.drag(1, 3)
    expect(other.page.get_by_role("alert")).to_contain_text("ordered in another window")
    other.page.context.set_offline(True)
    other.drag(1, 3)
    expect(other.page.locator("#state")).to_have_text("Not saved, trying again")
    assert violations(other) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_the_report(sitting: Sitting, sit: Opening, study: Study, scheme: str) -> None:
    sitting.drag(1, 2)
    sitting.page.click("#next")
    sitting.saved()
    scores = score(
        study.store.answers(study.id), command="konkyo study score", date="2026-11-21", versions={}
    )
    reader = sit(color_scheme=scheme, viewport={"width": 390, "height": 700})
    reader.page.set_content(report(scores, study.store.picture))
    assert violations(reader) == []
    assert reader.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_everything_has_a_name(sitting: Sitting) -> None:
    page = sitting.page
    expect(page.get_by_role("img", name="The image")).to_be_visible()
    cards = page.get_by_role("list", name="Maps, best first").get_by_role("listitem").get_by_role("button")
    assert [card.get_attribute("aria-label") for card in cards.all()] == [
        f"Map {letter}, place {place} of 4" for place, letter in enumerate("ABCD", 1)
    ]
    for name in ("Previous", "Next", "0 of 3 done"):
        expect(page.get_by_role("button", name=name, exact=True)).to_have_count(1)
    assert page.title() == f"Image 1 of 3 — {TITLE}"


@pytest.mark.parametrize("width", [320, 390, 700, 900])
def test_narrow_screens_do_not_scroll_sideways_and_keep_the_image_in_sight(
    sit: Opening, study: Study, width: int
) -> None:
    many = make_study(study.store, study.address, images=1, maps=10)
    sitting = sit(many, viewport={"width": width, "height": 640})
    sitting.begin()
    fits = "document.documentElement.scrollWidth <= innerWidth"
    assert sitting.page.evaluate(fits)
    sitting.card(10).focus()
    sitting.page.keyboard.press("End")
    expect(sitting.page.locator("#image")).to_be_in_viewport(ratio=0.9)
    expect(sitting.card(10)).to_be_in_viewport(ratio=0.9)
    sitting.page.keyboard.press("Enter")
    for picture in ("#viewer-image", "#viewer-map"):
        expect(sitting.page.locator(picture)).to_be_in_viewport(ratio=0.9)
    assert sitting.page.evaluate(fits)
