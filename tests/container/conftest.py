from __future__ import annotations

import os
from pathlib import Path

import pytest

from container import Image


@pytest.fixture(scope="session")
def image() -> Image:
    """The cpu image that ``make container`` has just built; no other, which could be an old one."""
    folder = Path(os.environ.get("IMAGE", "there is none"))
    if not (folder / "rootfs").is_dir():
        pytest.skip("make container runs it, where there are buildah, mmdebstrap and the rights of root")
    return Image(folder)
