"""Many subjects at once at a real server of two processes: what was acknowledged is there, all of it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select

from konkyo.service.demo import running_server
from konkyo.service.settings import ZOO
from konkyo.study import tables
from konkyo.study.database import Database
from konkyo.study.store import Store
from made_studies import Made, make

SUBJECTS, IMAGES, TABS = 12, 6, 2


@pytest.fixture
def made(url: str) -> Made:
    return make(url, SUBJECTS, IMAGES)


@pytest.fixture
def address(made: Made, tmp_path: Path) -> Iterator[str]:
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / "gcm-cifar10").symlink_to(ZOO / "gcm-cifar10")
    with running_server(
        "--studies", made.url, "--processes", "2", "--threads", "1", "--device", "cpu",
        "--repository", str(repository), "--log-level", "warning",
    ) as found:  # fmt: skip
        yield found


def take_part(address: str, study: str, token: str, seed: int) -> list[tuple[str, int, list[str], bool]]:
    """Rank every image as somebody does who changes his mind; what was acknowledged, in order.

    Somebody else is at it by the same link, so some of it is refused, and is then done over what is there.
    """
    chance = random.Random(seed)
    saved = []
    headers = {"authorization": f"Bearer {token}"}
    root = f"{address}/v1/studies/{study}"
    with httpx.Client(headers=headers, timeout=60, trust_env=False) as client:
        items = [summary["item"] for summary in client.get(root).raise_for_status().json()["items"]]
        for item in items:
            view = client.get(f"{root}/items/{item}").raise_for_status().json()
            revision = view["revision"]
            for place in (1, 2, 3):
                ranking = chance.sample(view["maps"], place)
                done = place == 3
                while True:
                    body = {"ranking": ranking, "done": done, "revision": revision}
                    answer = client.put(f"{root}/items/{item}/ranking", json=body)
                    if answer.status_code == 200:
                        revision = answer.json()["revision"]
                        saved.append((item, revision, ranking, done))
                        break
                    assert answer.json()["error"]["code"] == "stale_ranking", answer.text
                    revision = answer.json()["error"]["detail"]["revision"]
    return saved


def test_nothing_that_was_acknowledged_is_lost(made: Made, address: str) -> None:
    people = [(number, tab) for number in range(SUBJECTS) for tab in range(TABS)]
    with ThreadPoolExecutor(len(people)) as pool:
        acknowledged = list(
            pool.map(lambda who: take_part(address, made.study, made.tokens[who[0]], hash(who)), people)
        )
    with closing(Database(made.url)) as database:
        with database.reading() as connection:
            rows = connection.execute(
                select(tables.rankings, tables.subjects.c.number).join(tables.subjects)
            ).all()
            revisions = connection.execute(
                select(func.count(), func.max(tables.rankings.c.revision)).group_by(
                    tables.rankings.c.subject, tables.rankings.c.item
                )
            ).all()
        answers = Store(database).answers(made.study)
    kept = {(row.number - 1, row.item, row.revision): (row.ranking, row.done) for row in rows}
    told = {
        (number, item, revision): (ranking, done)
        for (number, _), saved in zip(people, acknowledged, strict=True)
        for item, revision, ranking, done in saved
    }
    assert told == kept  # every one, as it was sent, and nothing else
    assert sum(map(len, acknowledged)) == len(people) * IMAGES * 3
    assert all(count == last for count, last in revisions)  # no revision is missing
    assert len(revisions) == SUBJECTS * IMAGES
    for (number, item), ranking in answers.rankings.items():
        last = max(revision for who, what, revision in kept if (who, what) == (number - 1, item))
        assert kept[number - 1, item, last] == (list(ranking), True)
