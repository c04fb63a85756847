"""The report of an evaluation in a browser: it asks for nothing, and everyone can read it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from konkyo.evaluation.report import write_report
from made_results import MODEL, look, realistic

SCHEMES = ("light", "dark")
OTHERS = ("gcm-cifar10/1", "amb-elpv/1")


class Seen(NamedTuple):
    """A page, open, with what it asked for and complained about."""

    page: Page
    urls: list[str]
    complaints: list[str]


@pytest.fixture(scope="module", params=[(MODEL,), (MODEL, *OTHERS)], ids=["one model", "three models"])
def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = write_report(realistic(request.param, worst=2), look, tmp_path_factory.mktemp("report"))
    return path.as_uri()


@pytest.fixture
def seen(chromium: Browser, address: str, request: pytest.FixtureRequest) -> Iterator[Seen]:
    """A parameter, if there is one, is a dict of options of the browser context."""
    context = chromium.new_context(**getattr(request, "param", {}))
    seen = Seen(context.new_page(), [], [])
    seen.page.on("request", lambda item: seen.urls.append(item.url))
    seen.page.on("console", lambda message: seen.complaints.append(message.text))
    seen.page.goto(address)
    yield seen
    assert seen.complaints == []
    assert [url for url in seen.urls if not url.startswith("data:")] == [address]
    context.close()


@pytest.mark.parametrize("seen", [{"color_scheme": scheme} for scheme in SCHEMES], indirect=True, ids=SCHEMES)
def test_axe_finds_nothing(seen: Seen) -> None:
    seen.page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    found = Axe().run(seen.page).response["violations"]
    assert [f"{item['id']}: {node['target']}" for item in found for node in item["nodes"]] == []


@pytest.mark.parametrize("seen", [{"viewport": {"width": 340, "height": 700}}], indirect=True)
def test_a_phone_does_not_scroll_sideways(seen: Seen) -> None:
    assert seen.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    box = seen.page.locator(".so").first.bounding_box()
    assert box is not None
    assert box["x"] + box["width"] <= 340  # the answer, before anything is scrolled aside


@pytest.mark.parametrize("seen", [{"viewport": {"width": 1280, "height": 860}}], indirect=True)
def test_the_answer_is_on_the_first_screen(seen: Seen) -> None:
    expect(seen.page.locator(".lead").first).to_be_in_viewport(ratio=1)
    expect(seen.page.locator(".verdict").first).to_be_in_viewport(ratio=1)


def test_every_picture_is_drawn_and_what_is_folded_is_printed(seen: Seen) -> None:
    page = seen.page
    pictures = page.locator("img")
    assert pictures.count() > 10
    assert page.evaluate("[...document.images].every((image) => image.naturalWidth > 0)")
    folded = page.locator("details:not([open]) img").first
    expect(folded).to_be_hidden()
    page.emulate_media(media="print")
    expect(folded).to_be_visible()


def test_the_keyboard_reaches_tables_links_and_what_is_folded(seen: Seen) -> None:
    page = seen.page
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("document.activeElement.tagName + '.' + document.activeElement.className")
        )
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    assert reached[0] == "A."
    assert "DIV.scroll" in reached
    folded = page.locator("details:not([open]):has(img)").first
    folded.evaluate("part => { part.id = 'folded'; part.querySelector('summary').focus(); }")
    page.keyboard.press("Enter")
    expect(page.locator("#folded img").first).to_be_visible()
