"""Every explanation a model can give, from the page: in words to choose from, and as pictures or words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from playwright.sync_api import expect

from konkyo import perturbation
from konkyo.models import explain

from .look import DESCRIBE, GCM, HELMET, IMAGENET, SHUTTLE, Visit, brightness, difference, field_of, warmth
from .test_access import SCHEMES, violations


def test_what_the_model_can_do_is_listed_in_words(visit: Visit) -> None:
    visit.use(IMAGENET)
    methods = visit.page.request.get(f"{visit.server}/v1/models/{IMAGENET}").json()["methods"]
    options = visit.page.locator("#method option")
    listed = {option["value"]: option["text"] for option in options.evaluate_all(
        "options => options.map(({ value, text }) => ({ value, text }))"
    )}  # fmt: skip
    assert listed.keys() == {method["name"] for method in methods}
    assert next(iter(listed)) == methods[0]["name"] == visit.page.input_value("#method")
    for method in methods:
        title, _, words = listed[method["name"]].partition(": ")
        assert title != method["name"], "in plain words"
        assert words
        assert words.endswith("(takes a while)") == method["long"]


def test_the_page_knows_every_method_by_a_title(visit: Visit) -> None:
    names = [*explain.methods(), *perturbation.methods()]
    told = visit.page.evaluate(
        """async (names) => {
            const { methodTitle, methodWords } = await import("/static/methods.js");
            return names.map((name) => [methodTitle({ name }), methodWords({ name, map_kind: "none" })]);
        }""",
        names,
    )
    for name, (title, words) in zip(names, told, strict=True):
        assert title != name
        assert words != "None."


def test_what_cannot_be_had_is_not_offered_and_what_is_new_goes_by_its_name(visit: Visit) -> None:
    def patch(description: dict[str, Any]) -> None:
        own = description["methods"][0]
        newer = {"name": "newer", "default": False, "map_kind": "input_gradient"}
        description["methods"] = [own, own | newer]

    visit.change(patch, DESCRIBE)
    visit.open()
    expect(visit.page.locator("#method option")).to_have_text(
        ["Class weight map: what each pixel adds", "newer: fine detail"]
    )


def test_another_method_is_another_map_on_the_same_object(visit: Visit) -> None:
    visit.astronaut()
    coarse = visit.view(opacity=100)
    assert warmth(coarse, HELMET) > 50
    assert warmth(coarse, HELMET) > warmth(coarse, SHUTTLE) + 30
    answer = visit.method("guided-gradcam")
    assert answer["explanation"]["method"] == "guided-gradcam"
    expect(visit.page.locator("input[value=spotlight]")).to_be_checked()  # as fine as the image
    expect(visit.page.locator("#method-words")).to_contain_text("Grad-CAM")
    assert brightness(visit.canvas(), HELMET) > 5 * brightness(visit.canvas(), SHUTTLE)

    visit.page.locator("input[value=overlay]").check()
    kept = visit.sample("coffee.jpg")
    assert kept["explanation"]["method"] == "guided-gradcam"
    expect(visit.page.locator("input[value=overlay]")).to_be_checked()  # the person's own choice
    other = visit.answer_to(lambda: visit.use(GCM))
    assert other["explanation"]["method"] == "guided-gradcam"


def test_another_model_is_asked_by_its_own_method_where_none_was_chosen(visit: Visit) -> None:
    assert visit.astronaut()["explanation"]["method"] == "gradcam"
    answer = visit.answer_to(lambda: visit.use(GCM))  # which could give Grad-CAM as well
    assert answer["explanation"]["method"] == "gcm"
    expect(visit.page.locator("#method")).to_have_value("gcm")


def test_a_counterfactual_shows_what_is_against_in_its_colour(visit: Visit) -> None:
    visit.astronaut()
    answer = visit.method("counterfactual")
    page = visit.page
    assert page.locator("#part-line label:visible").all_text_contents() == [" against", " for", " both"]
    expect(page.locator("input[name=part][value=positive]")).to_be_checked()
    expect(page.locator("#legend-high")).to_contain_text("against")
    expect(page.get_by_role("img", name="what speaks against football helmet")).to_be_visible()
    for part, cool in (("positive", 1), ("negative", -1)):
        picture = visit.view("overlay", part, 100).astype(np.int16)
        field = cool * field_of(answer, picture.shape[1::-1])
        strong = field > 0.6 * np.nanmax(field)
        warm = picture[..., 0] - picture[..., 2]
        assert (cool * warm[strong] < 0).all()
    visit.method("gradcam")
    expect(page.locator("input[name=part][value=both]")).to_be_checked()
    expect(page.locator("#legend-high")).to_contain_text("for")


def test_words_instead_of_a_map(visit: Visit) -> None:
    visit.astronaut()
    page = visit.page
    plain = visit.view("overlay", opacity=0)
    answer = visit.method("text")
    text = answer["explanation"]["text"]
    lists = page.locator("#texts ol")
    for index, side in enumerate(("because", "despite")):
        names = [unit["name"] or f"neuron {unit['neuron']}" for unit in text[side]]
        expect(lists.nth(index).locator(".class")).to_have_text(names)
    assert difference(visit.canvas(), plain) < 2
    for selector in ("#tools", "#legend", "#scale-line", "#save-png"):
        expect(page.locator(selector)).to_be_hidden()
    visit.method("gradcam")
    expect(page.locator("#text-part")).to_be_hidden()
    expect(page.locator("#tools")).to_be_visible()


@pytest.mark.parametrize("visit", SCHEMES, indirect=True)
def test_axe_finds_nothing_serious_in_words(visit: Visit) -> None:
    visit.astronaut()
    visit.method("text")
    assert violations(visit) == []
