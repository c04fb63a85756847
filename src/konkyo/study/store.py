"""What the operator does: makes a study, invites subjects, closes and deletes it, and reads the answers."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import func, select

from konkyo.study.answering import hash_token, latest_rankings
from konkyo.study.database import Database, now
from konkyo.study.records import Answers, Entry, Item, Shown, Summary
from konkyo.study.tables import entries, items, pictures, rankings, studies, subjects


class Store:
    """The studies of a database, as the operator sees them.

    Every method raises ``StudyStoreFailed`` where the database fails, and ``ValueError`` where there is no
    such study.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(
        self, title: str, instruction: str, settings: Mapping[str, Any], compared: Sequence[Entry]
    ) -> str:
        """Make a study without images, which nobody sees before ``complete``; returns its id."""
        study = _word()
        with self._database.writing() as connection:
            connection.execute(
                studies.insert().values(
                    id=study, title=title, instruction=instruction, settings=dict(settings),
                    created=now(), ready=False,
                )
            )  # fmt: skip
            connection.execute(
                entries.insert(),
                [
                    {
                        "study": study, "number": number, "model": entry.model, "version": entry.version,
                        "digest": entry.digest, "method": entry.method,
                    }
                    for number, entry in enumerate(compared, 1)
                ],
            )  # fmt: skip
        return study

    def add(self, study: str, number: int, item: Item) -> None:
        """Put in an image, with a map of every entry, each under an id that says nothing of it."""
        width, height = item.size
        with self._database.writing() as connection:
            keys = connection.execute(
                select(entries.c.id).where(entries.c.study == study).order_by(entries.c.number)
            ).scalars()
            identity = _word()
            connection.execute(
                items.insert().values(
                    id=identity, study=study, number=number, name=item.name, label=item.label,
                    width=width, height=height,
                )
            )  # fmt: skip
            shown = [(None, item.image), *zip(keys, item.maps, strict=True)]
            connection.execute(
                pictures.insert(),
                [{"id": _word(), "item": identity, "entry": entry, "png": png} for entry, png in shown],
            )

    def complete(self, study: str) -> None:
        """Every image is in."""
        with self._database.writing() as connection:
            connection.execute(studies.update().where(studies.c.id == study).values(ready=True))

    def invite(self, study: str, number: int) -> list[str]:
        """Add so many subjects; returns their tokens, of which only the hashes are kept."""
        self.summary(study)
        tokens = [secrets.token_urlsafe(32) for _ in range(number)]
        with self._database.writing() as connection:
            connection.execute(select(studies.c.id).where(studies.c.id == study).with_for_update())
            last = connection.execute(
                select(func.coalesce(func.max(subjects.c.number), 0)).where(subjects.c.study == study)
            ).scalar_one()
            connection.execute(
                subjects.insert(),
                [
                    {
                        "id": _word(), "study": study, "number": position, "token": hash_token(token),
                        "seed": secrets.token_hex(16), "created": now(),
                    }
                    for position, token in enumerate(tokens, last + 1)
                ],
            )  # fmt: skip
        return tokens

    def withdraw(self, study: str, number: int) -> None:
        """Remove a subject with all its answers; its link is no more one into a study."""
        self.summary(study)
        query = subjects.delete().where(subjects.c.study == study, subjects.c.number == number)
        with self._database.writing() as connection:
            if not connection.execute(query).rowcount:
                raise ValueError(f"study {study} has no subject {number}")

    def summaries(self) -> list[Summary]:
        """Every study, the oldest first."""
        with self._database.reading() as connection:
            found = connection.execute(_summaries().order_by(studies.c.created, studies.c.id)).all()
        return [Summary(**row._mapping) for row in found]

    def summary(self, study: str) -> Summary:
        """One study."""
        with self._database.reading() as connection:
            row = connection.execute(_summaries().where(studies.c.id == study)).one_or_none()
        if row is None:
            raise _unknown(study)
        return Summary(**row._mapping)

    def close(self, study: str, *, closed: bool = True) -> None:
        """Take no more answers, or take them again; what is closed stays closed since when it was."""
        since = func.coalesce(studies.c.closed, now()) if closed else None
        query = studies.update().where(studies.c.id == study).values(closed=since)
        with self._database.writing() as connection:
            if not connection.execute(query).rowcount:
                raise _unknown(study)

    def delete(self, study: str) -> None:
        """Remove a study with everything of it."""
        with self._database.writing() as connection:
            if not connection.execute(studies.delete().where(studies.c.id == study)).rowcount:
                raise _unknown(study)

    def picture(self, picture: str) -> bytes:
        """A picture, a PNG."""
        with self._database.reading() as connection:
            png: bytes = connection.execute(
                select(pictures.c.png).where(pictures.c.id == picture)
            ).scalar_one()
        return png

    def answers(self, study: str) -> Answers:
        """Everything that was answered, of one moment."""
        self.summary(study)
        with self._database.reading() as connection:
            row = connection.execute(select(studies).where(studies.c.id == study)).one()
            compared = connection.execute(
                select(entries).where(entries.c.study == study).order_by(entries.c.number)
            ).all()
            shown = connection.execute(
                select(
                    items.c.id, items.c.name, items.c.label, pictures.c.id.label("picture"), entries.c.number
                )
                .join(pictures, pictures.c.item == items.c.id)
                .outerjoin(entries, entries.c.id == pictures.c.entry)
                .where(items.c.study == study)
                .order_by(items.c.number)
            ).all()
            people = connection.execute(
                select(subjects).where(subjects.c.study == study).order_by(subjects.c.number)
            ).all()
            of_study = rankings.c.subject.in_(select(subjects.c.id).where(subjects.c.study == study))
            saved = connection.execute(latest_rankings(of_study)).all()
        numbers = {subject.id: subject.number for subject in people}
        return Answers(
            dict(row._mapping),
            tuple(Entry(entry.model, entry.version, entry.digest, entry.method) for entry in compared),
            _gathered(shown),
            tuple((subject.number, subject.finished is not None) for subject in people),
            {(numbers[row.subject], row.item): tuple(row.ranking) for row in saved if row.done},
        )


def _gathered(rows: Sequence[Any]) -> tuple[Shown, ...]:
    """One row a picture -> one image with its pictures, maps in the order of the entries."""
    by_item: dict[str, dict[int | None, Any]] = {}
    for row in rows:
        by_item.setdefault(row.id, {})[row.number] = row
    found = []
    for item, shown in by_item.items():
        image = shown.pop(None)
        maps = tuple(shown[number].picture for number in sorted(key for key in shown if key is not None))
        found.append(Shown(item, image.name, image.label, image.picture, maps))
    return tuple(found)


def _summaries() -> Any:
    """A row for each study, its columns those of ``Summary``."""

    def count(table: Any) -> Any:
        return select(func.count()).select_from(table).where(table.c.study == studies.c.id)

    last = latest_rankings(rankings.c.revision > 0).subquery()
    done = (
        select(func.count())
        .select_from(last.join(subjects, subjects.c.id == last.c.subject))
        .where(last.c.done, subjects.c.study == studies.c.id)
    )
    return select(
        studies.c.id, studies.c.title, studies.c.created, studies.c.ready, studies.c.closed,
        count(entries).scalar_subquery().label("entries"),
        count(items).scalar_subquery().label("items"),
        count(subjects).scalar_subquery().label("subjects"),
        count(subjects).where(subjects.c.finished.is_not(None)).scalar_subquery().label("finished"),
        done.scalar_subquery().label("done"),
    )  # fmt: skip


def _word() -> str:
    """An id that nobody guesses and that says nothing; of letters and digits, so that it is no option."""
    return secrets.token_hex(16)


def _unknown(study: str) -> ValueError:
    return ValueError(f"there is no study {study}; konkyo study list names those there are")
