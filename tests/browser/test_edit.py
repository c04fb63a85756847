"""The attention map in a person's hand: painted on the picture, asked again, before beside after."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from playwright.sync_api import expect

from .look import CROP, EXPLAIN, GCM, IMAGENET, SQUASH, Visit, image_file
from .test_access import NARROW, SCHEMES, violations

Cells = npt.NDArray[np.float32]

TALL, WIDE = (60, 90), (120, 40)
"""Neither has the shape of the input; the crop model sees the middle of each."""


def picture(size: tuple[int, int]) -> bytes:
    """A file with light and shade, so that no map of it is flat."""
    noise = np.random.default_rng(0).integers(0, 256, (size[1] // 10, size[0] // 10, 3), np.uint8)
    return image_file(Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC))


class Painter:
    """A visit with an image, its map ready to edit; ``plain`` is the answer without an edit."""

    def __init__(self, visit: Visit, model: str = SQUASH, size: tuple[int, int] = TALL) -> None:
        self.visit, self.page = visit, visit.page
        self.image = picture(size)
        visit.use(model)
        file = {"name": "picture.png", "mimeType": "image/png", "buffer": self.image}
        self.plain = visit.answer_to(lambda: self.page.set_input_files("#file", file))
        self.width, self.height = self.plain["geometry"]["map"]
        self.page.locator("input[value=edit]").check()
        self.tool("Brush")

    def tool(self, name: str, size: int = 1) -> None:
        self.page.get_by_role("radio", name=name, exact=True).check()
        self.page.locator("#size").fill(str(size))

    def at(self, cell: tuple[float, float]) -> tuple[float, float]:
        """Where a place on the grid lies in the window, by the answer's geometry and the canvas alone."""
        a, _, c, _, e, f = self.plain["geometry"]["map_to_original"]
        width, height = self.plain["geometry"]["original"]
        box = self.page.locator("#canvas").bounding_box()
        assert box is not None
        x, y = (a * cell[0] + c) / width, (e * cell[1] + f) / height
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    def edit(self, *boxes: tuple[int, int, int, int]) -> Cells:
        """1 in boxes of cells, given as left, top, right, bottom, and the network's own value elsewhere."""
        cells = np.full((self.height, self.width), -1, np.float32)
        for left, top, right, bottom in boxes:
            cells[top:bottom, left:right] = 1
        return cells

    def stroke(self, *cells: tuple[int, int]) -> None:
        """Press on the middle of the first cell, go through the others, let go."""
        points = [self.at((x + 0.5, y + 0.5)) for x, y in cells]
        self.page.mouse.move(*points[0])
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*point)
        self.page.mouse.up()

    def again(self) -> tuple[dict[str, Any], Cells]:
        """Ask again; returns the answer, and the attention that was sent."""
        answer = self.visit.answer_to(lambda: self.page.click("#again"))
        return answer, self.sent()

    def sent(self) -> Cells:
        """The attention in the last form; the image beside it is the file as it was given."""
        parts = self.visit.form()
        assert parts["image"] == self.image
        return np.float32(json.loads(parts["attention"]))


def used(answer: dict[str, Any], scale: int = 0) -> Cells:
    """The attention an answer was made with."""
    explanation = answer["explanation"]
    spec = explanation.get("maps", [explanation])[scale]["map"]
    return np.frombuffer(base64.b64decode(spec["data"]), "<f4").reshape(spec["height"], spec["width"])


def test_the_pointer_paints_what_is_sent_and_the_network_uses_it(visit: Visit) -> None:
    painter = Painter(visit)
    painter.stroke((2, 3), (7, 3))
    painter.tool("Eraser", 3)
    painter.stroke((20, 12))
    answer, sent = painter.again()
    expected = painter.edit((2, 3, 8, 4))
    expected[11:14, 19:22] = 0
    np.testing.assert_array_equal(sent, expected)
    own = used(painter.plain)
    np.testing.assert_allclose(used(answer), np.where(expected < 0, own, expected), atol=1e-6)


@pytest.mark.parametrize("model", [SQUASH, CROP])
@pytest.mark.parametrize("size", [TALL, WIDE], ids=["tall", "wide"])
@pytest.mark.parametrize("corner", ["first", "inside", "last"])
def test_paint_lands_where_the_pointer_is(
    visit: Visit, model: str, size: tuple[int, int], corner: str
) -> None:
    painter = Painter(visit, model, size)
    last = painter.width - 1, painter.height - 1
    cell = {"first": (0, 0), "inside": (5, 11), "last": last}[corner]
    before = visit.canvas()
    painter.stroke(cell)

    # On the picture: what changed is the cell, and half the width of its frame around it.
    changed = np.argwhere((visit.canvas() != before).any(axis=2))
    (top, left), (bottom, right) = changed.min(axis=0), changed.max(axis=0) + 1
    a, _, c, _, e, f = painter.plain["geometry"]["map_to_original"]
    across, down = before.shape[1] / size[0], before.shape[0] / size[1]
    expected = [
        (a * cell[0] + c) * across,
        (e * cell[1] + f) * down,
        (a * (cell[0] + 1) + c) * across,
        (e * (cell[1] + 1) + f) * down,
    ]
    np.testing.assert_allclose([left, top, right, bottom], expected, atol=5)

    _, sent = painter.again()
    np.testing.assert_array_equal(sent, painter.edit((*cell, cell[0] + 1, cell[1] + 1)))


def test_the_keyboard_paints_and_is_told_so(visit: Visit) -> None:
    painter = Painter(visit)
    page, told = visit.page, visit.page.get_by_role("status").and_(visit.page.locator("#cell"))
    page.locator("#cells").focus()
    own = used(painter.plain)
    page.keyboard.press("Home")
    page.keyboard.press("PageUp")
    page.keyboard.press("ArrowLeft")  # there is no further
    expect(told).to_have_text(f"Column 1, row 1: {float(own[0, 0]):.3g}")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    expect(told).to_have_text(f"Column 2, row 2: painted 1, was {float(own[1, 1]):.3g}")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("End")
    page.keyboard.press("PageDown")
    page.keyboard.press("Enter")
    expect(told).to_contain_text(f"Column {painter.width}, row {painter.height}: painted 1")
    page.locator("#again").focus()
    visit.answer_to(lambda: page.keyboard.press("Enter"))
    expect(page.locator("#again")).to_be_focused()
    last = (painter.width - 1, painter.height - 1, painter.width, painter.height)
    np.testing.assert_array_equal(painter.sent(), painter.edit((1, 1, 4, 2), last))


@pytest.mark.parametrize("visit", [pytest.param({"has_touch": True}, id="touch")], indirect=True)
def test_a_finger_paints(visit: Visit) -> None:
    painter = Painter(visit)
    visit.page.touchscreen.tap(*painter.at((4.5, 5.5)))
    _, sent = painter.again()
    np.testing.assert_array_equal(sent, painter.edit((4, 5, 5, 6)))


def test_undo_goes_back_stroke_by_stroke(visit: Visit) -> None:
    painter = Painter(visit)
    pictures = [visit.canvas()]
    for cells in (((2, 2), (9, 2)), ((3, 8),), ((3, 8), (3, 12))):
        painter.stroke(*cells)
        pictures.append(visit.canvas())
    visit.page.click("#undo")
    np.testing.assert_array_equal(visit.canvas(), pictures[2])
    visit.page.locator("#cells").focus()
    visit.page.keyboard.press("Control+z")
    np.testing.assert_array_equal(visit.canvas(), pictures[1])
    _, sent = painter.again()
    np.testing.assert_array_equal(sent, painter.edit((2, 2, 10, 3)))
    visit.page.click("#undo")
    np.testing.assert_array_equal(visit.canvas(), pictures[0])
    expect(visit.page.locator("#undo")).to_have_attribute("aria-disabled", "true")
    expect(visit.page.locator("#undo")).to_be_focused()


def test_reset_gives_back_the_answer_without_an_edit_and_can_be_undone(visit: Visit) -> None:
    painter = Painter(visit)
    painter.tool("Brush", 9)
    painter.stroke((4, 4), (20, 12))
    painter.again()
    expect(visit.page.locator("#target-words")).to_contain_text("With your edit")
    asked = len(visit.urls)
    visit.page.click("#reset")
    expect(visit.page.locator("#target-words")).to_contain_text("one for all classes")
    expect(visit.page.locator("#score")).to_have_text(percent(painter.plain))
    expect(visit.page.locator("#after .value")).to_be_empty()
    expect(visit.page.locator("#again")).to_have_attribute("aria-disabled", "true")
    visit.page.locator("#again").dispatch_event("click")  # click() would wait until it is enabled
    assert not any(EXPLAIN.search(url) for url in visit.urls[asked:])
    visit.page.click("#undo")
    _, sent = painter.again()
    assert (sent == 1).sum() > 81


def test_own_value_takes_paint_away(visit: Visit) -> None:
    painter = Painter(visit)
    painter.tool("Brush", 5)
    painter.stroke((10, 8))
    painter.tool("Own value", 3)
    painter.stroke((10, 8))
    _, sent = painter.again()
    expected = painter.edit((8, 6, 13, 11))
    expected[7:10, 9:12] = -1
    np.testing.assert_array_equal(sent, expected)


def percent(answer: dict[str, Any]) -> str:
    """The score as the page writes it."""
    share = answer["score"]
    if 0 < share < 0.0005:
        return "< 0.1 %"
    return "> 99.9 %" if 0.9995 <= share < 1 else f"{100 * share:.1f} %"


def test_before_and_after_stand_side_by_side(visit: Visit) -> None:
    painter = Painter(visit)
    page = visit.page
    painter.tool("Eraser", 9)
    painter.stroke((4, 4), (20, 4), (4, 12), (20, 12))
    expect(page.locator("#compare-hint")).to_contain_text("Ask again")
    answer, _ = painter.again()
    assert answer["original"]["score"] == pytest.approx(painter.plain["score"], rel=1e-4)
    assert answer["score"] != answer["original"]["score"]
    for side, part in (("before", answer["original"]), ("after", answer)):
        shown = page.get_by_role("region", name=side.capitalize(), exact=True)
        expect(shown.locator(".verdict")).to_have_text(f"{part['label']} {percent(part)}")
        rows = shown.get_by_role("list", name=f"Scores {side}").get_by_role("listitem")
        expect(rows).to_have_text([f"{entry['label']}{percent(entry)}" for entry in part["top_k"]])
        expect(shown.get_by_role("img", name=f"Attention {side}")).to_be_visible()
    expect(page.locator("#label")).to_have_text(answer["label"])
    expect(page.locator("#cell")).to_contain_text(f"Before: {answer['original']['label']}")
    left, right = (page.locator(side).bounding_box() for side in ("#before", "#after"))
    assert left is not None
    assert right is not None
    assert (left["y"], left["width"]) == (right["y"], right["width"])
    assert left["x"] + left["width"] < right["x"]

    # The maps show what each answer says: darker means less attention.
    pictures = [visit.canvas(f"#{side} canvas").astype(int) for side in ("before", "after")]
    warmth = [(picture[..., 0] - picture[..., 2]).mean() for picture in pictures]
    assert warmth[1] < warmth[0]

    painter.tool("Brush")
    painter.stroke((12, 8))
    expect(page.locator("#compare-hint")).to_contain_text("Ask again")


def test_another_view_shows_the_attention_that_was_used(visit: Visit) -> None:
    painter = Painter(visit)
    before = visit.view("overlay")
    visit.page.locator("input[value=edit]").check()
    painter.tool("Brush", 5)
    painter.stroke((12, 8))
    painter.again()
    after = visit.view("overlay")
    height, width = after.shape[:2]
    a, _, c, _, e, f = painter.plain["geometry"]["map_to_original"]
    x, y = (a * 12.5 + c) / TALL[0] * width, (e * 8.5 + f) / TALL[1] * height
    warmth = [int(pixels[int(y), int(x), 0]) - int(pixels[int(y), int(x), 2]) for pixels in (before, after)]
    assert warmth[1] > warmth[0]
    expect(visit.page.locator("#compare")).to_be_visible()


def test_every_scale_is_shown_and_an_edit_goes_into_each(visit: Visit) -> None:
    painter = Painter(visit, CROP)
    page = visit.page
    levels = page.get_by_role("list", name="Levels of attention").get_by_role("button")
    expect(levels).to_have_text(["Fine", "Middle", "Coarse"])
    page.locator("input[value=overlay]").check()
    fine = visit.canvas()
    levels.nth(2).click()
    expect(levels.nth(2)).to_have_attribute("aria-pressed", "true")
    expect(levels.nth(2)).to_be_focused()
    assert (visit.canvas() != fine).any()

    page.locator("input[value=edit]").check()
    painter.tool("Brush", 3)
    painter.stroke((6, 6))
    answer, sent = painter.again()
    np.testing.assert_array_equal(sent, painter.edit((5, 5, 8, 8)))
    assert [entry["scale"] for entry in answer["explanation"]["maps"]] == [0, 1, 2]
    np.testing.assert_allclose(used(answer)[5:8, 5:8], 1, atol=1e-6)
    for scale in (1, 2):  # a coarse map takes the edit as far as it can
        assert (used(answer, scale) > used(answer["original"], scale))[5:8, 5:8].all()
    expect(page.locator("#before canvas")).to_have_count(3)
    expect(page.get_by_role("img", name="Attention after, coarse")).to_be_visible()


def test_nothing_of_it_is_offered_where_the_map_cannot_be_edited(visit: Visit) -> None:
    painter = Painter(visit)
    painter.stroke((3, 3))
    answer = visit.answer_to(lambda: visit.use(GCM))
    page = visit.page
    assert answer["model"]["name"] == GCM
    for selector in ("#view-edit", "#brush", "#cells", "#compare", "#levels-part"):
        expect(page.locator(selector)).to_be_hidden()
    expect(page.locator("input[name=view][value=spotlight]")).to_be_checked()
    for selector in ("#part-line", "#target", "#bars", "#bars-hint"):
        expect(page.locator(selector)).to_be_visible()


def test_a_map_for_all_classes_has_no_class_to_choose(visit: Visit) -> None:
    visit.sample("chelsea.jpg")
    visit.answer_to(lambda: visit.type_class("#target", "dog"))
    answer = visit.answer_to(lambda: visit.use(SQUASH))  # a target would be refused
    assert answer["explanation"]["target"] is None
    for selector in ("#target", "#part-line", "#bars-hint"):
        expect(visit.page.locator(selector)).to_be_hidden()
    expect(visit.page.get_by_role("img", name="where the network looks")).to_be_visible()
    expect(visit.page.locator("#legend-high")).not_to_contain_text("for")


def test_a_refused_edit_is_told_and_kept(visit: Visit) -> None:
    painter = Painter(visit)
    painter.stroke((3, 3))
    body = {"error": {"code": "invalid_parameter", "message": "attention: a cell is above 1", "detail": {}}}
    visit.page.route(EXPLAIN, lambda route: route.fulfill(status=422, json=body))
    visit.page.click("#again")
    expect(visit.page.get_by_role("alert")).to_have_text("attention: a cell is above 1")
    expect(visit.page.locator("#after .value")).to_be_empty()
    visit.page.unroute(EXPLAIN)
    _, sent = painter.again()
    np.testing.assert_array_equal(sent, painter.edit((3, 3, 4, 4)))
    expect(visit.page.locator("#alert")).to_be_empty()
    assert all(" 422 " in complaint for complaint in visit.complaints)  # Chromium notes it
    visit.complaints.clear()


def test_a_busy_service_does_not_take_the_brush_away(visit: Visit) -> None:
    painter = Painter(visit)
    painter.stroke((3, 3))

    def shed(answer: dict[str, Any]) -> None:
        for part in (answer, answer["original"]):
            part["explanation"] = {"method": "attention", "status": "shed", "target": None}
        answer["geometry"] |= {"map": None, "map_to_original": None}

    visit.change(shed)
    painter.again()
    expect(visit.page.locator("#words")).to_contain_text("busy")
    visit.page.unroute(EXPLAIN)
    painter.stroke((8, 8))
    _, sent = painter.again()
    np.testing.assert_array_equal(sent, painter.edit((3, 3, 4, 4), (8, 8, 9, 9)))
    expect(visit.page.locator("#words")).to_be_empty()


def test_a_stroke_that_turns_out_to_be_a_zoom_paints_nothing(visit: Visit) -> None:
    painter = Painter(visit)
    before = visit.canvas()
    visit.page.mouse.move(*painter.at((3.5, 3.5)))
    visit.page.mouse.down()
    assert (visit.canvas() != before).any()
    visit.page.locator("#cells").dispatch_event("pointercancel", {"pointerId": 1})  # the mouse, in Chromium
    np.testing.assert_array_equal(visit.canvas(), before)
    expect(visit.page.locator("#undo")).to_have_attribute("aria-disabled", "true")
    visit.page.mouse.up()


def test_a_new_image_has_no_edit(visit: Visit) -> None:
    painter = Painter(visit)
    painter.stroke((3, 3))
    painter.again()
    visit.sample("rocket.jpg")
    expect(visit.page.locator("#undo")).to_have_attribute("aria-disabled", "true")
    expect(visit.page.locator("#again")).to_have_attribute("aria-disabled", "true")
    expect(visit.page.locator("#after .value")).to_be_empty()
    expect(visit.page.locator("#target-words")).not_to_contain_text("edit")


def test_the_picture_stays_where_it_is(visit: Visit) -> None:
    painter = Painter(visit)
    visit.page.locator("input[value=overlay]").check()
    canvas = visit.page.locator("#canvas")
    boxes = [canvas.bounding_box()]
    visit.page.locator("input[value=edit]").check()
    boxes.append(canvas.bounding_box())
    brush = visit.page.locator("#brush").bounding_box()
    painter.stroke((3, 3), (9, 9))
    boxes.append(canvas.bounding_box())
    painter.again()
    boxes.append(canvas.bounding_box())
    assert boxes == [boxes[0]] * 4
    assert visit.page.locator("#brush").bounding_box() == brush


def test_the_first_model_and_the_samples_suit_each_other(visit: Visit) -> None:
    visit.open(model=None)
    expect(visit.page.locator("#model")).to_have_value(IMAGENET)
    titles = visit.page.locator("[data-sample]")
    expect(titles).to_have_text(["Cat", "Astronaut", "Coffee", "Palace", "Rocket"])
    visit.use(SQUASH)
    tiles = ["Crack", "Blowhole", "Break", "Fray", "Uneven", "Free"]
    expect(titles).to_have_text([*tiles, "Rocket"])
    visit.use(GCM)
    expect(titles).to_have_text(["Cat", "Ship", "Horse", "Frog", "Airplane", "Truck", "Dog", "Rocket"])


@pytest.mark.parametrize("visit", SCHEMES, indirect=True)
def test_axe_finds_nothing_serious_while_editing(visit: Visit) -> None:
    painter = Painter(visit, CROP)
    assert violations(visit) == []
    painter.stroke((3, 3))
    painter.again()
    visit.page.locator("#cells").focus()
    assert violations(visit) == []


@pytest.mark.parametrize("visit", NARROW, indirect=True)
def test_narrow_screens_do_not_scroll_sideways_while_editing(visit: Visit) -> None:
    painter = Painter(visit, CROP, WIDE)
    visit.page.locator("#cells").focus()
    visit.page.keyboard.press("Space")
    painter.again()
    assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
