"""A real server, and a Chromium that looks at it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, expect, sync_playwright

from konkyo.imaging import ResizeMode
from konkyo.service.demo import running_server
from konkyo.service.settings import ZOO
from konkyo.study.database import Database
from konkyo.study.store import Store

from .look import CROP, GCM, IMAGENET, SQUASH, Visit
from .studies import Opening, Sitting, Study, make_study

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DEFECTS = ("blowhole", "break", "crack", "fray", "free", "uneven")
WINDOW = {"viewport": {"width": 1280, "height": 1000}}

expect.set_options(timeout=20_000)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = not Path(CHROMIUM).exists()
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("browser")
            if missing:
                item.add_marker(pytest.mark.skip(reason=f"no Chromium at {CHROMIUM}; set CHROMIUM"))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a ``konkyo serve`` of our own, or of a running server named in KONKYO_TEST_URL."""
    if running := os.environ.get("KONKYO_TEST_URL"):
        yield running.rstrip("/")
        return
    repository = tmp_path_factory.mktemp("repository")
    for model in (GCM, IMAGENET):
        (repository / model).symlink_to(ZOO / model)
    _write_untrained(repository / SQUASH / "1", "abn", "squash")
    _write_untrained(repository / CROP / "1", "multiscale-abn", "center_crop", width=8)
    with running_server("--repository", str(repository), "--log-level", "warning") as address:
        yield address


def _write_untrained(out: Path, architecture: str, mode: ResizeMode, **more: Any) -> None:
    """A bundle with random weights; its input, and so the grid of its maps, is wider than high."""
    import torch  # nothing else here needs it

    from konkyo.export.bundle import Origin, write_bundle
    from konkyo.export.canary import smooth_image
    from konkyo.models.classifier import Classifier
    from konkyo.models.registry import build

    arguments = {"backbone": "cifar_resnet8", **more}
    torch.manual_seed(0)
    weights = Classifier(build(architecture, len(DEFECTS), **arguments)).state_dict()
    samples = np.stack([smooth_image(48, 32, seed) for seed in range(2)])
    origin = Origin(
        architecture=architecture,
        arguments=arguments,
        labels=DEFECTS,
        method="attention",
        data="none",
        licence="none",
        command="none",
        epochs=0,
        resize_mode=mode,
    )
    write_bundle(out, weights, samples, origin)


# A module and not a session: while Playwright runs, no test of another module could run an event loop.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def context(chromium: Browser) -> Iterator[BrowserContext]:
    """Shared, for its cache: the page stores nothing that one test could leave to the next."""
    with _context(chromium) as context:
        yield context


@contextmanager
def _context(chromium: Browser, **options: Any) -> Iterator[BrowserContext]:
    context = chromium.new_context(**{**WINDOW, **options})
    context.set_default_timeout(30_000)
    yield context
    context.close()


@pytest.fixture
def visit(
    chromium: Browser, context: BrowserContext, server: str, request: pytest.FixtureRequest
) -> Iterator[Visit]:
    """The page, open; at the end no complaint on its console and no request to anyone else.

    A parameter, if there is one, is a dict of options of a browser context of its own.
    """
    options = getattr(request, "param", None)
    with _context(chromium, **options) if options else nullcontext(context) as chosen:
        visit = Visit(chosen.new_page(), server)
        visit.open()
        yield visit
        visit.page.close()
    assert visit.complaints == []
    assert {url for url in visit.urls if not url.startswith((server + "/", "blob:", "data:"))} == set()


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, str]]:
    """A database of studies, and the address of a server of it; models matter to nobody there."""
    folder = tmp_path_factory.mktemp("studies")
    (folder / "models").mkdir()
    (folder / "models" / GCM).symlink_to(ZOO / GCM)
    database = Database(str(folder / "studies.db"), create=True)
    options = ("--repository", str(folder / "models"), "--engine", "fake", "--log-level", "error")
    with running_server(*options, "--studies", str(folder / "studies.db")) as address:
        yield Store(database), address
    database.close()


@pytest.fixture
def study(studies: tuple[Store, str]) -> Study:
    """A study of three images with four maps each, and one subject."""
    return make_study(*studies)


@pytest.fixture
def sit(chromium: Browser, study: Study) -> Iterator[Opening]:
    """A way to sit down at a study; at the end no console complains but of what could not be fetched."""
    sittings: list[Sitting] = []
    contexts: list[BrowserContext] = []

    def open_(
        of: Study = study, subject: int = 0, context: BrowserContext | None = None, **options: Any
    ) -> Sitting:
        if context is None:
            context = chromium.new_context(**{**WINDOW, **options})
            context.set_default_timeout(20_000)
            contexts.append(context)
        sittings.append(Sitting(context.new_page(), of, subject))
        return sittings[-1]

    yield open_
    for context in contexts:
        context.close()
    assert [text for sitting in sittings for text in sitting.complaints if "Failed to load" not in text] == []


@pytest.fixture
def sitting(sit: Opening) -> Sitting:
    """A subject at the first image."""
    sitting = sit()
    sitting.begin()
    return sitting
