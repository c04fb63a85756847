"""The page of a ranking study: ordering by mouse, finger and keyboard, and losing nothing."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from playwright.sync_api import Route, expect

from .studies import COLOURS, ENTRIES, INSTRUCTION, TITLE, Opening, Sitting, Study, make_study, moved

PUT = "**/ranking"


def test_the_first_words_say_what_is_to_be_done(sit: Opening) -> None:
    sitting = sit()
    sitting.open()
    expect(sitting.page.locator("h1:visible")).to_have_text(TITLE)
    expect(sitting.page.locator("#plain-words")).to_contain_text(INSTRUCTION)
    expect(sitting.page.locator("#plain-words")).to_contain_text("3 images, each with 4 maps")


def test_every_card_shows_its_map_under_its_place(sitting: Sitting, study: Study) -> None:
    item = study.item(1)
    assert sitting.order() == item["maps"]
    entries = {
        picture: entry
        for shown in study.store.answers(study.id).items
        for entry, picture in enumerate(shown.maps)
    }
    assert sitting.colours() == [COLOURS[entries[picture]] for picture in item["maps"]]
    assert sitting.page.locator("#deck .grip").all_text_contents() == ["1", "2", "3", "4"]
    expect(sitting.page.locator("#question")).to_have_text(
        f"Where would you look to recognise the {item['label']}?"
    )


@pytest.mark.parametrize(("place", "to"), [(4, 1), (1, 4), (2, 3)])
def test_a_card_is_dragged_with_the_mouse(sitting: Sitting, study: Study, place: int, to: int) -> None:
    before = sitting.order()
    sitting.drag(place, to, drop=False)
    expect(sitting.page.locator(".ghost .grip")).to_have_text(str(to))
    expect(sitting.page.locator(f"#deck li:nth-child({to})")).to_have_class("slot")  # the place it would get
    assert study.item(1)["revision"] == 0  # nothing is saved on the way
    sitting.page.mouse.up()
    assert sitting.order() == moved(before, place, to)
    expect(sitting.page.locator(".ghost, .slot, #viewer[open]")).to_have_count(0)
    sitting.said(f"Map {'ABCD'[place - 1]} moved to place {to} of 4")
    sitting.saved()
    saved = study.item(1)
    assert (saved["ranking"], saved["done"], saved["revision"]) == (moved(before, place, to), False, 1)


def test_escape_puts_a_dragged_card_back(sitting: Sitting) -> None:
    before = sitting.order()
    sitting.drag(4, 1, drop=False)
    assert sitting.order() != before
    sitting.page.keyboard.press("Escape")
    assert sitting.order() == before
    sitting.page.mouse.up()
    expect(sitting.page.locator(".ghost, #viewer[open]")).to_have_count(0)
    expect(sitting.page.locator("#said")).to_be_empty()


def test_the_page_scrolls_where_a_card_is_dragged_beyond_it(sit: Opening, study: Study) -> None:
    many = make_study(study.store, study.address, images=1, maps=10)
    sitting = sit(many, viewport={"width": 400, "height": 620})
    sitting.begin()
    sitting.card(1).scroll_into_view_if_needed()
    before = sitting.order()
    sitting.page.mouse.move(*sitting.middle(sitting.card(1)))
    sitting.page.mouse.down()
    sitting.page.mouse.move(330, 400, steps=3)
    sitting.page.mouse.move(330, 612, steps=3)
    end = "() => innerHeight + scrollY >= document.documentElement.scrollHeight - 1"
    sitting.page.wait_for_function(end)
    sitting.page.mouse.move(*sitting.middle(sitting.card(10)), steps=3)
    sitting.page.mouse.up()
    assert sitting.order() == moved(before, 1, 10)


def test_a_finger_takes_a_card_by_its_grip_and_scrolls_elsewhere(sit: Opening) -> None:
    sitting = sit(viewport={"width": 390, "height": 700}, has_touch=True, is_mobile=True)
    sitting.begin()
    before = sitting.order()
    touch = sitting.page.context.new_cdp_session(sitting.page)

    def swipe(start: tuple[float, float], end: tuple[float, float]) -> None:
        points = [
            (start[0] + (end[0] - start[0]) * part / 8, start[1] + (end[1] - start[1]) * part / 8)
            for part in range(9)
        ]
        for index, (x, y) in enumerate(points):
            kind = "touchStart" if index == 0 else "touchMove"
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    grip = sitting.page.locator("#deck .grip")
    swipe(sitting.middle(grip.nth(0)), sitting.middle(grip.nth(1)))
    expect(sitting.page.locator("#said")).to_have_text("Map A moved to place 2 of 4")
    assert sitting.order() == moved(before, 1, 2)
    sitting.page.evaluate(
        """() => {
            window.lifted = 0;
            const see = (changes) => changes.forEach(({ target }) => { lifted += target.matches(".slot"); });
            const all = { attributes: true, subtree: true };
            new MutationObserver(see).observe(document.querySelector("#deck"), all);
        }"""
    )
    x, y = sitting.middle(sitting.page.locator("#deck img").nth(0))
    swipe((x, y), (x, y - 150))
    sitting.page.wait_for_function("() => scrollY > 50")
    assert sitting.page.evaluate("lifted") == 0
    assert sitting.order() == moved(before, 1, 2)
    sitting.card(3).tap()
    expect(sitting.page.locator("#viewer")).to_be_visible()


def test_keys_move_the_card_in_focus(sit: Opening, study: Study) -> None:
    many = make_study(study.store, study.address, images=1, maps=10)
    sitting = sit(many)
    sitting.begin()
    press = sitting.page.keyboard.press
    order = sitting.order()
    sitting.card(3).focus()
    for key, place, to in [
        ("ArrowRight", 3, 4), ("ArrowLeft", 4, 3), ("ArrowDown", 3, 8), ("ArrowUp", 8, 3), ("ArrowUp", 3, 1),
        ("End", 1, 10), ("7", 10, 7), ("0", 7, 10), ("ArrowRight", 10, 10), ("Home", 10, 1), ("9", 1, 9),
    ]:  # fmt: skip
        press(key)
        order = moved(order, place, to)
        assert sitting.order() == order, key
        expect(sitting.card(to)).to_be_focused()
        expect(sitting.card(to)).to_have_accessible_name(f"Map C, place {to} of 10")
        sitting.said(f"Map C moved to place {to} of 10")
    press("Control+1")  # the browser's own
    assert sitting.order() == order


def test_keyboard_alone_is_enough_from_start_to_end(sit: Opening, study: Study) -> None:
    sitting = sit()
    sitting.open()
    page, press = sitting.page, sitting.page.keyboard.press

    def tab_to(selector: str) -> list[str]:
        passed = []
        for _ in range(20):
            press("Tab")
            passed.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
                return passed
        pytest.fail(f"Tab never reaches {selector}: {passed}")

    tab_to("#plain-go")
    press("Enter")
    wanted = []
    for number in range(1, 4):
        sitting.wait_for_image(number)
        expect(page.locator("#question")).to_be_focused()
        order = sitting.order()
        assert tab_to("#deck button") == ["card"]  # at once
        press("End")
        assert tab_to("#next") == ["previous", "next"]
        press("Enter")
        wanted.append(moved(order, 1, 4))
    expect(page.locator("h1:visible")).to_have_text("All 3 images are ordered")
    expect(page.locator("h1:visible")).to_be_focused()
    tab_to("#plain-go")
    press("Enter")
    expect(page.locator("h1:visible")).to_have_text("Thank you")
    answers = study.store.answers(study.id)
    assert answers.subjects == ((1, True),)
    order_of = {study.item(number)["item"]: order for number, order in enumerate(wanted, 1)}
    assert answers.rankings == {(1, item): tuple(order) for item, order in order_of.items()}


def test_a_map_is_seen_large_and_ordered_there(sitting: Sitting) -> None:
    page, press = sitting.page, sitting.page.keyboard.press
    order = sitting.order()
    sitting.card(2).focus()
    press("Enter")
    viewer = page.get_by_role("dialog", name="Map B, place 2 of 4")
    expect(viewer.get_by_role("img", name="The image")).to_be_visible()
    expect(viewer.get_by_role("img", name="Map B, place 2 of 4")).to_be_visible()
    expect(page.get_by_role("button", name="Close")).to_be_focused()
    page.get_by_role("button", name="Rank better").click()
    assert sitting.order() == moved(order, 2, 1)
    expect(page.locator("#viewer-said")).to_have_text("Map B moved to place 1 of 4")
    expect(page.get_by_role("button", name="Rank better")).to_be_disabled()
    press("ArrowRight")
    expect(page.locator("#viewer-title")).to_have_text("Map A, place 2 of 4")
    press("4")
    expect(page.locator("#viewer-title")).to_have_text("Map A, place 4 of 4")
    assert sitting.order() == moved(moved(order, 2, 1), 2, 4)
    press("Escape")
    expect(viewer).to_be_hidden()
    expect(sitting.card(4)).to_be_focused()
    sitting.card(1).click()
    expect(page.locator("#viewer-title")).to_have_text("Map B, place 1 of 4")


def test_a_picture_that_comes_late_is_not_shown_as_another(sit: Opening, study: Study) -> None:
    sitting = sit()
    late = study.item(1)["maps"][0]
    held: list[Route] = []
    sitting.page.route(f"**/pictures/{late}", lambda route: held.append(route))
    sitting.open()
    sitting.page.click("#plain-go")
    sitting.page.wait_for_function("() => document.querySelector('#deck li:nth-child(2) img')?.naturalWidth")
    sitting.card(1).click()
    expect(sitting.page.locator("#viewer-title")).to_have_text("Map A, place 1 of 4")
    large = sitting.page.locator("#viewer-map")
    for key, words, there in (
        ("ArrowRight", "Map B, place 2 of 4", True),
        ("ArrowLeft", "Map A, place 1 of 4", False),  # and not the other, which was there before
        ("ArrowRight", "Map B, place 2 of 4", True),
    ):
        sitting.page.keyboard.press(key)
        expect(sitting.page.locator("#viewer-title")).to_have_text(words)
        expect(large).to_be_visible(visible=there)
    for route in held:
        route.continue_()
    sitting.page.wait_for_function("() => document.querySelector('#deck li:nth-child(1) img').naturalWidth")
    assert large.get_attribute("src") == sitting.card(2).locator("img").get_attribute("src")


def test_an_order_that_nobody_touched_is_questioned_once(sitting: Sitting, study: Study) -> None:
    page = sitting.page
    page.dblclick("#next")
    expect(page.locator("#doubt")).to_contain_text("You have not moved any map")
    assert study.item(1)["revision"] == 0
    page.get_by_role("button", name="The order is right").click()
    sitting.wait_for_image(2)
    expect(page.get_by_role("button", name="Next")).to_be_visible()
    sitting.saved()
    first = study.item(1)
    assert (first["ranking"], first["done"]) == (first["maps"], True)


def test_what_was_confirmed_can_be_changed_and_wants_confirming_anew(sitting: Sitting, study: Study) -> None:
    page = sitting.page
    sitting.drag(1, 2)
    page.click("#next")
    sitting.wait_for_image(2)
    expect(page.locator("#overview-button")).to_have_text("1 of 3 done")
    page.click("#previous")
    sitting.wait_for_image(1)
    order = sitting.order()
    sitting.drag(1, 3)
    expect(page.locator("#overview-button")).to_have_text("0 of 3 done")
    sitting.saved()
    assert (study.item(1)["ranking"], study.item(1)["done"]) == (moved(order, 1, 3), False)
    page.click("#overview-button")
    overview = page.get_by_role("dialog", name="All images")
    expect(overview).to_contain_text(INSTRUCTION)
    images = overview.get_by_role("listitem").get_by_role("button").all()
    names = [image.get_attribute("aria-label") for image in images]
    assert names == ["Image 1, begun", "Image 2, to do", "Image 3, to do"]
    overview.get_by_role("button", name="Image 3, to do").click()
    sitting.wait_for_image(3)
    sitting.confirm()
    sitting.wait_for_image(1)  # what is left, from the beginning
    page.click("#next")
    sitting.wait_for_image(2)
    assert study.item(1)["done"]


def test_reload_goes_on_where_one_stopped(sitting: Sitting, study: Study) -> None:
    sitting.drag(4, 1)
    sitting.page.click("#next")
    sitting.wait_for_image(2)
    sitting.drag(3, 1)
    order = sitting.order()
    sitting.page.reload()  # before the moment has passed after which it is sent
    sitting.wait_for_image(2)
    assert sitting.order() == order
    sitting.saved()
    assert study.item(1)["done"]
    assert (study.item(2)["ranking"], study.item(2)["done"]) == (order, False)
    assert sitting.page.evaluate("localStorage.length") == 0  # all is taken


def test_an_order_is_kept_before_it_is_sent(sitting: Sitting) -> None:
    sent: list[str] = []
    sitting.page.on("request", lambda request: sent.append(request.method))
    kept = sitting.page.evaluate(
        """() => {
            const card = document.querySelector("#deck button");
            card.dispatchEvent(new KeyboardEvent("keydown", { key: "End", bubbles: true }));
            return JSON.parse(Object.values(localStorage)[0]);
        }"""
    )
    assert "PUT" not in sent
    assert (kept["ranking"], kept["revision"], kept["done"]) == (sitting.order(), 0, False)


def test_offline_and_back_loses_nothing(sitting: Sitting, study: Study) -> None:
    page = sitting.page
    sitting.page.wait_for_load_state("networkidle")  # the next image is fetched ahead
    page.context.set_offline(True)
    first = sitting.order()
    sitting.drag(4, 1)
    expect(page.locator("#state")).to_have_text("Not saved, trying again")
    page.click("#next")
    sitting.wait_for_image(2)
    second = sitting.order()
    sitting.drag(1, 2)
    expect(page.locator("#state")).to_have_text("Not saved, trying again")
    page.context.set_offline(False)
    sitting.saved()
    assert (study.item(1)["ranking"], study.item(1)["done"]) == (moved(first, 4, 1), True)
    assert (study.item(2)["ranking"], study.item(2)["done"]) == (moved(second, 1, 2), False)


def test_the_network_that_is_back_is_used_at_once(sitting: Sitting, study: Study) -> None:
    sitting.page.clock.install()
    sitting.page.context.set_offline(True)
    sitting.drag(4, 1)
    sitting.page.clock.pause_at(datetime.now() + timedelta(minutes=5))
    expect(sitting.page.locator("#state")).to_have_text("Not saved, trying again")
    sitting.page.context.set_offline(False)  # and no time passes
    sitting.saved()
    assert study.item(1)["ranking"] == sitting.order()


def test_what_a_closed_tab_could_not_send_is_sent_by_the_next(
    sitting: Sitting, sit: Opening, study: Study
) -> None:
    page = sitting.page
    page.context.set_offline(True)
    order = sitting.order()
    sitting.drag(4, 1)
    expect(page.locator("#state")).to_have_text("Not saved, trying again")
    page.close()
    sitting.page.context.set_offline(False)
    assert study.item(1)["revision"] == 0
    again = sit(context=page.context)
    again.open()
    again.wait_for_image(1)
    assert again.order() == moved(order, 4, 1)
    again.saved()
    assert study.item(1)["ranking"] == moved(order, 4, 1)


def test_an_answer_whose_receipt_was_lost_is_no_conflict(sitting: Sitting, study: Study) -> None:
    held: list[Route] = []

    def lose(route: Route) -> None:
        held.append(route)
        if len(held) == 1:
            route.fetch()  # it arrives, but the page never hears of it
            route.abort()
        else:
            route.continue_()

    sitting.page.route(PUT, lose)
    order = sitting.order()
    sitting.drag(1, 4)
    expect(sitting.page.locator("#state")).to_have_text("Not saved, trying again")
    assert study.item(1)["revision"] == 1
    sitting.drag(1, 2)
    sitting.saved()
    expect(sitting.page.locator("#alert")).to_be_empty()
    saved = study.item(1)
    assert (saved["ranking"], saved["revision"]) == (moved(moved(order, 1, 4), 1, 2), 2)


def test_a_receipt_lost_with_its_tab_is_no_conflict_either(
    sitting: Sitting, sit: Opening, study: Study
) -> None:
    def lose(route: Route) -> None:
        route.fetch()
        route.abort()

    page = sitting.page
    page.route(PUT, lose, times=1)
    order = sitting.order()
    with page.expect_event("requestfailed"):
        sitting.drag(1, 4)
    page.route(PUT, lambda route: route.abort())
    sitting.drag(1, 2)
    page.close()
    again = sit(context=page.context)
    again.open()
    again.wait_for_image(1)
    assert again.order() == moved(moved(order, 1, 4), 1, 2)
    again.saved()
    expect(again.page.locator("#alert")).to_be_empty()
    assert study.item(1)["ranking"] == again.order()


def test_of_two_windows_the_one_that_knew_less_takes_the_others_order(
    sitting: Sitting, sit: Opening, study: Study
) -> None:
    other = sit()
    other.begin()
    order = sitting.order()
    sitting.drag(4, 1)
    sitting.saved()
    other.drag(1, 3)
    expect(other.page.locator("#alert")).to_contain_text("ordered in another window meanwhile")
    assert other.order() == moved(order, 4, 1)
    assert study.item(1)["ranking"] == moved(order, 4, 1)
    other.drag(1, 2)
    expect(other.page.locator("#alert")).to_be_empty()
    other.saved()
    assert study.item(1)["ranking"] == moved(moved(order, 4, 1), 1, 2)


def test_two_subjects_at_one_computer_do_not_meet(sit: Opening, study: Study) -> None:
    study.tokens += study.store.invite(study.id, 1)
    first = sit()
    first.begin()
    first.page.route(PUT, lambda route: route.abort())
    first.drag(1, 2)
    expect(first.page.locator("#state")).to_have_text("Not saved, trying again")
    second = sit(subject=1, context=first.page.context)
    second.begin()
    assert second.order() == study.item(1, subject=1)["maps"]
    assert study.ask(subject=1)["done"] == 0


def test_the_service_comes_back(sit: Opening) -> None:
    sitting = sit()
    sitting.page.route("**/v1/studies/*", lambda route: route.abort(), times=1)
    sitting.page.goto(sitting.study.link())
    expect(sitting.page.locator("h1:visible")).to_have_text("The service cannot be reached")
    expect(sitting.page.locator("h1:visible")).to_have_text(TITLE)


@pytest.mark.parametrize("fragment", ["", "#", "#wrong"])
def test_a_wrong_link_is_told_in_words(sit: Opening, study: Study, fragment: str) -> None:
    sitting = sit()
    sitting.page.goto(study.link().partition("#")[0] + fragment)
    expect(sitting.page.locator("h1:visible")).to_have_text("This link does not work")


def test_a_study_that_closes_says_so(sitting: Sitting, study: Study) -> None:
    study.store.close(study.id)
    sitting.drag(1, 2)
    heading = sitting.page.locator("h1:visible")
    expect(heading).to_have_text("This study is closed")
    sitting.page.reload()
    expect(heading).to_have_text("This study is closed")
    study.store.close(study.id, closed=False)
    sitting.page.reload()
    expect(sitting.page.locator("#work")).to_be_visible()


def test_who_finished_is_thanked_again(sit: Opening, study: Study) -> None:
    one = make_study(study.store, study.address, images=1)
    sitting = sit(one)
    sitting.begin()
    late = sit(one)
    late.begin()
    sitting.confirm()
    expect(sitting.page.locator("h1:visible")).to_have_text("The image is ordered")
    sitting.page.click("#plain-go")
    expect(sitting.page.locator("h1:visible")).to_have_text("Thank you")
    sitting.page.reload()
    expect(sitting.page.locator("h1:visible")).to_have_text("Thank you")
    late.drag(1, 2)
    expect(late.page.locator("h1:visible")).to_have_text("Thank you")
    assert one.item(1)["ranking"] == one.item(1)["maps"]


def test_what_another_window_opened_again_is_not_sent(sit: Opening, study: Study) -> None:
    one = make_study(study.store, study.address, images=1)
    sitting, other = sit(one), sit(one)
    sitting.begin()
    sitting.confirm()
    expect(sitting.page.locator("h1:visible")).to_have_text("The image is ordered")
    sitting.saved_silently()
    other.open()
    other.page.get_by_role("button", name="Look at them again").click()
    other.page.get_by_role("button", name="Image 1, ordered").click()
    other.wait_for_image(1)
    other.drag(1, 2)
    other.saved()
    with sitting.page.expect_navigation():
        sitting.page.click("#plain-go")
    sitting.wait_for_image(1)
    assert sitting.order() == other.order()
    assert not one.ask()["finished"]


def test_the_token_stays_in_the_fragment(sitting: Sitting, study: Study) -> None:
    page, token = sitting.page, study.tokens[0]
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    page.context.set_offline(True)
    sitting.drag(1, 2)
    expect(page.locator("#state")).to_have_text("Not saved, trying again")
    kept = page.evaluate("JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie])")
    assert token not in kept
    page.context.set_offline(False)
    sitting.saved()
    page.locator("#skip").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    assert page.url == study.link()  # a bookmark finds the way back
    assert urls
    assert not any(token in url.partition("#")[0] for url in urls)


def test_no_answer_names_what_is_compared(sit: Opening, study: Study) -> None:
    blind = make_study(study.store, study.address, images=2, maps=10)
    sitting = sit(blind)
    sent: list[tuple[str, bytes]] = []

    def keep(route: Route) -> None:
        response = route.fetch()
        head = "\n".join(f"{name}: {value}" for name, value in response.headers.items())
        sent.append((route.request.url, head.encode() + b"\n\n" + response.body()))
        route.fulfill(response=response)

    sitting.page.route("**/*", keep)
    sitting.begin()
    sitting.drag(10, 1)
    sitting.card(1).click()
    sitting.page.keyboard.press("Escape")
    sitting.page.click("#next")
    sitting.wait_for_image(2)
    sitting.confirm()
    sitting.page.click("#plain-go")
    expect(sitting.page.locator("h1:visible")).to_have_text("Thank you")
    assert sum("/pictures/" in url for url, _ in sent) == 2 * 11
    assert any(url.endswith("/finish") for url, _ in sent)
    words = {word for entry in ENTRIES for word in (entry.model, entry.method, entry.digest, entry.name)}
    files = {shown.name for shown in blind.store.answers(blind.id).items}
    for secret in {*words, *files, "sha256:"}:
        told = [url for url, answer in sent if secret.lower().encode() in answer.lower()]
        assert told == [], secret


@pytest.mark.parametrize(("motion", "moving"), [("reduce", False), ("no-preference", True)])
def test_cards_slide_unless_motion_is_unwelcome(sit: Opening, motion: str, moving: bool) -> None:
    sitting = sit(reduced_motion=motion)
    sitting.begin()
    sitting.page.evaluate(
        """() => document.querySelector("#deck").addEventListener("keydown",
            () => { window.sliding = document.getAnimations().length; })"""
    )
    sitting.card(1).press("End")
    assert (sitting.page.evaluate("sliding") > 0) is moving
