"""The database of the studies: SQLite in a file, or PostgreSQL; transactions that end or fail in time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, select
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from konkyo.errors import StudyStoreFailed
from konkyo.study import tables

WAIT_SECONDS = 10
"""For a lock, or for the database to answer. Who waits longer is told to try again."""

CONNECTIONS = 8
"""To the database, of one process."""

_BEGIN = "konkyo_begin"


def read_url(text: str) -> URL:
    """A URL, or the path of a file of SQLite.

    Raises:
        ValueError: it is none, or of a database that is not known here.
    """
    try:
        url = make_url(text) if "://" in text else URL.create("sqlite", database=text)
    except ArgumentError:
        raise ValueError("the database of studies is no URL; see docs/study.md") from None
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "postgresql+psycopg"):
        raise ValueError(f"studies are kept in sqlite or postgresql+psycopg, not in {url.drivername}")
    if url.drivername == "sqlite" and (not url.database or url.database == ":memory:" or url.query):
        raise ValueError("studies need a file: sqlite:///PATH")
    return url


class Database:
    """An open database of studies; used by any number of threads.

    Args:
        text: see ``read_url``.
        create: make the file and the tables where they are missing.

    Raises:
        ValueError: see ``read_url``; or psycopg is not installed.
        StudyStoreFailed: it cannot be reached, is no database, or one of something else or of another
            version.
    """

    def __init__(self, text: str, *, create: bool = False) -> None:
        url = read_url(text)
        self.name = url.render_as_string(hide_password=True)
        self._is_file = url.drivername == "sqlite"
        if self._is_file and not create and not Path(str(url.database)).is_file():
            raise StudyStoreFailed(f"{self.name}: there is no such file; konkyo study create makes it")
        self._engine = _sqlite(url) if self._is_file else _postgresql(url)
        try:
            self._check(create)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One transaction, which sees the database as it is at one moment.

        Raises:
            StudyStoreFailed: what the block asks failed, and nothing of it is kept.
        """
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """The same, for one that writes: SQLite lets one in at a time.

        Raises:
            StudyStoreFailed: likewise.
        """
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                if self._is_file:
                    connection.execution_options(**{_BEGIN: begin})
                elif begin == "BEGIN":
                    connection.execution_options(isolation_level="REPEATABLE READ")
                with connection.begin():
                    yield connection
        except (SQLAlchemyError, sqlite3.Error) as error:  # the latter of what is done to a new connection
            raise StudyStoreFailed(f"the database of studies failed: {_reason(error)}") from error

    def _check(self, create: bool) -> None:
        try:
            with self.writing() if create else self.reading() as connection:
                there = set(inspect(connection).get_table_names())
                if tables.schema.name not in there:
                    if not create or (there and self._is_file) or there & set(tables.metadata.tables):
                        held = "another program's tables are in it" if there else "it is empty"
                        raise StudyStoreFailed(f"{self.name}: no database of studies: {held}")
                    tables.metadata.create_all(connection)
                    connection.execute(tables.schema.insert().values(version=tables.VERSION))
                version = connection.execute(select(tables.schema.c.version)).scalar_one()
        except StudyStoreFailed as error:
            if self.name in error.message:
                raise
            raise StudyStoreFailed(f"{self.name}: {error.message}") from error
        if version != tables.VERSION:
            raise StudyStoreFailed(
                f"{self.name}: a database of studies of version {version}, and this program reads "
                f"{tables.VERSION}"
            )


def now() -> str:
    """As in the tables: UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _reason(error: Exception) -> str:
    """The database's own words in one line, without the statement and the values of it."""
    if isinstance(error, SQLAlchemyError):
        return " ".join(str(getattr(error, "orig", None) or type(error).__name__).split())
    return str(error)


def _sqlite(url: URL) -> Engine:
    engine = create_engine(url, connect_args={"timeout": WAIT_SECONDS}, **_pool())

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _: Any) -> None:
        connection.isolation_level = None  # transactions begin below, and not where the module thinks
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options()[_BEGIN])

    return engine


def _postgresql(url: URL) -> Engine:
    milliseconds = WAIT_SECONDS * 1000
    options = f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds}"
    arguments = {
        "connect_timeout": WAIT_SECONDS,
        "options": options,
        "tcp_user_timeout": milliseconds,
    }
    try:
        return create_engine(url, connect_args=arguments, pool_pre_ping=True, **_pool())
    except ImportError:
        raise ValueError("PostgreSQL needs psycopg: pip install 'konkyo[postgresql]'") from None


def _pool() -> dict[str, Any]:
    return {"pool_size": CONNECTIONS, "max_overflow": 0, "pool_timeout": WAIT_SECONDS}
