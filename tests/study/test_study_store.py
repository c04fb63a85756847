"""Studies in a database, SQLite and PostgreSQL alike: what is kept, what is refused, and who wins."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import delete, insert, select, text, update

from konkyo.errors import (
    InvalidParameter,
    StaleRanking,
    StudyClosed,
    StudyFinished,
    StudyStoreFailed,
    StudyUnfinished,
    UnknownItem,
)  # fmt: skip
from konkyo.study import tables
from konkyo.study.answering import (
    find_subject,
    finish,
    read_item,
    read_overview,
    read_picture,
    save_ranking,
)  # fmt: skip
from konkyo.study.database import Database, read_url
from konkyo.study.records import Item
from konkyo.study.store import Store
from konkyo.study.views import Ranking, RankingRequest, Subject
from made_studies import ENTRIES, INSTRUCTION, TITLE, fill, make, png


@pytest.fixture
def store(database: Database) -> Store:
    return Store(database)


@pytest.fixture
def study(store: Store) -> str:
    return fill(store)


def invited(database: Database, study: str) -> Subject:
    [token] = Store(database).invite(study, 1)
    subject = find_subject(database, study, token)
    assert subject is not None
    return subject


@pytest.fixture
def subject(database: Database, study: str) -> Subject:
    return invited(database, study)


def save(
    database: Database, subject: Subject, item: str, ranking: list[str], revision: int = 0, done: bool = True
) -> Ranking:
    return save_ranking(
        database, subject, item, RankingRequest(ranking=ranking, done=done, revision=revision)
    )


def first(database: Database, subject: Subject) -> str:
    return read_overview(database, subject).items[0].item


def do_all(database: Database, subject: Subject) -> None:
    for summary in read_overview(database, subject).items:
        save(database, subject, summary.item, read_item(database, subject, summary.item).maps)


class TestWhatASubjectSees:
    def test_the_study(self, database: Database, study: str, subject: Subject) -> None:
        overview = read_overview(database, subject)
        assert (overview.title, overview.instruction, overview.maps) == (TITLE, INSTRUCTION, 3)
        assert (overview.closed, overview.finished, overview.done) == (False, False, 0)
        assert [summary.number for summary in overview.items] == [1, 2, 3, 4]
        assert {summary.state for summary in overview.items} == {"new"}
        assert overview.next == overview.items[0].item

    def test_an_image_with_every_map_once(
        self, database: Database, store: Store, study: str, subject: Subject
    ) -> None:
        shown = {item.id: item for item in store.answers(study).items}
        overview = read_overview(database, subject)
        assert {summary.item for summary in overview.items} == shown.keys()
        for summary in overview.items:
            view = read_item(database, subject, summary.item)
            stored = shown[summary.item]
            assert (view.item, view.number, view.of) == (summary.item, summary.number, 4)
            assert (view.label, view.width, view.height) == (stored.label, 6, 4)
            assert view.image == stored.picture
            assert Counter(view.maps) == Counter(stored.maps)
            assert (view.ranking, view.done, view.revision) == ([], False, 0)

    def test_the_pictures(self, database: Database, store: Store, study: str, subject: Subject) -> None:
        """As they were put in: 100 for the first image, and one more for each entry."""
        for number, item in enumerate(store.answers(study).items, 1):
            assert read_picture(database, subject, item.picture) == png(100 * number)
            for index, picture in enumerate(item.maps, 1):
                assert (
                    read_picture(database, subject, picture)
                    == store.picture(picture)
                    == png(100 * number + index)
                )

    def test_an_order_of_its_own_and_the_same_every_time(self, database: Database, store: Store) -> None:
        study = fill(store, images=12)
        people = [invited(database, study) for _ in range(8)]
        orders = [tuple(summary.item for summary in read_overview(database, one).items) for one in people]
        assert len(set(orders)) == 8  # of 12! there are
        item = orders[0][0]
        assert len({tuple(read_item(database, one, item).maps) for one in people}) > 1
        for one, order in zip(people, orders, strict=True):
            assert tuple(summary.item for summary in read_overview(database, one).items) == order
            assert read_item(database, one, item).maps == read_item(database, one, item).maps

    def test_maps_stand_in_each_place_about_as_often(self, database: Database, store: Store) -> None:
        """Of 60 x 3 images each entry is first in a third: 60, and the deviation is sqrt(180 2/9) = 6.3."""
        study = fill(store, images=3)
        entry = {item.id: item.maps for item in store.answers(study).items}
        tokens = store.invite(study, 60)
        leading: Counter[int] = Counter()
        with database.reading() as connection:
            rows = connection.execute(
                select(tables.subjects.c.id).where(tables.subjects.c.study == study)
            ).all()
        assert len(rows) == len(tokens)
        for number, row in enumerate(rows):
            one = Subject(row.id, study, f"seed {number}")  # so that the test is the same every time
            for item, maps in entry.items():
                leading[maps.index(read_item(database, one, item).maps[0])] += 1
        assert sum(leading.values()) == 180
        assert all(abs(leading[index] - 60) < 25 for index in range(3))

    def test_where_to_go_on(self, database: Database, subject: Subject) -> None:
        order = [summary.item for summary in read_overview(database, subject).items]
        maps = [read_item(database, subject, item).maps for item in order]
        save(database, subject, order[0], maps[0])
        save(database, subject, order[1], maps[1][:1], done=False)
        save(database, subject, order[2], maps[2])
        overview = read_overview(database, subject)
        assert [summary.state for summary in overview.items] == ["done", "draft", "done", "new"]
        assert (overview.done, overview.next) == (2, order[1])


class TestWhoIsLetIn:
    def test_by_the_token_and_study_together(self, database: Database, store: Store, study: str) -> None:
        other = fill(store)
        [token] = store.invite(study, 1)
        assert find_subject(database, study, token) is not None
        assert find_subject(database, other, token) is None
        assert find_subject(database, "none", token) is None
        for wrong in ("", token[:-1], token + "A", token.swapcase(), "\udcff", "A" * 43):
            assert find_subject(database, study, wrong) is None

    def test_nobody_before_every_picture_is_in(self, database: Database, store: Store) -> None:
        study = store.begin(TITLE, INSTRUCTION, {}, ENTRIES)
        [token] = store.invite(study, 1)
        assert find_subject(database, study, token) is None
        store.complete(study)
        assert find_subject(database, study, token) is not None

    def test_tokens_are_long_and_only_their_hashes_are_kept(
        self, database: Database, store: Store, study: str
    ) -> None:
        tokens = store.invite(study, 20)
        assert len({*tokens}) == 20
        assert min(map(len, tokens)) == 43  # 256 bits in base64
        with database.reading() as connection:
            rows = connection.execute(select(tables.subjects)).all()
        assert {row.token for row in rows} == {hashlib.sha256(token.encode()).digest() for token in tokens}
        assert not any(token in repr(row) for row in rows for token in tokens)
        assert [row.number for row in rows] == list(range(1, 21))
        assert [row.number for row in rows if row.finished] == []

    def test_of_one_study_nothing_of_another(
        self, database: Database, store: Store, subject: Subject
    ) -> None:
        other = store.answers(fill(store)).items[0]
        with pytest.raises(UnknownItem):
            read_item(database, subject, other.id)
        with pytest.raises(UnknownItem):
            save(database, subject, other.id, list(other.maps))
        for picture in (other.picture, *other.maps):
            with pytest.raises(UnknownItem):
                read_picture(database, subject, picture)


class TestSaving:
    def test_it_is_there_when_it_is_read_again(self, database: Database, subject: Subject) -> None:
        item = first(database, subject)
        maps = read_item(database, subject, item).maps
        order = [maps[2], maps[0], maps[1]]
        saved = save(database, subject, item, order)
        assert saved == Ranking(ranking=order, done=True, revision=1)
        view = read_item(database, subject, item)
        assert (view.ranking, view.done, view.revision, view.maps) == (order, True, 1, maps)

    def test_a_draft_of_some_maps_then_of_none_then_all(self, database: Database, subject: Subject) -> None:
        item = first(database, subject)
        maps = read_item(database, subject, item).maps
        save(database, subject, item, maps[:2], 0, done=False)
        save(database, subject, item, [], 1, done=False)
        assert save(database, subject, item, maps, 2).revision == 3
        assert save(database, subject, item, maps, 3, done=False).revision == 4  # a draft again
        assert read_overview(database, subject).done == 0

    def test_a_stale_revision_is_told_what_was_saved(self, database: Database, subject: Subject) -> None:
        """Two tabs read revision 1; who saves first wins, and the other is shown how it stands."""
        item = first(database, subject)
        a, b, c = read_item(database, subject, item).maps
        save(database, subject, item, [a, b, c])
        save(database, subject, item, [b, a, c], 1)
        for revision in (0, 1, 3, 99):
            with pytest.raises(StaleRanking) as stale:
                save(database, subject, item, [c, b, a], revision)
            assert stale.value.detail == {"ranking": [b, a, c], "done": True, "revision": 2}
        assert save(database, subject, item, [c, b, a], 2).revision == 3

    def test_the_same_once_more_is_no_conflict(self, database: Database, subject: Subject) -> None:
        item = first(database, subject)
        maps = read_item(database, subject, item).maps
        assert [save(database, subject, item, maps).revision for _ in range(3)] == [1, 1, 1]
        save(database, subject, item, maps[::-1], 1)
        with pytest.raises(StaleRanking):  # what was once saved, but is not any more
            save(database, subject, item, maps, 1)

    def test_an_empty_draft_is_saved_too(self, database: Database, subject: Subject) -> None:
        item = first(database, subject)
        assert save(database, subject, item, [], done=False) == Ranking(revision=1)

    def test_what_is_no_ranking_of_these_maps(
        self, database: Database, store: Store, study: str, subject: Subject
    ) -> None:
        item = first(database, subject)
        view = read_item(database, subject, item)
        a, b, c = view.maps
        other = next(other for other in store.answers(study).items if other.id != item)
        for ranking, done in (
            ([a, b, b], True), ([a, a], False), ([a, b], True), ([], True), ([a, b, "none"], False),
            ([a, b, view.image], True), ([a, b, other.maps[0]], True), ([a, b, c, other.maps[0]], False),
        ):  # fmt: skip
            with pytest.raises(InvalidParameter, match="ranking"):
                save(database, subject, item, ranking, done=done)
        assert read_item(database, subject, item).revision == 0

    def test_the_whole_history_stays(self, database: Database, subject: Subject) -> None:
        item = first(database, subject)
        a, b, c = read_item(database, subject, item).maps
        for revision, order in enumerate(([a], [a, b], [c, a, b])):
            save(database, subject, item, order, revision, done=False)
        with database.reading() as connection:
            rows = connection.execute(select(tables.rankings).order_by(tables.rankings.c.revision)).all()
        assert [row.ranking for row in rows] == [[a], [a, b], [c, a, b]]

    def test_finishing_takes_every_image_and_ends_it(self, database: Database, subject: Subject) -> None:
        item = first(database, subject)
        with pytest.raises(StudyUnfinished) as unfinished:
            finish(database, subject)
        assert unfinished.value.detail == {"left": 4}
        do_all(database, subject)
        maps = read_item(database, subject, item).maps
        save(database, subject, item, maps, 1, done=False)
        with pytest.raises(StudyUnfinished) as unfinished:
            finish(database, subject)
        assert unfinished.value.detail == {"left": 1}
        save(database, subject, item, maps, 2)
        finish(database, subject)
        finish(database, subject)
        assert read_overview(database, subject).finished
        with pytest.raises(StudyFinished):
            save(database, subject, item, maps[::-1], 3)
        assert read_item(database, subject, item).ranking == maps


class TestTheOperator:
    def test_a_closed_study_is_read_and_not_answered(
        self, database: Database, store: Store, study: str, subject: Subject
    ) -> None:
        do_all(database, subject)
        item = first(database, subject)
        maps = read_item(database, subject, item).maps
        store.close(study)
        assert read_overview(database, subject).closed
        with pytest.raises(StudyClosed):
            save(database, subject, item, maps[::-1], 1)
        with pytest.raises(StudyClosed):
            finish(database, subject)
        store.close(study, closed=False)
        assert save(database, subject, item, maps[::-1], 1).revision == 2
        finish(database, subject)

    def test_what_is_deleted_is_not_in_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / "s.db"
        made = make(path)
        assert TITLE.encode() in path.read_bytes()
        with closing(Database(str(path))) as database:
            Store(database).delete(made.study)
        assert TITLE.encode() not in path.read_bytes()

    def test_what_is_closed_again_was_closed_before(
        self, database: Database, store: Store, study: str
    ) -> None:
        earlier = "2026-01-02T03:04:05+00:00"
        with database.writing() as connection:
            connection.execute(update(tables.studies).values(closed=earlier))
        store.close(study)
        assert store.summary(study).closed == earlier

    def test_summaries(self, database: Database, store: Store, study: str, subject: Subject) -> None:
        other = store.begin("Another", INSTRUCTION, {}, ENTRIES[:2])
        invited(database, study)
        do_all(database, subject)
        save(database, subject, first(database, subject), [], 1, done=False)
        found = {summary.id: summary for summary in store.summaries()}
        one, two = found[study], found[other]
        assert (one.entries, one.items, one.subjects, one.finished, one.done) == (3, 4, 2, 0, 3)
        assert (two.entries, two.items, two.subjects, two.finished, two.done) == (2, 0, 0, 0, 0)
        assert (one.ready, two.ready, two.title) == (True, False, "Another")
        assert store.summary(study) == one

    def test_deleting_leaves_nothing_of_it_and_all_of_the_others(
        self, database: Database, store: Store, study: str, subject: Subject
    ) -> None:
        other = fill(store)
        someone = invited(database, other)
        do_all(database, subject)
        do_all(database, someone)
        store.delete(study)
        with database.reading() as connection:
            counts = {
                name: len(connection.execute(select(table)).all())
                for name, table in tables.metadata.tables.items()
            }
        assert counts == {
            "study_schema": 1, "studies": 1, "study_entries": 3, "study_items": 4, "study_pictures": 16,
            "study_subjects": 1, "study_rankings": 4,
        }  # fmt: skip
        assert read_overview(database, someone).done == 4

    def test_who_withdraws_leaves_nothing(self, database: Database, store: Store, study: str) -> None:
        tokens = store.invite(study, 3)
        for token in tokens:
            subject = find_subject(database, study, token)
            assert subject is not None
            do_all(database, subject)
        store.withdraw(study, 2)
        assert [find_subject(database, study, token) is None for token in tokens] == [False, True, False]
        assert {number for number, _ in store.answers(study).rankings} == {1, 3}
        assert store.summary(study).done == 8
        with pytest.raises(ValueError, match="no subject 2"):
            store.withdraw(study, 2)

    def test_what_is_not_there(self, store: Store) -> None:
        for call in (
            store.summary,
            store.close,
            store.delete,
            store.answers,
            lambda study: store.invite(study, 1),
        ):
            with pytest.raises(ValueError, match="there is no study x; konkyo study list"):
                call("x")

    def test_a_map_for_each_entry(self, store: Store) -> None:
        study = store.begin(TITLE, INSTRUCTION, {}, ENTRIES)
        with pytest.raises(ValueError, match="zip"):
            store.add(study, 1, Item("a", "cat", png(0), [png(1), png(2)], (6, 4)))
        assert store.summary(study).items == 0

    def test_the_answers_to_score(self, database: Database, store: Store, study: str) -> None:
        people = [invited(database, study) for _ in range(3)]
        items = store.answers(study).items
        for one, order in zip(people[:2], ((2, 0, 1), (0, 1, 2)), strict=True):
            save(database, one, items[0].id, [items[0].maps[index] for index in order])
        save(database, people[2], items[0].id, list(items[0].maps), done=False)  # a draft is no answer
        answers = store.answers(study)
        assert answers.entries == ENTRIES
        assert [(item.name, item.label) for item in answers.items] == [
            ("cat/1.jpg", "cat"), ("dog/2.jpg", "dog"), ("cat/3.jpg", "cat"), ("dog/4.jpg", "dog"),
        ]  # fmt: skip
        assert answers.subjects == ((1, False), (2, False), (3, False))
        maps = items[0].maps
        assert answers.rankings == {
            (1, items[0].id): (maps[2], maps[0], maps[1]),
            (2, items[0].id): maps,
        }
        assert answers.study["title"] == TITLE
        assert answers.study["settings"] == {"target": "true"}


class TestManyAtOnce:
    def test_of_many_savers_of_one_revision_one_wins(self, database: Database, subject: Subject) -> None:
        item = first(database, subject)
        maps = read_item(database, subject, item).maps
        orders = [[maps[i], maps[j]] for i in range(3) for j in range(3) if i != j]
        together = threading.Barrier(len(orders))
        outcomes: list[Ranking | StaleRanking] = []

        def race(order: list[str]) -> None:
            together.wait()
            try:
                outcomes.append(save(database, subject, item, order, done=False))
            except StaleRanking as stale:
                outcomes.append(stale)

        threads = [threading.Thread(target=race, args=(order,)) for order in orders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        [won] = [outcome for outcome in outcomes if isinstance(outcome, Ranking)]
        assert len(outcomes) == 6
        view = read_item(database, subject, item)
        assert (view.ranking, view.revision) == (won.ranking, 1)
        assert all(
            outcome.detail["ranking"] == won.ranking
            for outcome in outcomes
            if isinstance(outcome, StaleRanking)
        )

    def test_what_is_saved_while_a_study_is_closed_is_refused_or_counted(
        self, database: Database, store: Store, study: str
    ) -> None:
        """Who was told that it is saved finds it in the answers read after closing."""
        people = [invited(database, study) for _ in range(6)]
        maps = list(store.answers(study).items[0].maps)
        item = store.answers(study).items[0].id
        together = threading.Barrier(len(people) + 1)
        saved: list[int] = []

        def answer(number: int) -> None:
            together.wait()
            try:
                save(database, people[number - 1], item, maps)
                saved.append(number)
            except StudyClosed:
                pass

        threads = [threading.Thread(target=answer, args=(number,)) for number in range(1, len(people) + 1)]
        for thread in threads:
            thread.start()
        together.wait()
        store.close(study)
        counted = store.answers(study).rankings
        for thread in threads:
            thread.join()
        assert sorted(number for number, _ in store.answers(study).rankings) == sorted(saved)
        assert counted.keys() == {(number, item) for number in saved}


class TestOpening:
    def test_again(self, url: str) -> None:
        made = make(url)
        with closing(Database(url)) as database:
            subject = find_subject(database, made.study, made.tokens[0])
            assert subject is not None
            assert read_overview(database, subject).title == TITLE
        with closing(Database(url, create=True)) as database:  # to add another study
            assert len(Store(database).summaries()) == 1

    def test_another_version(self, url: str) -> None:
        make(url)
        with closing(Database(url)) as database, database.writing() as connection:
            connection.execute(update(tables.schema).values(version=7))
        with pytest.raises(StudyStoreFailed, match="of version 7, and this program reads 1"):
            Database(url)

    def test_one_of_something_else(self, url: str) -> None:
        with closing(Database(url, create=True)) as database, database.writing() as connection:
            tables.metadata.drop_all(connection)
            connection.execute(text("CREATE TABLE studies (id INTEGER)"))
        for create in (False, True):
            with pytest.raises(StudyStoreFailed, match="no database of studies: another program's tables"):
                Database(url, create=create)

    def test_an_empty_one_is_not_filled_unasked(self, url: str) -> None:
        with closing(Database(url, create=True)) as database, database.writing() as connection:
            tables.metadata.drop_all(connection)
        with pytest.raises(StudyStoreFailed, match="no database of studies: it is empty"):
            Database(url)

    def test_no_database_at_all(self, tmp_path: Path) -> None:
        path = tmp_path / "notes.txt"
        path.write_text("not a database " * 100)
        for create in (False, True):
            with pytest.raises(StudyStoreFailed, match=r"notes\.txt: .*file is not a database"):
                Database(str(path), create=create)
        assert path.read_text() == "not a database " * 100

    def test_a_file_that_is_not_there_is_not_made(self, tmp_path: Path) -> None:
        with pytest.raises(StudyStoreFailed, match="there is no such file; konkyo study create makes it"):
            Database(str(tmp_path / "none.db"))
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(StudyStoreFailed, match="unable to open"):
            Database(str(tmp_path / "none" / "none.db"), create=True)

    def test_a_server_that_is_not_there(self, tmp_path: Path) -> None:
        pytest.importorskip("psycopg")
        with pytest.raises(StudyStoreFailed) as failed:
            Database(f"postgresql://somebody:geheim@/x?host={tmp_path}", create=True)
        assert "geheim" not in failed.value.message
        assert "***" in failed.value.message

    def test_a_path_is_a_file_of_sqlite(self) -> None:
        assert read_url("studies.db").render_as_string() == "sqlite:///studies.db"
        assert read_url("/a b/s.db").database == "/a b/s.db"
        assert read_url("postgresql://host/x").drivername == "postgresql+psycopg"

    @pytest.mark.parametrize(
        ("given", "why"),
        [
            ("mysql://host/x", "not in mysql"), ("sqlite://", "a file"), ("sqlite:///:memory:", "a file"),
            ("", "a file"), ("://", "no URL"), ("sqlite:///x.db?mode=ro", "a file"),
        ],
    )  # fmt: skip
    def test_what_is_no_url_of_ours(self, given: str, why: str) -> None:
        with pytest.raises(ValueError, match=why):
            read_url(given)


class TestSQLite:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Iterator[Database]:
        with closing(Database(str(tmp_path / "s.db"), create=True)) as found:
            yield found

    def test_how_it_is_set_up(self, file: Database) -> None:
        with file.reading() as connection:
            pragmas = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
                for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            }
        assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10_000}

    def test_one_who_holds_it_too_long_is_a_failure_and_no_hang(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("konkyo.study.database.WAIT_SECONDS", 0.05)
        path = tmp_path / "s.db"
        with closing(Database(str(path), create=True)) as file, closing(sqlite3.connect(path)) as other:
            store = Store(file)
            study = fill(store, images=1)
            subject = invited(file, study)
            item = first(file, subject)
            maps = read_item(file, subject, item).maps
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StudyStoreFailed, match="database is locked"):
                save(file, subject, item, maps)
            assert read_item(file, subject, item).revision == 0  # reading goes on
            other.rollback()
            assert save(file, subject, item, maps).revision == 1

    def test_what_points_nowhere_is_refused(self, file: Database) -> None:
        with pytest.raises(StudyStoreFailed, match="FOREIGN KEY"), file.writing() as connection:
            connection.execute(
                insert(tables.items).values(
                    id="a", study="none", number=1, name="", label="", width=1, height=1
                )
            )

    def test_half_of_a_transaction_is_none(self, file: Database) -> None:
        study = fill(Store(file))
        with suppress(RuntimeError), file.writing() as connection:
            connection.execute(delete(tables.studies).where(tables.studies.c.id == study))
            raise RuntimeError
        assert Store(file).summary(study).items == 4


def test_the_seed_alone_decides_the_order(database: Database, study: str) -> None:
    one, two = invited(database, study), invited(database, study)
    assert read_overview(database, replace(one, id=two.id)).items == read_overview(database, one).items
