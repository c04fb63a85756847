from __future__ import annotations

import os

import pytest
from faults import Clock


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("KONKYO_"):
            monkeypatch.delenv(name)


@pytest.fixture
async def clock() -> Clock:
    """The time of the test's loop, in the test's hand."""
    return Clock()
