"""Where the service asks for a key, the page asks a person for it, and keeps it for the tab alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Request, expect

from konkyo.service.demo import running_server
from konkyo.service.keys import append_key, make_key
from konkyo.service.settings import ZOO

from .look import GCM

WELL = {"explains": "explain", "predicts": "predict"}


@dataclass
class Guarded:
    """A server that asks for keys, and one key of each scope."""

    address: str
    keys: dict[str, str]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "models").mkdir()
    (folder / "models" / GCM).symlink_to(ZOO / GCM)
    secrets = {}
    for name, scope in WELL.items():
        secrets[name], key = make_key(name, [scope])
        append_key(folder / "keys", key)
    arguments = ("--repository", str(folder / "models"), "--api-keys-file", str(folder / "keys"))
    with running_server(*arguments, "--threads", "1", "--log-level", "error") as address:
        yield Guarded(address, secrets)


@pytest.fixture
def page(chromium: Browser, guarded: Guarded, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page, asking for a key."""
    context = chromium.new_context(**getattr(request, "param", {}))
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(guarded.address)
    page.wait_for_selector("#key-dialog[open]")
    yield page
    context.close()
    assert faults == []


def give(page: Page, key: str) -> None:
    page.get_by_label("API key", exact=True).fill(key)
    page.keyboard.press("Enter")


def stored(page: Page) -> list[str]:
    """All that the page keeps in the browser."""
    found: list[str] = page.evaluate("Object.values(sessionStorage).concat(Object.values(localStorage))")
    return found + [str(cookie) for cookie in page.context.cookies()]


def test_with_the_key_everything_works_and_every_request_carries_it(page: Page, guarded: Guarded) -> None:
    key = guarded.keys["explains"]
    sent: list[Request] = []
    page.on("request", lambda request: sent.append(request))
    give(page, key)
    page.wait_for_selector("[data-sample]")
    page.click('[data-sample="chelsea.jpg"]')
    page.wait_for_selector("#answer:not([hidden])")
    page.select_option("#method", "occlusion")  # a stream
    page.wait_for_selector("#figure[aria-busy=false]")
    expect(page.locator("#alert")).to_be_empty()
    asked = [request for request in sent if "/v1/" in request.url]
    assert {request.headers.get("authorization") for request in asked} == {f"Bearer {key}"}
    assert any("method=occlusion" in request.url for request in asked)
    assert not any(key in request.url for request in sent)
    assert stored(page) == [key]


def test_a_wrong_key_is_asked_for_again_and_not_kept(page: Page, guarded: Guarded) -> None:
    give(page, "konkyo_wrong")
    expect(page.locator("#key-problem")).to_have_text("The service does not know this key.")
    assert stored(page) == []
    assert page.get_by_label("API key", exact=True).input_value() == ""
    give(page, guarded.keys["explains"])
    page.wait_for_selector("[data-sample]")


def test_not_now_leaves_a_way_back(page: Page, guarded: Guarded) -> None:
    page.keyboard.press("Escape")
    expect(page.locator("#alert")).to_have_text("The service answers only with an API key.")
    assert page.locator("[data-sample]").count() == 0
    page.get_by_role("button", name="Give a key").click()
    give(page, guarded.keys["explains"])
    page.wait_for_selector("[data-sample]")


def test_a_key_can_be_forgotten(page: Page, guarded: Guarded) -> None:
    give(page, guarded.keys["explains"])
    page.wait_for_selector("[data-sample]")
    page.get_by_role("button", name="Forget the key").click()
    assert stored(page) == []
    page.click('[data-sample="chelsea.jpg"]')
    page.wait_for_selector("#key-dialog[open]")
    expect(page.locator("#key-problem")).to_be_empty()


def test_another_tab_is_asked_anew(page: Page, guarded: Guarded) -> None:
    give(page, guarded.keys["explains"])
    page.wait_for_selector("[data-sample]")
    other = page.context.new_page()
    other.goto(guarded.address)
    other.wait_for_selector("#key-dialog[open]")


def test_a_key_that_may_not_explain_says_so(page: Page, guarded: Guarded) -> None:
    give(page, guarded.keys["predicts"])
    page.wait_for_selector("[data-sample]")
    page.click('[data-sample="chelsea.jpg"]')
    said = "The service refuses: this API key does not have the scope explain."
    expect(page.locator("#alert")).to_have_text(said)
    page.get_by_role("button", name="Forget the key").click()
    page.click('[data-sample="chelsea.jpg"]')
    give(page, guarded.keys["explains"])
    page.wait_for_selector("#answer:not([hidden])")


@pytest.mark.parametrize("page", [{"color_scheme": "light"}, {"color_scheme": "dark"}], indirect=True)
def test_the_question_is_accessible(page: Page) -> None:
    expect(page.get_by_role("dialog", name="An API key, please")).to_be_visible()
    expect(page.get_by_label("API key", exact=True)).to_be_focused()
    give(page, "konkyo_wrong")
    expect(page.locator("#key-problem")).not_to_be_empty()
    assert Axe().run(page).response["violations"] == []


def test_a_key_with_a_space_inside_is_not_sent(page: Page) -> None:
    sent: list[Request] = []
    page.on("request", lambda request: sent.append(request))
    give(page, "two words")
    expect(page.locator("#key:invalid")).to_be_focused()
    assert sent == []


def test_the_documentation_works_under_its_policy(chromium: Browser, guarded: Guarded) -> None:
    context = chromium.new_context()
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(f"{guarded.address}/docs")
    page.get_by_role("button", name="Authorize").click()
    page.locator("#auth-bearer-value").first.fill(guarded.keys["predicts"])
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Close").first.click()
    page.locator("#operations-v1-list_models_v1_models_get").click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table td.response-col_status:not(.col_header)")).to_have_text("200")
    context.close()
    assert said == []
