"""A real server, and a Chromium that looks at it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, expect, sync_playwright

from konkyo.service.demo import running_server

from .look import Visit

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
def server() -> Iterator[str]:
    """The address of a ``konkyo serve`` of our own, or of a running server named in KONKYO_TEST_URL."""
    if running := os.environ.get("KONKYO_TEST_URL"):
        yield running.rstrip("/")
        return
    with running_server("--log-level", "warning") as address:
        yield address


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
