"""Explanations that take a while: how far they are, what there is so far, and the way out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import Request, Route, expect

from .look import EXPLAIN, GCM, HELMET, SHUTTLE, Visit, difference, warmth
from .test_access import SCHEMES, violations


def events(*given: tuple[str, Any], line: str = "\n") -> str:
    """The body of a stream."""
    return "".join(f"event: {name}{line}data: {json.dumps(data)}{line}{line}" for name, data in given)


def answer_streams(visit: Visit, body: str, status: int = 200) -> None:
    """Answer every stream so, and leave all other requests alone."""

    def handle(route: Route) -> None:
        if route.request.headers["accept"] == "text/event-stream":
            kind = "text/event-stream" if status == 200 else "application/json"
            route.fulfill(status=status, headers={"content-type": kind}, body=body)
        else:
            route.fallback()

    visit.page.route(EXPLAIN, handle)


def of_rise(request: Request) -> bool:
    return "method=rise" in request.url


def test_a_long_explanation_tells_how_far_it_is_and_lands_on_the_object(visit: Visit) -> None:
    visit.astronaut()
    page = visit.page
    page.select_option("#method", "occlusion")
    expect(page.get_by_role("progressbar", name="Occlusion")).to_be_visible()
    expect(page.locator("#working-left")).to_contain_text("%")
    page.wait_for_selector("#figure[aria-busy=false]")
    expect(page.locator("#working")).to_be_hidden()
    expect(page.locator("#status")).to_contain_text("football helmet")
    with page.expect_download() as download:
        page.click("#save-json")
    answer = json.loads(download.value.path().read_text())
    assert answer["explanation"]["method"] == "occlusion"
    picture = visit.canvas()
    assert warmth(picture, HELMET) > warmth(picture, SHUTTLE) + 20


def test_it_can_be_cancelled_and_leaves_the_answer_before(visit: Visit) -> None:
    answer = visit.astronaut()
    page = visit.page
    before = visit.canvas()
    page.select_option("#method", "rise")
    expect(page.locator("#working-left")).to_contain_text("%")
    with page.expect_event("requestfailed", of_rise):
        page.locator("#cancel").press("Enter")
    expect(page.locator("#working")).to_be_hidden()
    expect(page.locator("#method")).to_have_value(answer["explanation"]["method"])
    expect(page.locator("#method")).to_be_focused()
    expect(page.locator("#status")).to_have_text("Cancelled.")
    expect(page.locator("#alert")).to_be_empty()
    assert difference(visit.canvas(), before) == 0
    visit.method("text")  # and the page goes on


def test_another_choice_cancels_it(visit: Visit) -> None:
    visit.astronaut()
    visit.page.select_option("#method", "rise")
    expect(visit.page.locator("#working")).to_be_visible()
    with visit.page.expect_event("requestfailed", of_rise):
        answer = visit.method("gradcam")
    assert answer["explanation"]["method"] == "gradcam"
    expect(visit.page.locator("#working")).to_be_hidden()


def test_a_new_image_is_judged_at_once_and_explained_when_it_is_done(visit: Visit) -> None:
    answer_streams(visit, events(("error", {"error": {"code": "draining", "message": "going down"}})))
    visit.page.select_option("#method", "occlusion")
    first = visit.sample("cifar10-ship.png")
    assert first["explanation"]["method"] == "gcm"
    expect(visit.page.locator("#alert")).to_have_text("going down")
    expect(visit.page.locator("#method")).to_have_value("gcm")  # which is what is shown


@pytest.mark.parametrize("line", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_what_there_is_so_far_is_drawn(visit: Visit, line: str) -> None:
    plain = visit.sample("cifar10-ship.png")
    half = {"done": 1, "total": 2, "explanation": plain["explanation"] | {"method": "occlusion"}}
    result = plain | {"explanation": half["explanation"]}
    steps = ("progress", {"done": 0, "total": 2}), ("progress", half), ("result", result)
    answer_streams(visit, f": keep alive{line}{line}" + events(*steps, line=line))
    visit.page.evaluate(
        """() => {
            const bar = document.getElementById("progress");
            window.steps = [];
            new MutationObserver(() => steps.push(bar.position)).observe(bar, { attributes: true });
        }"""
    )
    visit.page.select_option("#method", "occlusion")
    expect(visit.page.locator("#figure")).to_have_attribute("aria-busy", "false")
    expect(visit.page.locator("#working")).to_be_hidden()
    expect(visit.page.locator("#alert")).to_be_empty()
    assert visit.page.evaluate("steps.at(-1)") == 0.5
    expect(visit.page.locator("input[value=overlay]")).to_be_checked()


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (429, json.dumps({"error": {"code": "too_many_jobs", "message": "4 are at work"}}), "4 are at work"),
        (200, events(("error", {"error": {"code": "x", "message": "it failed"}})), "it failed"),
        (200, events(("progress", {"done": 1, "total": 9})), "was lost"),
        (200, "event: result\ndata: {nothing\n\n", "was lost"),
    ],
    ids=["refused", "failed", "cut", "broken"],
)
def test_what_goes_wrong_is_told(visit: Visit, status: int, body: str, words: str) -> None:
    visit.sample("cifar10-ship.png")
    before = visit.canvas()
    answer_streams(visit, body, status)
    visit.page.select_option("#method", "occlusion")
    expect(visit.page.locator("#alert")).to_contain_text(words)
    expect(visit.page.locator("#working")).to_be_hidden()
    expect(visit.page.locator("#method")).to_have_value("gcm")
    assert difference(visit.canvas(), before) == 0
    assert all(" 429 " in complaint for complaint in visit.complaints)  # Chromium notes it
    visit.complaints.clear()


@pytest.mark.parametrize("visit", SCHEMES, indirect=True)
def test_whatever_takes_long_can_be_ended(visit: Visit) -> None:
    page = visit.page
    page.route(EXPLAIN, lambda route: None)  # no answer comes
    page.click('[data-sample="chelsea.jpg"]')
    expect(page.get_by_role("progressbar", name="Class weight map")).to_be_visible()
    assert violations(visit) == []
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#working")).to_be_hidden()
    expect(page.locator("#answer")).to_be_hidden()
    page.unroute(EXPLAIN)
    assert visit.sample("chelsea.jpg")["model"]["name"] == GCM
