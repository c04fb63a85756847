"""Takes the pictures of the page that the documentation shows: ``python docs/pictures.py``."""

from __future__ import annotations

import io
import os
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from konkyo.service.demo import running_server

HERE = Path(__file__).parent
SHOTS = {
    "page-light": ("light", "chelsea.jpg", ()),
    "page-dark": ("dark", "cifar10-ship.png", ("#regions", "input[value=overlay]")),
}


def show(page: Page, sample: str, choices: tuple[str, ...]) -> None:
    """Choose a sample and check boxes, as a person would."""
    page.click(f'[data-sample="{sample}"]')
    page.wait_for_selector("#figure[aria-busy=false]")
    for choice in choices:
        page.locator(choice).check()
    page.evaluate("scrollTo(0, 0)")
    page.mouse.move(0, 0)


def main() -> None:
    """Start a server, visit it in both colour schemes, save what it looks like."""
    with running_server("--log-level", "warning") as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"),
            args=["--headless", "--no-sandbox", "--disable-gpu"],
        )
        for name, (scheme, sample, choices) in SHOTS.items():
            page = browser.new_page(
                color_scheme=scheme,  # type: ignore[arg-type]
                viewport={"width": 1160, "height": 900},
                reduced_motion="reduce",
            )
            page.goto(address)
            page.wait_for_selector("#target option:nth-child(2)", state="attached")
            show(page, sample, choices)
            picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            picture.save(HERE / f"{name}.png", optimize=True)
        browser.close()


if __name__ == "__main__":
    main()
