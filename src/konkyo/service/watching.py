"""Following the folders of the repository: by looking at them now and then, and when the system says so.

What a change is, ``Repository.refresh`` finds by comparing. Events of the file system only make it look at
once: there are none on network file systems, and a link may lead to where nobody watches.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from konkyo.service.repository import SETTLE_SECONDS, Repository
from konkyo.service.settings import Settings

logger = logging.getLogger(__name__)


async def watch(repository: Repository, settings: Settings) -> None:
    """Follow the folders as the settings say, until cancelled."""
    if settings.repository_watch == "off":
        return
    woken = asyncio.Event()
    listening = None
    if settings.repository_watch == "events":
        work = _listen(settings.repository, woken)
        listening = asyncio.get_running_loop().create_task(work, name="listening")
    try:
        while True:
            woken.clear()
            unsettled = await repository.refresh()
            seconds = settings.repository_poll_seconds
            try:
                async with asyncio.timeout(min(seconds, SETTLE_SECONDS) if unsettled else seconds):
                    await woken.wait()
            except TimeoutError:
                continue
    finally:
        if listening is not None:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


async def _listen(folders: Sequence[Path], woken: asyncio.Event) -> None:
    """Wake whenever the file system tells of a change."""
    from watchfiles import awatch

    try:
        async for _ in awatch(*folders, watch_filter=None, debounce=200, ignore_permission_denied=True):
            woken.set()
    except (OSError, RuntimeError) as error:  # such as too many watches
        logger.warning("the repository is only looked at now and then, without events: %s", error)
