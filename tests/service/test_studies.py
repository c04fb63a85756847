"""Studies over HTTP: who is let in, what is answered, and what no answer ever says."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import logging
import re
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from services import EXPLAIN, FILES, NAME, PNG, Service, serving, zoo_settings

from konkyo.service import studies as studies_module
from konkyo.service.app import WEB, create_app
from konkyo.service.keys import append_key, make_key
from konkyo.service.settings import Settings
from konkyo.study.database import Database
from konkyo.study.store import Store
from konkyo.study.views import Finished, ItemView, Overview, Ranking
from made_studies import SECRETS, TITLE, Made, make, png


class Person:
    """A subject, by the token of a link."""

    def __init__(self, service: Service, made: Made, number: int = 0) -> None:
        self._client = service.client
        self.root = f"/v1/studies/{made.study}"
        self.headers = {"authorization": f"Bearer {made.tokens[number]}"}

    async def get(self, path: str = "", **headers: str) -> httpx.Response:
        return await self._client.get(self.root + path, headers={**self.headers, **headers})

    async def overview(self) -> Overview:
        return Overview.model_validate((await self.get()).json())

    async def view(self, item: str) -> ItemView:
        return ItemView.model_validate((await self.get(f"/items/{item}")).json())

    async def save(
        self, item: str, ranking: list[str], revision: int = 0, *, done: bool = True
    ) -> httpx.Response:
        return await self.put(item, json={"ranking": ranking, "done": done, "revision": revision})

    async def put(self, item: str, **request: Any) -> httpx.Response:
        headers = {**self.headers, **request.pop("headers", {})}
        return await self._client.put(f"{self.root}/items/{item}/ranking", headers=headers, **request)

    async def finish(self) -> httpx.Response:
        return await self._client.post(f"{self.root}/finish", headers=self.headers)

    async def first(self) -> ItemView:
        return await self.view((await self.overview()).items[0].item)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make(tmp_path / "studies.db")


@pytest.fixture
async def service(made: Made) -> AsyncIterator[Service]:
    async with serving(zoo_settings(studies=made.url)) as service:
        yield service


@pytest.fixture
def person(service: Service, made: Made) -> Person:
    return Person(service, made)


def operator(made: Made, do: Callable[[Store], object]) -> None:
    """What the command line does meanwhile."""
    with closing(Database(made.url)) as database:
        do(Store(database))


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


# A whole session


async def test_from_the_link_to_the_end(service: Service, made: Made, person: Person) -> None:
    overview = await person.overview()
    assert (overview.title, overview.maps, len(overview.items), overview.done) == (TITLE, 3, 4, 0)
    for number, summary in enumerate(overview.items, 1):
        view = await person.view(summary.item)
        assert (view.number, view.of, view.revision) == (number, 4, 0)
        half = await person.save(view.item, view.maps[:2], done=False)
        assert half.json() == {"ranking": view.maps[:2], "done": False, "revision": 1}
        whole = await person.save(view.item, view.maps[::-1], 1)
        assert Ranking.model_validate(whole.json()) == Ranking(ranking=view.maps[::-1], done=True, revision=2)
        again = await person.view(summary.item)
        assert (again.ranking, again.done, again.revision, again.maps) == (
            view.maps[::-1],
            True,
            2,
            view.maps,
        )
    overview = await person.overview()
    assert (overview.done, overview.next, overview.finished) == (4, None, False)
    assert Finished.model_validate((await person.finish()).json()).finished
    assert (await person.overview()).finished
    assert (await Person(service, made, 1).overview()).done == 0


async def test_pictures_are_files_that_a_browser_may_keep(
    person: Person, service: Service, made: Made
) -> None:
    view = await person.first()
    response = await person.get(f"/pictures/{view.image}")
    assert (response.status_code, response.headers["content-type"]) == (200, "image/png")
    assert response.content in [png(100 * number) for number in range(1, 5)]
    assert response.headers["cache-control"].startswith("private, ")
    assert response.headers["vary"] == "authorization"
    kept = await person.get(f"/pictures/{view.image}", **{"if-none-match": response.headers["etag"]})
    assert (kept.status_code, kept.content) == (304, b"")
    other = await person.get(f"/pictures/{view.maps[0]}", **{"if-none-match": response.headers["etag"]})
    assert other.status_code == 200
    without = await service.client.get(
        f"{person.root}/pictures/{view.image}", headers={"if-none-match": response.headers["etag"]}
    )
    assert without.status_code == 401


async def test_answers_are_not_kept_by_browsers(person: Person) -> None:
    view = await person.first()
    for path in ("", f"/items/{view.item}"):
        assert (await person.get(path)).headers["cache-control"] == "no-store"


async def test_no_byte_of_a_whole_session_names_what_is_compared(made: Made, tmp_path: Path) -> None:
    """Names, versions, digests, methods, and the words of them; in heads, bodies, pictures and the page."""
    said: list[bytes] = []

    async def listen(response: httpx.Response) -> None:
        await response.aread()
        said.append(b"\n".join(name + b": " + value for name, value in response.headers.raw))
        said.append(response.content)
        if response.headers.get("content-type") == "image/png":
            with Image.open(io.BytesIO(response.content)) as picture:
                assert picture.info == {}
                said.append(picture.tobytes())

    async with serving(zoo_settings(studies=made.url)) as service:
        service.client.event_hooks["response"] = [listen]
        person = Person(service, made)
        page = await service.client.get(f"/studies/{made.study}")
        assert page.status_code == 200
        for file in sorted(WEB.glob("study*/**/*")) + sorted(WEB.glob("study*")) + sorted(WEB.glob("*.css")):
            if file.is_file():
                assert (await service.client.get(f"/static/{file.relative_to(WEB)}")).status_code == 200
        overview = await person.overview()
        for summary in overview.items:
            view = await person.view(summary.item)
            for picture in (view.image, *view.maps):
                assert (await person.get(f"/pictures/{picture}")).status_code == 200
            await person.save(view.item, view.maps[:1], done=False)
            await person.save(view.item, [*view.maps, "none"], 1)
            await person.save(view.item, view.maps, 1)
            await person.save(view.item, view.maps[::-1], 1)
        for path in ("/items/none", "/pictures/none", "/none"):
            await person.get(path)
        await person.finish()
        await person.save(view.item, view.maps[::-1], 2)
        operator(made, lambda store: store.close(made.study))
        await person.save(view.item, view.maps[::-1], 2)
        await person.overview()
        await service.client.get("/openapi.json")
        operator(made, lambda store: store.delete(made.study))
        await person.get()
    assert len(said) > 80
    everything = b"\n".join(said).lower()
    assert TITLE.lower().encode() in everything
    words = {word for secret in SECRETS for word in re.split(r"[-:]", secret) if len(word) > 5} - {
        "network", "release", "attribution", "sha256",
    }  # fmt: skip
    assert {"quokka", "axolotl", "pangolin", "7" * 64} <= words
    for secret in {*SECRETS, *words}:
        assert secret.lower().encode() not in everything, secret


async def test_ids_of_the_maps_do_not_tell_the_entry(person: Person) -> None:
    """Sorted by id, sent order or whatever else is sent: no two images have an id in common."""
    views = [await person.view(summary.item) for summary in (await person.overview()).items]
    ids = [identity for view in views for identity in (view.item, view.image, *view.maps)]
    assert len({*ids}) == len(ids) == 4 * 5
    assert all(re.fullmatch("[0-9a-f]{32}", identity) for identity in ids)


# Who is let in


ROUTES = [
    ("GET", ""), ("GET", "/items/x"), ("PUT", "/items/x/ranking"), ("POST", "/finish"),
    ("GET", "/pictures/x"),
]  # fmt: skip


def test_these_are_all_routes() -> None:
    paths = create_app(zoo_settings()).openapi()["paths"]
    found = {
        (method.upper(), re.sub(r"\{\w+\}", "x", path.removeprefix("/v1/studies/{study}")))
        for path, methods in paths.items()
        if "studies" in path
        for method in methods
    }
    assert found == set(ROUTES)
    for path, methods in paths.items():
        for method, operation in methods.items() if "studies" in path else ():
            assert operation["security"] == [{"subject": []}], (method, path)


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_nobody_without_a_link(service: Service, made: Made, method: str, path: str) -> None:
    """No token, a wrong one, one of another study, and a study that is not there: told alike."""
    other = make(made.url)
    token = made.tokens[0]
    asked = [
        (made.study, {}),
        ("0" * 32, {}),
        (made.study, {"authorization": "Bearer " + token[::-1]}),
        (made.study, {"authorization": "Bearer " + other.tokens[0]}),
        ("0" * 32, {"authorization": "Bearer " + token}),
        ("0" * 32, {"authorization": "Bearer " + "A" * 43}),
    ]
    answers = [
        await service.client.request(method, f"/v1/studies/{study}{path}", headers=headers)
        for study, headers in asked
    ]
    assert {code(answer) for answer in answers} == {(401, "unauthorized")}
    assert answers[0].content == answers[1].content
    assert len({answer.content for answer in answers[2:]}) == 1
    assert answers[0].headers["www-authenticate"] == 'Bearer realm="konkyo"'
    assert {answer.headers["www-authenticate"] for answer in answers[2:]} == {
        'Bearer realm="konkyo", error="invalid_token"'
    }
    assert service.count("unauthorized_total", reason="missing") == 2
    assert service.count("unauthorized_total", reason="unknown") == 4


async def test_subjects_need_no_key_and_keys_open_no_study(made: Made, tmp_path: Path) -> None:
    secret, key = make_key("all", ["predict", "explain", "admin"])
    append_key(tmp_path / "keys", key)
    async with serving(zoo_settings(studies=made.url, api_keys_file=tmp_path / "keys")) as service:
        person = Person(service, made)
        assert (await person.overview()).title == TITLE
        assert (await person.finish()).status_code == 409
        assert (await service.client.get(f"/studies/{made.study}")).status_code == 200
        with_key = await service.client.get(person.root, headers={"authorization": f"Bearer {secret}"})
        assert with_key.status_code == 401
        for path in ("/v1/models", "/v1/info", "/metrics"):
            assert (await service.client.get(path, headers=person.headers)).status_code == 401
        asked = await service.client.post(EXPLAIN, content=FILES[0], headers={**PNG, **person.headers})
        assert asked.status_code == 401


async def test_pages_of_other_origins_save_nothing(person: Person) -> None:
    view = await person.first()
    body = {"ranking": view.maps, "done": True, "revision": 0}
    refused = await person.put(view.item, json=body, headers={"sec-fetch-site": "cross-site"})
    assert code(refused) == (403, "cross_origin")
    assert (await person.view(view.item)).revision == 0


async def test_tokens_are_in_no_log_and_no_metric(made: Made, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving(zoo_settings(studies=made.url, access_log=True)) as service:
        person = Person(service, made)
        view = await person.first()
        await person.save(view.item, view.maps)
        await Person(service, Made(made.url, "none", made.tokens)).get()
        metrics = (await service.client.get("/metrics")).text
    assert 'route="/v1/studies/{study}/items/{item}/ranking"' in metrics
    assert "PUT /v1/studies/" in caplog.text
    for token in made.tokens:
        assert token not in caplog.text
        assert token not in metrics


# Refusals


async def test_two_tabs(person: Person) -> None:
    view = await person.first()
    assert (await person.save(view.item, view.maps)).status_code == 200
    assert (await person.save(view.item, view.maps)).json()["revision"] == 1  # a repeated one is no other
    stale = await person.save(view.item, view.maps[::-1])
    assert code(stale) == (409, "stale_ranking")
    assert stale.json()["error"]["detail"] == {"ranking": view.maps, "done": True, "revision": 1}


async def test_what_is_no_ranking(person: Person) -> None:
    view = await person.first()
    right = {"ranking": view.maps, "done": True, "revision": 0}
    for wrong in (
        {"ranking": view.maps[:2]}, {"ranking": [view.maps[0]] * 3}, {"ranking": [1, 2, 3]},
        {"ranking": [*view.maps[:2], view.image]}, {"ranking": "abc"}, {"ranking": ["x"] * 1001},
        {"done": "perhaps"}, {"revision": -1}, {"revision": None}, {"score": 1},
    ):  # fmt: skip
        assert code(await person.put(view.item, json={**right, **wrong})) == (422, "invalid_parameter"), wrong
    for body in (b"", b"{", b"[]", b'"x"', b'{"ranking": NaN}'):
        assert code(await person.put(view.item, content=body)) == (400, "invalid_request"), body
    assert code(await person.put("none", json=right)) == (404, "unknown_item")
    assert code(await person.get("/items/none")) == (404, "unknown_item")
    assert code(await person.get("/pictures/none")) == (404, "unknown_item")
    assert (await person.view(view.item)).revision == 0


async def test_bodies_are_small(person: Person) -> None:
    view = await person.first()
    large = {"ranking": view.maps, "done": True, "revision": 0, "x": "x" * 65536}
    assert code(await person.put(view.item, json=large)) == (413, "body_too_large")
    inflated = gzip.compress(json.dumps(large).encode())
    response = await person.put(view.item, content=inflated, headers={"content-encoding": "gzip"})
    assert code(response) == (413, "body_too_large")


async def test_the_end_of_a_study(person: Person, made: Made) -> None:
    views = [await person.view(summary.item) for summary in (await person.overview()).items]
    unfinished = await person.finish()
    assert code(unfinished) == (409, "study_unfinished")
    assert unfinished.json()["error"]["detail"] == {"left": 4}
    for view in views:
        await person.save(view.item, view.maps)
    assert (await person.finish()).status_code == 200
    assert code(await person.save(views[0].item, views[0].maps[::-1], 1)) == (409, "study_finished")
    operator(made, lambda store: store.close(made.study))
    assert code(await person.save(views[0].item, views[0].maps[::-1], 1)) == (409, "study_closed")
    assert code(await person.finish()) == (409, "study_closed")
    assert (await person.overview()).closed
    assert (await person.view(views[0].item)).ranking == views[0].maps
    operator(made, lambda store: store.delete(made.study))
    assert code(await person.get()) == (401, "unauthorized")


async def test_without_studies_there_is_nothing_to_find(made: Made) -> None:
    async with serving(zoo_settings()) as service:
        person = Person(service, made)
        for method, path in ROUTES:
            for headers in ({}, person.headers):
                answer = await service.client.request(method, person.root + path, headers=headers)
                assert code(answer) == (404, "studies_disabled")
        assert code(await service.client.get(f"/studies/{made.study}")) == (404, "studies_disabled")


@pytest.mark.parametrize("url", ["mysql://host/x", "sqlite://", "://"])
def test_a_setting_that_is_no_database(url: str) -> None:
    with pytest.raises(ValueError, match="studies"):
        create_app(Settings(studies=url))


# The database


async def test_a_database_that_comes_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Until then 503 to subjects, and not a word to them of where it is; models answer all the while."""
    path = tmp_path / "later.db"
    async with serving(zoo_settings(studies=str(path))) as service:
        nobody = Person(service, Made("", "0" * 32, ["A" * 43]))
        failed = await nobody.get()
        assert code(failed) == (503, "study_store_failed")
        assert failed.headers["retry-after"] == "1"
        assert str(path) not in failed.text
        assert f"{path}: there is no such file" in caplog.text
        assert (await service.client.get("/readyz")).status_code == 200
        asked = await service.client.post(EXPLAIN, content=FILES[0], headers=PNG)
        assert asked.json()["model"]["name"] == NAME
        made = make(path)
        assert (await Person(service, made).overview()).title == TITLE


async def test_a_database_that_is_locked_loses_nothing(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("konkyo.study.database.WAIT_SECONDS", 0.05)
    async with serving(zoo_settings(studies=made.url)) as service:
        person = Person(service, made)
        view = await person.first()
        with closing(sqlite3.connect(made.url)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert code(await person.save(view.item, view.maps)) == (503, "study_store_failed")
            other.rollback()
        assert (await person.view(view.item)).revision == 0
        assert (await person.save(view.item, view.maps)).json()["revision"] == 1


async def test_a_database_that_hangs_holds_up_no_model(
    service: Service, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies_module, "PATIENCE_SECONDS", 0.05)
    gate = threading.Event()
    try:
        hanging = [
            service.state.studies.ask(lambda _: gate.wait()) for _ in range(2 * studies_module.THREADS)
        ]
        outcomes = await asyncio.gather(*hanging, return_exceptions=True)
        assert {type(outcome).__name__ for outcome in outcomes} == {"StudyStoreFailed"}
        assert code(await person.get()) == (503, "study_store_failed")
        asked = await service.client.post(EXPLAIN, content=FILES[0], headers=PNG)
        assert asked.status_code == 200
    finally:
        gate.set()
    monkeypatch.setattr(studies_module, "PATIENCE_SECONDS", 15.0)
    assert (await person.overview()).title == TITLE


# The page


async def test_the_page_is_the_same_for_every_study(service: Service, made: Made) -> None:
    page = await service.client.get(f"/studies/{made.study}")
    assert page.headers["content-type"].startswith("text/html")
    assert (
        page.content
        == (await service.client.get("/studies/none")).content
        == (WEB / "study.html").read_bytes()
    )
    home = await service.client.get("/")
    for name in ("content-security-policy", "cache-control", "x-frame-options", "referrer-policy"):
        assert page.headers[name] == home.headers[name]
