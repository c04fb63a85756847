"""The page at work: images in, answers and pictures out."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Route, expect

import konkyo.service

from .look import DESCRIBE, EXPLAIN, Visit, difference, field_of, image_file

SAMPLES = Path(konkyo.service.__file__).parent / "web" / "samples"
CAT = SAMPLES / "chelsea.jpg"
SEND = """([how, data, name, type]) => {
    const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name, { type }));
    const options = { bubbles: true, cancelable: true, dataTransfer: transfer, clipboardData: transfer };
    const Event = how === "drop" ? DragEvent : ClipboardEvent;
    document.body.dispatchEvent(new Event(how, options));
}"""


def test_a_sample_is_answered(visit: Visit) -> None:
    answer = visit.sample("chelsea.jpg")
    page = visit.page
    expect(page.locator("#score")).to_contain_text("%")
    expect(page.locator("#status")).to_contain_text(answer["label"])
    expect(page.locator("#timing")).to_contain_text("in all")
    assert page.locator("#bars .class").all_text_contents() == [entry["label"] for entry in answer["top_k"]]
    expect(page.locator("#bars [aria-pressed=true] .class")).to_have_text(answer["label"])
    picture = visit.canvas()
    assert picture.std() > 5
    assert picture.shape[1] / picture.shape[0] == pytest.approx(451 / 300, rel=0.01)


def test_every_sample_is_listed_with_its_credit() -> None:
    samples = json.loads((SAMPLES / "samples.json").read_text())["samples"]
    readme = (SAMPLES / "README.md").read_text()
    images = {file.name for file in SAMPLES.iterdir() if file.suffix in (".jpg", ".png")}
    assert {sample["file"] for sample in samples} == images
    for sample in samples:
        assert f"| `{sample['file']}` | {sample['credit']} | {sample['licence']} |" in readme
    assert sum(file.stat().st_size for file in SAMPLES.iterdir()) < 600_000


def test_views_and_parts_differ_and_nothing_is_left_at_strength_0(visit: Visit) -> None:
    visit.sample("chelsea.jpg")
    pictures = [
        visit.view("spotlight", "positive"),
        visit.view("spotlight", "negative"),
        visit.view("overlay", "both"),
        visit.view("overlay", "positive"),
        visit.view("overlay", "negative"),
    ]
    for index, picture in enumerate(pictures):
        for other in pictures[:index]:
            assert difference(picture, other) > 0.05
    plain = np.asarray(Image.open(CAT).resize(pictures[0].shape[1::-1], Image.Resampling.BICUBIC))
    for view in ("spotlight", "overlay"):
        assert difference(visit.view(view, opacity=0), plain) < 2


def test_the_spotlight_is_the_product_of_map_and_image(visit: Visit) -> None:
    answer = visit.sample("chelsea.jpg")
    lit, dark = visit.view("spotlight", "positive"), visit.view("spotlight", "negative")
    plain = visit.view("spotlight", opacity=0).astype(np.float32)
    field = np.nan_to_num(field_of(answer, plain.shape[1::-1]))
    bright = np.quantile(np.abs(field * plain.max(axis=2)), 0.995)  # the service's own scale
    for picture, weights in ((lit, np.maximum(field, 0)), (dark, np.maximum(-field, 0))):
        expected = np.clip(plain * weights[..., None] * (255 / bright), 0, 255).astype(np.uint8)
        # The scale is found on a fifth of the pixels, and on those the network saw.
        assert difference(picture, expected) < 6
        assert np.corrcoef(picture.ravel(), expected.ravel())[0, 1] > 0.99


def test_warm_is_for_and_cool_is_against(visit: Visit) -> None:
    answer = visit.sample("chelsea.jpg")
    picture = visit.view("overlay", "both", 100).astype(np.int16)
    field = field_of(answer, picture.shape[1::-1])
    strong = 0.3 * np.nanmax(np.abs(field))
    warmth = picture[..., 0] - picture[..., 2]
    assert (warmth[field > strong] > 0).all()
    assert (warmth[field < -strong] < 0).all()


def test_another_class_is_another_map(visit: Visit) -> None:
    answer = visit.sample("chelsea.jpg")
    before = visit.canvas()
    other = answer["top_k"][1]["label"]
    second = visit.answer_to(lambda: visit.page.locator(f'#bars [data-label="{other}"]').press("Enter"))
    assert second["explanation"]["target"]["label"] == other
    expect(visit.page.locator("#target-name")).to_have_text(other)
    expect(visit.page.locator("#label")).to_have_text(answer["label"])
    expect(visit.page.locator("#target")).to_have_value(other)
    expect(visit.page.locator("#bars [aria-pressed=true] .class")).to_have_text(other)
    expect(visit.page.locator(f'#bars [data-label="{other}"]')).to_be_focused()
    assert difference(visit.canvas(), before) > 0.5

    third = answer["top_k"][2]["label"]
    visit.answer_to(lambda: visit.type_class("#target", third))
    expect(visit.page.locator("#target-name")).to_have_text(third)


def test_regions_are_drawn_and_told(visit: Visit) -> None:
    answer = visit.sample("chelsea.jpg")
    before = visit.canvas()
    visit.page.locator("#regions").check()
    assert difference(visit.canvas(), before) > 0
    expect(visit.page.locator("#region-lists li")).to_have_count(len(answer["explanation"]["regions"]))
    expect(visit.page.locator("#region-lists")).to_contain_text("peak at")


def test_the_scale_can_be_the_models(visit: Visit) -> None:
    visit.sample("chelsea.jpg")
    before, legend = visit.canvas(), visit.page.locator("#legend-high").text_content()
    visit.page.locator("input[name=scale][value=model]").check()
    assert difference(visit.canvas(), before) > 0
    expect(visit.page.locator("#legend-high")).not_to_have_text(legend or "")


def test_upload(visit: Visit) -> None:
    visit.answer_to(lambda: visit.page.set_input_files("#file", CAT))
    assert visit.canvas().std() > 5
    expect(visit.page.locator("#credit")).to_have_text("chelsea.jpg")


@pytest.mark.parametrize("how", ["paste", "drop"])
def test_paste_and_drop(visit: Visit, how: str) -> None:
    data = base64.b64encode(CAT.read_bytes()).decode()
    visit.answer_to(lambda: visit.page.evaluate(SEND, [how, data, "cat.jpg", "image/jpeg"]))
    assert visit.canvas().std() > 5


@pytest.mark.parametrize("kind", ["text/plain", "image/png"])
def test_what_is_no_image_is_refused_in_words(visit: Visit, kind: str) -> None:
    visit.sample("chelsea.jpg")
    with visit.page.expect_response(EXPLAIN):
        visit.page.set_input_files("#file", {"name": "notes", "mimeType": kind, "buffer": b"no image"})
    expect(visit.page.locator("#alert")).not_to_be_empty()
    message = visit.page.evaluate("answers.at(-1).error.message")
    expect(visit.page.locator("#alert")).to_have_text(message)
    expect(visit.page.locator("#answer")).to_be_hidden()
    assert all(" 415 " in complaint for complaint in visit.complaints)  # Chromium notes them
    visit.complaints.clear()
    visit.sample("cifar10-ship.png")
    expect(visit.page.locator("#alert")).to_be_empty()


def test_an_image_stored_on_its_side_is_shown_upright(visit: Visit) -> None:
    upright = Image.new("RGB", (200, 300), (40, 160, 60))
    upright.paste((200, 30, 30), (0, 0, 200, 150))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned: the viewer turns it by 90 degrees clockwise
    stored = image_file(upright.transpose(Image.Transpose.ROTATE_90), "jpeg", exif=exif.tobytes())
    file = {"name": "side.jpg", "mimeType": "image/jpeg", "buffer": stored}
    answer = visit.answer_to(lambda: visit.page.set_input_files("#file", file))
    assert answer["geometry"]["original"] == [200, 300]
    assert answer["geometry"]["orientation"] == 6
    picture = visit.view("spotlight", opacity=0)
    height, width = picture.shape[:2]
    assert (width, height) == (512, 768)
    assert difference(picture[height // 4, width // 2], np.uint8([200, 30, 30])) < 8
    assert difference(picture[3 * height // 4, width // 2], np.uint8([40, 160, 60])) < 8


@pytest.mark.parametrize("kind", ["tiff", "webp", "bmp"])
def test_every_format_the_service_reads_is_shown(visit: Visit, kind: str) -> None:
    image = Image.open(CAT)
    file = {"name": f"cat.{kind}", "mimeType": f"image/{kind}", "buffer": image_file(image, kind)}
    visit.answer_to(lambda: visit.page.set_input_files("#file", file))
    picture = visit.view("spotlight", opacity=0)
    plain = np.asarray(image.resize(picture.shape[1::-1], Image.Resampling.BICUBIC))
    assert difference(picture, plain) < 4


def test_the_newest_image_wins(visit: Visit) -> None:
    held: list[Route] = []

    def hold_the_first(route: Route) -> None:
        if held:
            route.continue_()
        else:
            held.append(route)

    visit.page.route(EXPLAIN, hold_the_first)
    with visit.page.expect_request(EXPLAIN):
        visit.page.click('[data-sample="chelsea.jpg"]')
    with visit.page.expect_event("requestfailed", lambda request: bool(EXPLAIN.search(request.url))):
        answer = visit.sample("cifar10-ship.png")
    expect(visit.page.locator("#label")).to_have_text(answer["label"])
    expect(visit.page.locator("#alert")).to_be_empty()
    assert visit.canvas().shape[:2] == (768, 768)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("flat", "the same everywhere"),
        ("all_negative", "negative throughout"),
        ("non_finite", "not numbers"),
        ("shed", "busy"),
    ],
)
def test_a_map_that_shows_nothing_says_why(visit: Visit, status: str, words: str) -> None:
    def patch(answer: dict[str, Any]) -> None:
        answer["explanation"]["status"] = status
        if status == "shed":
            answer["explanation"] |= {"map": None, "regions": None, "overlay": None}
        elif status == "non_finite":
            answer["explanation"]["map"] |= {"min": None, "max": None}

    visit.change(patch)
    visit.sample("chelsea.jpg")
    expect(visit.page.locator("#words")).to_contain_text(words)
    expect(visit.page.locator("#status")).to_contain_text(words)
    if status in ("shed", "non_finite"):
        expect(visit.page.locator("#legend")).to_be_hidden()


def test_a_map_that_is_one_for_all_classes_offers_no_choice(visit: Visit) -> None:
    def patch(description: dict[str, Any]) -> None:
        description["card"]["explanation"]["class_specific"] = False
        description["methods"][0]["class_specific"] = False

    visit.change(patch, DESCRIBE)
    visit.open()
    visit.sample("chelsea.jpg")
    expect(visit.page.locator("#target")).to_be_hidden()
    expect(visit.page.locator("#bars button")).to_have_count(0)
    expect(visit.page.locator("#bars li")).not_to_have_count(0)
    expect(visit.page.locator("#target-words")).to_contain_text("one for all classes")


def test_errors_of_the_service_are_told(visit: Visit) -> None:
    body = {"error": {"code": "queue_full", "message": "as many requests wait as may", "detail": {}}}
    visit.page.route(EXPLAIN, lambda route: route.fulfill(status=429, json=body))
    visit.page.click('[data-sample="chelsea.jpg"]')
    expect(visit.page.locator("#alert")).to_have_text("as many requests wait as may")
    visit.page.unroute(EXPLAIN)
    visit.page.route(EXPLAIN, lambda route: route.abort())
    visit.page.click('[data-sample="chelsea.jpg"]')
    expect(visit.page.locator("#alert")).to_contain_text("cannot be reached")
    visit.page.unroute(EXPLAIN)
    visit.sample("chelsea.jpg")
    expect(visit.page.locator("#alert")).to_be_empty()
    assert all("Failed to load resource" in complaint for complaint in visit.complaints)
    visit.complaints.clear()


def test_downloads(visit: Visit) -> None:
    answer = visit.sample("chelsea.jpg")
    picture = visit.canvas()
    with visit.page.expect_download() as download:
        visit.page.click("#save-png")
    assert download.value.suggested_filename == f"konkyo-chelsea-{answer['label']}.png"
    saved = Image.open(io.BytesIO(Path(download.value.path()).read_bytes()))
    assert saved.format == "PNG"
    assert difference(np.asarray(saved.convert("RGB")), picture) == 0
    with visit.page.expect_download() as download:
        visit.page.click("#save-json")
    assert json.loads(Path(download.value.path()).read_text()) == answer
