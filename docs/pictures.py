"""Takes the pictures of the page that the documentation shows: ``python docs/pictures.py``."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from konkyo.service.demo import running_server

HERE = Path(__file__).parent
IMAGENET = "efficientnet-lite0-imagenet"


def show(page: Page, model: str, sample: str, *choices: str) -> None:
    """Choose a model and a sample and check boxes, as a person would."""
    page.select_option("#model", model)
    page.wait_for_selector(f'[data-sample="{sample}"]')
    page.click(f'[data-sample="{sample}"]')
    page.wait_for_selector("#answer:visible")
    page.wait_for_selector("#figure[aria-busy=false]")
    for choice in choices:
        page.locator(choice).check()


def cat(page: Page) -> None:
    """What speaks for the cat."""
    show(page, "gcm-cifar10", "chelsea.jpg")


def ship(page: Page) -> None:
    """The map over the picture, with its regions."""
    show(page, "gcm-cifar10", "cifar10-ship.png", "#regions", "input[value=overlay]")


def photo(page: Page) -> None:
    """A photograph, by a network of 1,000 classes."""
    show(page, IMAGENET, "coffee.jpg")


def truth(page: Page) -> None:
    """A failure: what spoke for the helmet beside what would have spoken for the shuttle."""
    show(page, IMAGENET, "astronaut.jpg")
    page.click("#truth-go")
    page.wait_for_selector("#side-true:visible")
    page.wait_for_selector("#figure[aria-busy=false]")


def correct(page: Page) -> None:
    """A broken tile that is taken for a whole one; the corner is painted, the rest rubbed out."""
    show(page, "abn-magnetic-tile", "tile-break.jpg", "input[value=edit]")
    for tool, size, middle in (("0", "9", None), ("1", "5", (0.14, 0.08))):
        page.locator(f"input[name=tool][value='{tool}']").check()
        page.locator("#size").fill(size)
        box = page.locator("#canvas").bounding_box()
        assert box is not None
        places = [middle] if middle else [(x / 5, y / 5) for y in range(6) for x in range(6)]
        for x, y in places:
            x, y = min(max(x, 0.01), 0.99), min(max(y, 0.01), 0.99)
            page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
    page.click("#again")
    page.wait_for_selector("#compare:visible")
    page.wait_for_selector("#figure[aria-busy=false]")


SHOTS: dict[str, tuple[str, Callable[[Page], None]]] = {
    "page-light": ("light", cat),
    "page-dark": ("dark", ship),
    "page-edit": ("light", correct),
    "page-photo": ("light", photo),
    "page-truth": ("dark", truth),
}


def main() -> None:
    """Start a server, visit it, save what it looks like."""
    with running_server("--log-level", "warning") as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"),
            args=["--headless", "--no-sandbox", "--disable-gpu"],
        )
        for name, (scheme, visit) in SHOTS.items():
            page = browser.new_page(
                color_scheme=scheme,  # type: ignore[arg-type]
                viewport={"width": 1160, "height": 900},
                reduced_motion="reduce",
            )
            page.goto(address)
            page.wait_for_selector("#model option", state="attached")
            visit(page)
            page.evaluate("scrollTo(0, 0)")
            page.mouse.move(0, 0)
            picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            picture.save(HERE / f"{name}.png", optimize=True)
        browser.close()


if __name__ == "__main__":
    main()
