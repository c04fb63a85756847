from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from konkyo.study.database import Database

SERVER_USER = "postgres"


def _binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


def _as_user() -> list[str]:
    """PostgreSQL refuses to be run by root."""
    return ["runuser", "-u", SERVER_USER, "--"] if os.getuid() == 0 else []


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """URL of a database of a server of our own, in a temporary folder and without TCP."""
    pytest.importorskip("psycopg")
    binaries = _binaries()
    if binaries is None:
        pytest.skip("PostgreSQL's server is not on this machine")
    folder = Path(tempfile.mkdtemp(prefix="konkyo-pg-"))  # the path of a socket must be short
    try:
        if os.getuid() == 0:
            try:
                shutil.chown(folder, SERVER_USER)
            except LookupError:
                pytest.skip(f"run by root, PostgreSQL's server needs the user {SERVER_USER}")
        data = str(folder / "data")
        initdb = [
            str(binaries / "initdb"),
            "-D",
            data,
            "-U",
            "konkyo",
            "--auth=trust",
            "--no-sync",
            "-E",
            "UTF8",
        ]
        subprocess.run([*_as_user(), *initdb], check=True, capture_output=True, cwd=folder)
        settings = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}", "-c", "fsync=off"]
        start = [
            str(binaries / "pg_ctl"),
            "-D",
            data,
            "-w",
            "-l",
            str(folder / "log"),
            "-o",
            " ".join(settings),
        ]
        subprocess.run([*_as_user(), *start, "start"], check=True, capture_output=True, cwd=folder)
        try:
            yield f"postgresql+psycopg://konkyo@/postgres?host={folder}"
        finally:
            stop = [str(binaries / "pg_ctl"), "-D", data, "-w", "-m", "immediate", "stop"]
            subprocess.run([*_as_user(), *stop], check=True, capture_output=True, cwd=folder)
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def fresh_postgresql(postgresql: str) -> str:
    """URL of the database, emptied: that takes less than a new one."""
    import psycopg

    with closing(psycopg.connect(postgresql.replace("+psycopg", ""), autocommit=True)) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return postgresql


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a database that is not there yet, or is empty."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'studies.db'}"
    return str(request.getfixturevalue("fresh_postgresql"))


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    with closing(Database(url, create=True)) as found:
        yield found
