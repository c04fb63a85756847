"""The audit log: one JSON line for each result, on disk before the answer leaves.

Who is asked later what was decided, by which model and on which image, can say so; the image and the map
are not in it, only the image's hash. An answer whose record cannot be written is refused: an installation
that keeps such a log has promised that there is no answer without a record, and the caller can ask again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path

from konkyo.errors import AuditFailed
from konkyo.service.appending import Appender
from konkyo.service.metrics import Metrics
from konkyo.service.model import Model
from konkyo.service.question import Question
from konkyo.service.records import Record, now, to_line

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 10.0
"""How long a record may take to be written, as on a disk that hangs."""

PENDING_BYTES = 256 * 2**20
"""Of images, and what else a record keeps, whose records are not written yet. A disk that hangs would have
them pile up: who has waited in vain gives back its place in the memory budget, and its record still comes."""


class Audit:
    """Writes records in a thread of its own, one at a time; what waits to be written is bounded.

    Raises:
        ValueError: the file cannot be opened.
    """

    def __init__(self, path: Path | None, metrics: Metrics) -> None:
        self._records = metrics.audit_records
        self._problem: str | None = None
        self._pending = 0  # bytes
        self._dropped = 0
        self._missing = 0  # the thread's own
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="audit")
        try:
            self._file = None if path is None else Appender(path)
        except OSError as error:
            raise ValueError(f"audit_log {path}: {error.strerror}") from None

    @property
    def problems(self) -> list[str]:
        """What keeps records from being written; empty if nothing does."""
        return [] if self._problem is None else [f"the audit log cannot be written: {self._problem}"]

    def recording(self, model: Model, question: Question) -> AbstractAsyncContextManager[Record]:
        """Record how the block ends, before it ends; in order once ``Record.body`` is set.

        The block raises ``AuditFailed`` where the record of an answer could not be written.
        """
        record = Record(model, question)
        return nullcontext(record) if self._file is None else self._recording(self._file, record)

    @asynccontextmanager
    async def _recording(self, file: Appender, record: Record) -> AsyncIterator[Record]:
        try:
            yield record
        except asyncio.CancelledError as error:  # nobody waits for an answer, nor for its record
            with suppress(AuditFailed):
                self._begin(file, record.line(error), record.nbytes)
            raise
        except Exception as error:
            with suppress(AuditFailed):
                await self._write(file, record.line(error), record.nbytes)
            raise
        await self._write(file, record.line(None), record.nbytes)

    async def probe(self) -> None:
        """Where the last record could not be written, try again, and leave a word about what is missing."""
        if self._file is not None and self._problem is not None:
            with suppress(AuditFailed):
                await self._write(self._file, bytes, 0)

    async def close(self) -> None:
        """Write what is left; a thread that hangs is left to the process's end."""
        idle = asyncio.get_running_loop().run_in_executor(self._thread, lambda: None)
        _, hung = await asyncio.wait([idle], timeout=PATIENCE_SECONDS)
        self._thread.shutdown(wait=not hung, cancel_futures=True)

    async def _write(self, file: Appender, line: Callable[[], bytes], size: int) -> None:
        """Write what ``line`` makes, and wait for it. Raises ``AuditFailed``."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await asyncio.shield(self._begin(file, line, size))
        except (OSError, TimeoutError) as error:
            problem = getattr(error, "strerror", None) or f"not within {PATIENCE_SECONDS:g} s"
            if problem != self._problem:
                logger.error("the audit log cannot be written, and nothing is answered: %s", problem)
            self._problem = problem
            raise AuditFailed("the record of this answer could not be written") from error
        if self._problem is not None:
            logger.info("the audit log can be written again")
        self._problem = None

    def _begin(self, file: Appender, line: Callable[[], bytes], size: int) -> asyncio.Future[None]:
        """Begin to write what ``line`` makes, and needs so many bytes for. Raises ``AuditFailed``."""
        if size and self._pending and self._pending + size > PENDING_BYTES:
            self._dropped += 1
            self._records.labels(outcome="failed").inc()
            raise AuditFailed("too many records wait to be written")
        dropped, self._dropped = self._dropped, 0
        self._pending += size
        loop = asyncio.get_running_loop()
        begun = loop.run_in_executor(self._thread, self._append, file, line, dropped)
        begun.add_done_callback(partial(self._ended, size))
        return begun

    def _ended(self, size: int, begun: asyncio.Future[None]) -> None:
        """Of a record nobody waits for, the error is not unheard of: it is counted."""
        self._pending -= size
        if not begun.cancelled():
            begun.exception()

    def _append(self, file: Appender, line: Callable[[], bytes], dropped: int) -> None:
        """In the thread. Raises ``OSError``."""
        self._missing += dropped
        made = line()
        try:
            if self._missing:
                file.append(to_line({"event": "resumed", "time": now(), "missing": self._missing}))
                self._missing = 0
            file.append(made)
        except OSError:
            self._missing += bool(made)
            self._records.labels(outcome="failed").inc(bool(made))
            raise
        self._records.labels(outcome="written").inc(bool(made))
