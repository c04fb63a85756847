"""The database of studies, asked in threads of its own: one that hangs holds up nobody but its subjects."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from konkyo.errors import StudiesDisabled, StudyStoreFailed

if TYPE_CHECKING:
    from konkyo.study.database import Database

T = TypeVar("T")

logger = logging.getLogger(__name__)

THREADS = 8
"""That ask the database, each by a connection."""

PATIENCE_SECONDS = 15.0
"""For an answer of the database, with the wait for a thread."""


class Studies:
    """Opens the database when it is first asked; without one it costs nothing, not even an import.

    Args:
        url: the setting ``studies``.

    Raises:
        ValueError: it is no URL of a database that is known here.
    """

    def __init__(self, url: str | None) -> None:
        self._url = url
        self._threads: ThreadPoolExecutor | None = None
        self._opening = threading.Lock()
        self._database: Database | None = None
        if url is not None:
            from konkyo.study.database import read_url

            try:
                read_url(url)
            except ValueError as error:
                raise ValueError(f"studies: {error}") from None
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="studies")

    def refuse_unless_served(self) -> None:
        """Let nobody in where there are no studies.

        Raises:
            StudiesDisabled
        """
        if self._url is None:
            raise StudiesDisabled("no studies are served here; see the setting KONKYO_STUDIES")

    async def ask(self, question: Callable[[Database], T]) -> T:
        """Ask the database, in a thread. What it has begun it ends, also if the caller leaves.

        Raises:
            StudiesDisabled
            StudyStoreFailed: it failed, or gives no answer in time; then it may still have done it.
        """
        self.refuse_unless_served()
        answer = asyncio.get_running_loop().run_in_executor(self._threads, self._ask, question)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await answer
        except TimeoutError:
            raise StudyStoreFailed("the database of studies gives no answer") from None
        except StudyStoreFailed as error:
            logger.error("%s", error.message)
            raise StudyStoreFailed("the database of studies cannot be used now; the log has why") from error

    async def close(self) -> None:
        """Let what is asked come to its end, unless that takes too long, and close the database."""
        if self._threads is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)
        if self._database is not None:
            self._database.close()

    def _ask(self, question: Callable[[Database], T]) -> T:
        return question(self._opened())

    def _opened(self) -> Database:
        from konkyo.study.database import Database

        with self._opening:
            if self._database is None:
                self._database = Database(str(self._url))
            return self._database
