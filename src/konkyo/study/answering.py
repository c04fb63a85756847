"""What a subject does: reads the images in an order of its own, and saves how it ranks their maps.

What one call saves is kept once the call returns, whatever else happens at the same time: a save is a new
row, and a save that does not know of the last one is refused with what that says.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, func, select

from konkyo.errors import (
    InvalidParameter,
    StaleRanking,
    StudyClosed,
    StudyFinished,
    StudyUnfinished,
    UnknownItem,
)  # fmt: skip
from konkyo.study.database import Database, now
from konkyo.study.tables import items, pictures, rankings, studies, subjects
from konkyo.study.views import ItemSummary, ItemView, Overview, Ranking, RankingRequest, Subject


def find_subject(database: Database, study: str, token: str) -> Subject | None:
    """The subject that has this token, None if there is none in this study; which of both it is not said.

    Looked up by the token's hash, of which nobody can choose a part: how long it takes says nothing about
    how near a token was.
    """
    digest = hash_token(token)
    with database.reading() as connection:
        row = connection.execute(
            select(subjects).join(studies).where(subjects.c.token == digest, studies.c.ready)
        ).one_or_none()
    if row is None or not hmac.compare_digest(row.token, digest) or row.study != study:
        return None
    return Subject(row.id, row.study, row.seed)


def hash_token(token: str) -> bytes:
    """What is kept of it. Tokens are 256 random bits: a slow hash would protect nothing more."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def read_overview(database: Database, subject: Subject) -> Overview:
    """The study, with the images in the subject's order."""
    with database.reading() as connection:
        study = connection.execute(select(studies).where(studies.c.id == subject.study)).one()
        finished = _finished(connection, subject)
        order = _order(connection, subject)
        found = connection.execute(latest_rankings(rankings.c.subject == subject.id)).all()
        maps = _maps(connection, order[0]) if order else []
    states = {row.item: "done" if row.done else "draft" for row in found}
    summaries = [
        ItemSummary.model_validate({"item": item, "number": number, "state": states.get(item, "new")})
        for number, item in enumerate(order, 1)
    ]
    left = [summary.item for summary in summaries if summary.state != "done"]
    return Overview(
        subject=subject.id,
        title=study.title,
        instruction=study.instruction,
        maps=len(maps),
        closed=study.closed is not None,
        finished=finished,
        items=summaries,
        done=len(summaries) - len(left),
        next=left[0] if left else None,
    )


def read_item(database: Database, subject: Subject, item: str) -> ItemView:
    """One image.

    Raises:
        UnknownItem
    """
    with database.reading() as connection:
        row = _item(connection, subject, item)
        order = _order(connection, subject)
        image = connection.execute(
            select(pictures.c.id).where(pictures.c.item == item, pictures.c.entry.is_(None))
        ).scalar_one()
        saved = _latest(connection, subject, item)
        maps = _shuffled(_maps(connection, item), subject)
    return ItemView(
        item=item,
        number=order.index(item) + 1,
        of=len(order),
        label=row.label,
        image=image,
        maps=maps,
        width=row.width,
        height=row.height,
        **saved.model_dump(),
    )


def read_picture(database: Database, subject: Subject, picture: str) -> bytes:
    """A picture of the study, a PNG.

    Raises:
        UnknownItem
    """
    with database.reading() as connection:
        png: bytes | None = connection.execute(
            select(pictures.c.png)
            .join(items)
            .where(pictures.c.id == picture, items.c.study == subject.study)
        ).scalar_one_or_none()  # fmt: skip
    if png is None:
        raise UnknownItem("this study has no such picture")
    return png


def save_ranking(database: Database, subject: Subject, item: str, request: RankingRequest) -> Ranking:
    """Save it as a new revision; once more the same is no new one, so that who got no answer may repeat it.

    Raises:
        UnknownItem
        InvalidParameter: a picture is none of this image's maps or there twice, or is missing where all is
            said to be done.
        StaleRanking: another revision was saved since.
        StudyClosed, StudyFinished
    """
    with database.writing() as connection:
        _hold_open(connection, subject)
        if _finished(connection, subject):
            raise StudyFinished("you have finished this study; what you saved is kept")
        _item(connection, subject, item)
        _check(request, _maps(connection, item))
        saved = _latest(connection, subject, item)
        if saved.revision and (saved.ranking, saved.done) == (request.ranking, request.done):
            return saved
        if saved.revision != request.revision:
            raise StaleRanking("this ranking was saved from elsewhere since", **saved.model_dump())
        new = Ranking(ranking=request.ranking, done=request.done, revision=saved.revision + 1)
        connection.execute(
            rankings.insert().values(subject=subject.id, item=item, saved=now(), **new.model_dump())
        )
    return new


def finish(database: Database, subject: Subject) -> None:
    """Say that all is done; once more changes nothing.

    Raises:
        StudyClosed
        StudyUnfinished: an image is not done; ``detail.left`` says how many.
    """
    with database.writing() as connection:
        _hold_open(connection, subject)
        if _finished(connection, subject):
            return
        found = connection.execute(latest_rankings(rankings.c.subject == subject.id)).all()
        left = len(_order(connection, subject)) - sum(row.done for row in found)
        if left:
            raise StudyUnfinished(f"{left} images are not done", left=left)
        connection.execute(subjects.update().where(subjects.c.id == subject.id).values(finished=now()))


def latest_rankings(which: ColumnElement[bool]) -> Select[Any]:
    """The rows of ``rankings`` that hold, of those that ``which`` chooses."""
    key = rankings.c.subject, rankings.c.item
    last = (
        select(*key, func.max(rankings.c.revision).label("revision")).where(which).group_by(*key).subquery()
    )
    return select(rankings).join(
        last,
        and_(
            rankings.c.subject == last.c.subject,
            rankings.c.item == last.c.item,
            rankings.c.revision == last.c.revision,
        ),
    )


def _hold_open(connection: Connection, subject: Subject) -> None:
    """Keep the study from being closed, and the subject from saving elsewhere, until the transaction ends."""
    study = select(studies.c.closed).where(studies.c.id == subject.study).with_for_update(read=True)
    if connection.execute(study).scalar_one() is not None:
        raise StudyClosed("this study is closed and takes no more answers; what was saved before is kept")
    connection.execute(select(subjects.c.id).where(subjects.c.id == subject.id).with_for_update())


def _finished(connection: Connection, subject: Subject) -> bool:
    query = select(subjects.c.finished).where(subjects.c.id == subject.id)
    return connection.execute(query).scalar_one() is not None


def _order(connection: Connection, subject: Subject) -> list[str]:
    """Ids of the images in the subject's order."""
    found = connection.execute(select(items.c.id).where(items.c.study == subject.study)).scalars()
    return _shuffled(found, subject)


def _maps(connection: Connection, item: str) -> list[str]:
    query = select(pictures.c.id).where(pictures.c.item == item, pictures.c.entry.is_not(None))
    return list(connection.execute(query).scalars())


def _item(connection: Connection, subject: Subject, item: str) -> Row[Any]:
    query = select(items).where(items.c.id == item, items.c.study == subject.study)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise UnknownItem("this study has no such image")
    return row


def _latest(connection: Connection, subject: Subject, item: str) -> Ranking:
    query = (
        select(rankings.c.ranking, rankings.c.done, rankings.c.revision)
        .where(rankings.c.subject == subject.id, rankings.c.item == item)
        .order_by(rankings.c.revision.desc())
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    return Ranking() if row is None else Ranking.model_validate(dict(row._mapping))


def _check(request: RankingRequest, maps: Sequence[str]) -> None:
    given = set(request.ranking)
    if len(given) < len(request.ranking):
        raise InvalidParameter("ranking: a picture is there twice", parameter="ranking")
    if not given <= set(maps):
        raise InvalidParameter("ranking: a picture is none of this image's maps", parameter="ranking")
    if request.done and len(given) < len(maps):
        raise InvalidParameter(
            f"ranking: {len(given)} of {len(maps)} maps are ranked; save it as a draft, with done false",
            parameter="ranking",
        )


def _shuffled(ids: Iterable[str], subject: Subject) -> list[str]:
    """In an order that is the subject's own, and the same every time and with every version of Python."""
    return sorted(ids, key=lambda identity: hashlib.sha256(f"{subject.seed}:{identity}".encode()).digest())
