"""Takes the picture of a study that docs/study.md shows: ``python docs/study_picture.py``."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import Page, sync_playwright

import konkyo
from konkyo.service.demo import running_server
from konkyo.study.database import Database
from konkyo.study.store import Store

OUT = Path(__file__).with_name("study.jpg")
PACKAGE = Path(konkyo.__file__).parent
SAMPLES = PACKAGE / "service" / "web" / "samples"
BUNDLE = PACKAGE / "zoo" / "efficientnet-lite0-imagenet" / "1"
PHOTOS = {"tabby": "chelsea.jpg", "espresso": "coffee.jpg", "space shuttle": "astronaut.jpg"}
SHOWN = "espresso"
METHODS = (
    *("gradcam", "layercam", "occlusion", "centre", "guided-gradcam", "guided-backprop", "gradcam-max"),
    *("edges", "deconvnet", "random"),
)
"""As a person may order them; the last is on its way there."""


def main() -> None:
    """Make a study, serve it, order the maps of one image, and save what that looks like."""
    with TemporaryDirectory() as folder:
        photos, database = Path(folder, "photos"), Path(folder, "studies.db")
        for label, sample in PHOTOS.items():
            (photos / label).mkdir(parents=True)
            shutil.copy(SAMPLES / sample, photos / label)
        link = create(photos, database)
        options = ("--studies", str(database), "--engine", "fake", "--log-level", "warning")
        with running_server(*options) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"),
                args=["--headless", "--no-sandbox", "--disable-gpu"],
            )
            page = browser.new_page(viewport={"width": 1280, "height": 690}, reduced_motion="reduce")
            page.goto(address + link)
            order(page, Store(Database(str(database))))
            picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            picture.save(OUT, quality=84, optimize=True, progressive=True)
            browser.close()


def create(photos: Path, database: Path) -> str:
    """A study of one bundle by many methods; returns the path of its link."""
    methods = ["--methods", ",".join(METHODS)]
    command = [sys.executable, "-m", "konkyo", "study", "create", *[str(BUNDLE)] * len(METHODS), *methods]
    options = ["--images", str(photos), "--title", "Where would you look?", "--subjects", "1"]
    made = subprocess.run(  # noqa: S603 - our own command
        [*command, *options, "--database", str(database)], check=True, stdout=subprocess.PIPE, text=True
    )
    return made.stdout.strip().partition("8000")[2]


def order(page: Page, store: Store) -> None:
    """Order the maps of the image that is shown, the last by mouse, which is not let go."""
    page.click("#plain-go")
    for number in range(len(PHOTOS)):
        page.click("#overview-button")
        page.locator("#items button").nth(number).click()
        page.wait_for_selector(f"#number:text('Image {number + 1} ')")
        if SHOWN in page.inner_text("#question"):
            break
    [study] = store.summaries()
    [maps] = [item.maps for item in store.answers(study.id).items if item.label == SHOWN]
    page.wait_for_function(
        "() => [...document.querySelectorAll('#image, #deck img')].every((img) => img.naturalWidth)"
    )
    for map_ in maps[-2::-1]:
        page.locator(f"[data-map='{map_}'] button").press("Home")
    last = page.locator(f"[data-map='{maps[-1]}'] button")
    last.press("2")
    page.evaluate("scrollTo(0, 0); document.activeElement.blur()")
    start, end = last.bounding_box(), page.locator("#deck li").last.bounding_box()
    assert start is not None
    assert end is not None
    page.mouse.move(start["x"] + 60, start["y"] + 60)
    page.mouse.down()
    page.mouse.move(end["x"] + 25, end["y"] + 30, steps=8)
    page.wait_for_selector("#state[data-state=saved]")


if __name__ == "__main__":
    main()
