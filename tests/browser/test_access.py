"""Everyone can use the page: keyboard, screen reader, light and dark, narrow screens."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from .look import EXPLAIN, Visit


def violations(visit: Visit) -> list[str]:
    found = Axe().run(visit.page).response["violations"]
    return [
        f"{violation['id']}: {node['target']} {node['failureSummary']}"
        for violation in found
        for node in violation["nodes"]
        if violation["impact"] in ("serious", "critical")
    ]


SCHEMES = [pytest.param({"color_scheme": scheme}, id=scheme) for scheme in ("light", "dark")]
NARROW = [
    pytest.param({"viewport": {"width": width, "height": 700}}, id=f"{width}px") for width in (340, 700)
]

NAMED = [
    ("combobox", "Model"),
    ("combobox", "Explanation"),
    ("combobox", "Show the map of"),
    ("combobox", "What should it be?"),
    ("button", "Compare"),
    ("radio", "Spotlight"),
    ("radio", "for"),
    ("slider", "Strength"),
    ("checkbox", "Regions"),
    ("button", "Save picture"),
    ("list", "Scores"),
]


@pytest.mark.parametrize("visit", SCHEMES, indirect=True)
def test_axe_finds_nothing_serious(visit: Visit) -> None:
    page = visit.page
    assert violations(visit) == []
    visit.sample("chelsea.jpg")
    page.locator("#regions").check()
    page.locator("input[value=overlay]").check()
    page.locator("#card summary").click()
    assert violations(visit) == []
    with page.expect_response(EXPLAIN):
        page.set_input_files("#file", {"name": "x.png", "mimeType": "image/png", "buffer": b"no image"})
    expect(page.locator("#alert")).not_to_be_empty()
    assert violations(visit) == []
    visit.complaints.clear()  # Chromium notes the 415


def test_keyboard_alone_is_enough(visit: Visit) -> None:
    page = visit.page

    def tab_to(selector: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                outline = page.evaluate(
                    """() => [document.activeElement, document.activeElement.parentElement].some(
                        (node) => getComputedStyle(node).outlineStyle !== "none")"""
                )
                assert outline, f"no visible focus on {selector}"
                return
        pytest.fail(f"Tab never reaches {selector}")

    tab_to(".skip")
    tab_to("#file")
    tab_to("[data-sample]")
    answer = visit.answer_to(lambda: page.keyboard.press("Enter"))
    tab_to("#method")
    with page.expect_response(EXPLAIN):
        page.keyboard.press("o")
    expect(page.locator("#method")).to_have_value("occlusion")
    page.wait_for_selector("#figure[aria-busy=false]")
    visit.answer_to(lambda: page.keyboard.press("Home"))
    tab_to("#target")
    page.keyboard.type("dog")
    assert visit.answer_to(lambda: page.keyboard.press("Enter"))["explanation"]["target"]["label"] == "dog"
    tab_to("#truth")
    page.keyboard.type("ship")
    assert visit.answer_to(lambda: page.keyboard.press("Enter"))["truth"]["label"] == "ship"
    tab_to("#truth-end")
    assert "truth" not in visit.answer_to(lambda: page.keyboard.press("Enter"))
    before = visit.canvas()
    tab_to("input[name=view]")
    page.keyboard.press("ArrowRight")
    expect(page.locator("input[value=overlay]")).to_be_checked()
    assert (visit.canvas() != before).any()
    tab_to("#opacity")
    page.keyboard.press("Home")
    expect(page.locator("#opacity-out")).to_have_text("0 %")
    tab_to("#regions")
    page.keyboard.press("Space")
    expect(page.locator("#region-part")).to_be_visible()
    tab_to(f'#bars [data-label="{answer["top_k"][1]["label"]}"]')
    visit.answer_to(lambda: page.keyboard.press("Space"))
    expect(page.locator("#target-name")).to_have_text(answer["top_k"][1]["label"])
    tab_to("#card summary")


def test_every_picture_and_control_has_a_name(visit: Visit) -> None:
    answer = visit.sample("chelsea.jpg")
    page = visit.page
    label = answer["label"]
    expect(page.get_by_role("img", name=f"what speaks for {label}")).to_be_visible()
    for role, name in NAMED:
        expect(page.get_by_role(role, name=name, exact=True)).to_have_count(1)  # type: ignore[arg-type]
    bars = page.get_by_role("list", name="Scores")
    expect(bars.get_by_role("button", name=label, pressed=True)).to_have_count(1)


@pytest.mark.parametrize("visit", NARROW, indirect=True)
def test_narrow_screens_do_not_scroll_sideways(visit: Visit) -> None:
    visit.sample("chelsea.jpg")
    assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
