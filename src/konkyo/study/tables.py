"""The tables of the studies. Everything of a study is in them, its pictures too.

``rankings`` is only ever appended to: the row with the highest revision is what holds, and two who save
the same revision at once cannot both succeed.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)  # fmt: skip

VERSION = 1
"""Of this file. A database says which it has, and no other is opened."""

metadata = MetaData()

_WORD = String(64)
_TIME = String(32)  # ISO 8601, UTC: SQLite would forget the zone of a date


def _of(column: str) -> ForeignKey:
    return ForeignKey(column, ondelete="CASCADE")


schema = Table("study_schema", metadata, Column("version", Integer, primary_key=True))

studies = Table(
    "studies",
    metadata,
    Column("id", _WORD, primary_key=True),
    Column("title", Text, nullable=False),
    Column("instruction", Text, nullable=False),
    Column("settings", JSON, nullable=False),  # how the maps were made and drawn
    Column("created", _TIME, nullable=False),
    Column("ready", Boolean, nullable=False),  # every picture is in
    Column("closed", _TIME),  # since when no answers are taken
)

entries = Table(  # what is compared; never sent to a browser
    "study_entries",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study", _WORD, _of("studies.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("model", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("method", Text, nullable=False),
    UniqueConstraint("study", "number"),
)

items = Table(  # the images
    "study_items",
    metadata,
    Column("id", _WORD, primary_key=True),
    Column("study", _WORD, _of("studies.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("name", Text, nullable=False),  # of its file
    Column("label", Text, nullable=False),  # of its class, as subjects read it
    Column("width", Integer, nullable=False),  # of its pictures
    Column("height", Integer, nullable=False),
    UniqueConstraint("study", "number"),
)

pictures = Table(
    "study_pictures",
    metadata,
    Column("id", _WORD, primary_key=True),
    Column("item", _WORD, _of("study_items.id"), nullable=False, index=True),
    Column("entry", Integer, _of("study_entries.id"), index=True),  # null: the image itself
    Column("png", LargeBinary, nullable=False),
    UniqueConstraint("item", "entry"),
)

subjects = Table(
    "study_subjects",
    metadata,
    Column("id", _WORD, primary_key=True),
    Column("study", _WORD, _of("studies.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("token", LargeBinary(32), nullable=False, unique=True),  # SHA-256 of it
    Column("seed", _WORD, nullable=False),  # of the order of images and maps
    Column("created", _TIME, nullable=False),
    Column("finished", _TIME),
    UniqueConstraint("study", "number"),
)

rankings = Table(
    "study_rankings",
    metadata,
    Column("subject", _WORD, _of("study_subjects.id"), primary_key=True),
    Column("item", _WORD, _of("study_items.id"), primary_key=True, index=True),
    Column("revision", Integer, primary_key=True),  # from 1
    Column("ranking", JSON, nullable=False),  # ids of pictures, best first
    Column("done", Boolean, nullable=False),
    Column("saved", _TIME, nullable=False),
)
