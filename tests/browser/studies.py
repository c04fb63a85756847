"""Studies to take part in, and what a subject does on their page."""

from __future__ import annotations

import io
import json
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from playwright.sync_api import ConsoleMessage, Locator, Page, expect

from konkyo.study.records import Entry, Item
from konkyo.study.store import Store

SIZE = 96, 64
COLOURS = [(25 * entry, 255 - 25 * entry, 60 * (entry % 4)) for entry in range(10)]
"""Of the maps of each entry, so that a picture tells where it comes from."""
LABELS = ("tabby cat", "espresso", "space shuttle")
ENTRIES = [
    Entry("gcm-cifar10", "1", "sha256:5f7d30", "class-weights"),
    Entry("resnet50-keras", "2", "sha256:b41c92", "gradcam"),
    Entry("cait-xxs36", "1", "sha256:08aa17", "attention-rollout"),
    Entry("efficientnet-lite0", "7", "sha256:c3e5d8", "layercam"),
    *(Entry(f"swin-tiny-{number}", "1", f"sha256:77{number}0e4", "guided-backprop") for number in range(6)),
]
TITLE = "Where would you look?"
INSTRUCTION = "Order the maps of each photograph, the best first."


@dataclass
class Study:
    """A study in the database that a server serves.

    Attributes:
        tokens: of its subjects.
    """

    store: Store
    address: str
    id: str
    tokens: list[str]

    def link(self, subject: int = 0) -> str:
        return f"{self.address}/studies/{self.id}#{self.tokens[subject]}"

    def ask(self, path: str = "", subject: int = 0) -> dict[str, Any]:
        """What the service answers a subject."""
        request = urllib.request.Request(
            f"{self.address}/v1/studies/{self.id}{path}",
            headers={"authorization": f"Bearer {self.tokens[subject]}"},
        )
        with urllib.request.urlopen(request) as response:
            answer: dict[str, Any] = json.load(response)
        return answer

    def item(self, number: int, subject: int = 0) -> dict[str, Any]:
        """The image of a number, from 1, as a subject has it."""
        return self.ask(f"/items/{self.ask(subject=subject)['items'][number - 1]['item']}", subject)


def make_study(store: Store, address: str, *, images: int = 3, maps: int = 4, subjects: int = 1) -> Study:
    """A study of plain colours."""
    compared = ENTRIES[:maps]
    study = store.begin(TITLE, INSTRUCTION, {"target": "true"}, compared)
    for number in range(images):
        pictures = [_png(COLOURS[entry]) for entry in range(maps)]
        label = LABELS[number % len(LABELS)]
        store.add(
            study,
            number,
            Item(f"n0212{number}/photo-{number}.jpg", label, _png((128, 128, 128)), pictures, SIZE),
        )
    store.complete(study)
    return Study(store, address, study, store.invite(study, subjects))


def _png(colour: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", SIZE, colour).save(buffer, "png")
    return buffer.getvalue()


class Sitting:
    """One subject at the page of a study.

    Attributes:
        page: Playwright's page.
        complaints: warnings and errors on the console, and exceptions nobody caught.
    """

    def __init__(self, page: Page, study: Study, subject: int = 0) -> None:
        self.page = page
        self.study = study
        self.subject = subject
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._listen)

    def _listen(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def open(self) -> None:
        """Follow the link, up to the first words."""
        self.page.goto(self.study.link(self.subject))
        self.page.wait_for_selector("#plain-go:not([hidden]), #work:not([hidden])")

    def begin(self) -> None:
        """Follow the link to the first image."""
        self.open()
        self.page.click("#plain-go")
        self.wait_for_image(1)

    def wait_for_image(self, number: int) -> None:
        """Until an image and its maps can be seen."""
        count = len(self.study.ask()["items"])
        expect(self.page.locator("#number")).to_have_text(f"Image {number} of {count}")
        self.page.wait_for_function(
            "() => [...document.querySelectorAll('#image, #deck img')].every((img) => img.naturalWidth)"
        )

    def card(self, place: int) -> Locator:
        """The card at a place, from 1."""
        return self.page.locator(f"#deck li:nth-child({place}) button")

    def order(self) -> list[str]:
        """Ids of the maps on the page, the best first."""
        found: list[str] = self.page.eval_on_selector_all(
            "#deck li", "cards => cards.map((card) => card.dataset.map)"
        )
        return found

    def colours(self) -> list[tuple[int, int, int]]:
        """What the cards show, the best first."""
        found = self.page.evaluate(
            """() => [...document.querySelectorAll("#deck img")].map((img) => {
                const canvas = new OffscreenCanvas(1, 1).getContext("2d");
                canvas.drawImage(img, 0, 0, 1, 1);
                return [...canvas.getImageData(0, 0, 1, 1).data.slice(0, 3)];
            })"""
        )
        return [(red, green, blue) for red, green, blue in found]

    def middle(self, locator: Locator) -> tuple[float, float]:
        """Where something lies in the window."""
        box = locator.bounding_box()
        assert box is not None
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def drag(self, place: int, to: int, *, drop: bool = True) -> None:
        """Take a card with the mouse to where another lies."""
        start, end = self.middle(self.card(place)), self.middle(self.card(to))
        self.page.mouse.move(*start)
        self.page.mouse.down()
        self.page.mouse.move(*end, steps=6)
        if drop:
            self.page.mouse.up()

    def confirm(self) -> None:
        """Say that an order is right, though nothing was moved."""
        self.page.click("#next")
        self.page.click("#next", timeout=2000)

    def saved(self) -> None:
        """Until everything is."""
        expect(self.page.locator("#state")).to_have_text("Saved")

    def saved_silently(self) -> None:
        """Until everything is, at the end, where being saved is not told."""
        expect(self.page.locator("#state")).to_be_hidden()

    def said(self, text: str) -> None:
        """What a screen reader is told last."""
        expect(self.page.locator("#said")).to_have_text(text)


Opening = Callable[..., Sitting]
"""Opens the page in a browser of its own, with the options of its context."""


def moved(order: Sequence[str], place: int, to: int) -> list[str]:
    """An order with the map of a place, from 1, at another."""
    others = [map_ for index, map_ in enumerate(order, 1) if index != place]
    return [*others[: to - 1], order[place - 1], *others[to - 1 :]]
