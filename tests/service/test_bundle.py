"""Bundles on disk: whatever is wrong with one is named, and the others are served all the same."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from services import serving, zoo_settings

from konkyo.errors import BundleError
from konkyo.models.bundle import CANARY, CARD, ONNX, WEIGHTS, describe_file, read_bundle
from konkyo.service import engines
from konkyo.service.settings import ZOO

SHIPPED = ZOO / "gcm-cifar10" / "1"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of the bundle that ships, to damage."""
    return Path(shutil.copytree(SHIPPED, tmp_path / "gcm-cifar10" / "1"))


def edit(bundle: Path, change: Callable[[dict], object]) -> None:
    """Change the card."""
    card = json.loads((bundle / CARD).read_text())
    change(card)
    (bundle / CARD).write_text(json.dumps(card))


def flip(path: Path) -> None:
    """Change one bit in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_what_ships_is_whole() -> None:
    found = read_bundle(SHIPPED)
    assert (found.card.name, found.card.version) == ("gcm-cifar10", "1")
    assert found.digest == f"sha256:{describe_file(SHIPPED / CARD).sha256}"
    assert set(found.card.files) == {path.name for path in SHIPPED.iterdir()} - {CARD}
    assert found.file(ONNX) == SHIPPED / ONNX
    assert found.file("other.onnx") is None


@pytest.mark.parametrize("name", [CARD, ONNX, WEIGHTS, CANARY])
def test_a_missing_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=rf"{name}: cannot be read: No such file") as caught:
        read_bundle(bundle)
    assert caught.value.detail == {"file": name}


@pytest.mark.parametrize("name", [CARD, WEIGHTS])
@pytest.mark.parametrize("put", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_not_read(bundle: Path, name: str, put: Callable[[Path], None]) -> None:
    """Reading a pipe or a device might never end."""
    (bundle / name).unlink()
    put(bundle / name)
    with pytest.raises(BundleError, match=f"/{name}: cannot be read: it is no regular file"):
        read_bundle(bundle)


@pytest.mark.parametrize("name", [ONNX, WEIGHTS, CANARY])
def test_a_truncated_file_is_named(bundle: Path, name: str) -> None:
    size = (bundle / name).stat().st_size
    (bundle / name).write_bytes((bundle / name).read_bytes()[:-1])
    with pytest.raises(BundleError, match=rf"{name}: truncated: {size - 1} of {size} bytes"):
        read_bundle(bundle)


@pytest.mark.parametrize("name", [ONNX, WEIGHTS, CANARY])
def test_an_altered_file_is_named(bundle: Path, name: str) -> None:
    flip(bundle / name)
    with pytest.raises(BundleError, match=rf"{name}: altered") as caught:
        read_bundle(bundle)
    assert caught.value.detail == {"file": name}


def test_a_longer_file_is_altered(bundle: Path) -> None:
    with (bundle / ONNX).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BundleError, match="altered"):
        read_bundle(bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: card.pop("labels"), "labels: Field required"),
        (lambda card: card.update(extra=1), "extra: Extra inputs"),
        (lambda card: card.update(format="konkyo/2"), "format"),
        (lambda card: card.update(labels=["a"]), "labels"),
        (lambda card: card.update(labels=[*card["labels"][:9], "airplane"]), "labels repeat"),
        (lambda card: card["canary"].update(logits=[0.0]), "canary"),
        (lambda card: card["files"].pop(CANARY), CANARY),
        (lambda card: (card["files"].pop(ONNX), card["files"].pop(WEIGHTS)), "neither"),
        (lambda card: card["files"].update({"../../etc/passwd": card["files"][ONNX]}), "files"),
        (lambda card: card["canary"].update(file="../x.png"), "canary.file"),
        (lambda card: card["input"].update(width=0), "input.width"),
        (lambda card: card["input"].update(crop_fraction=1.5), "input.crop_fraction"),
        (lambda card: card.update(name="../x"), "name"),
    ],
)
def test_a_card_that_is_not_valid_says_where(
    bundle: Path, change: Callable[[dict], object], message: str
) -> None:
    edit(bundle, change)
    with pytest.raises(BundleError) as caught:
        read_bundle(bundle)
    assert "card.json: not a valid card" in caught.value.message
    assert message in caught.value.message


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_a_card_that_is_no_json(bundle: Path, text: bytes) -> None:
    (bundle / CARD).write_bytes(text)
    with pytest.raises(BundleError, match="not a valid card"):
        read_bundle(bundle)


# Served


def named(bundle: Path, name: str) -> Path:
    """A copy as another model beside it, its card saying so."""
    copy = bundle.parent.parent / name / "1"
    shutil.copytree(bundle, copy)
    edit(copy, lambda card: card.update(name=name))
    return copy


@pytest.mark.parametrize(
    ("damage", "named_in_message"),
    [
        (lambda path: flip(path / ONNX), ONNX),
        (lambda path: flip(path / WEIGHTS), WEIGHTS),
        (lambda path: (path / CANARY).unlink(), CANARY),
        (lambda path: (path / CARD).write_text("{}"), CARD),
        (lambda path: edit(path, lambda card: card.update(name="other")), "other/1"),
        (lambda path: edit(path, lambda card: card["canary"]["logits"].reverse()), "canary"),
    ],
    ids=["graph", "weights", "canary", "card", "name", "logits"],
)
async def test_a_broken_bundle_leaves_the_good_one_alone(
    bundle: Path, damage: Callable[[Path], object], named_in_message: str
) -> None:
    damage(named(bundle, "broken"))
    settings = zoo_settings(repository=bundle.parent.parent, engine="onnx")
    async with serving(settings, make_engine=engines.make_engine) as service:
        health = await service.client.get("/readyz")
        assert health.status_code == 503
        (problem,) = health.json()["problems"]
        assert problem.startswith("broken/1: ")
        assert named_in_message in problem
        assert service.count("model_ready", model="broken") == 0
        assert service.count("model_ready", model="gcm-cifar10") == 1

        image = (SHIPPED / CANARY).read_bytes()
        refused = await service.client.post("/v1/models/broken:explain", content=image)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
        assert "could not be loaded; GET /v1/models/" in refused.json()["error"]["message"]
        good = await service.client.post(
            "/v1/models/gcm-cifar10:predict", content=image, params={"top_k": 10}
        )
        logits = {entry["index"]: entry["logit"] for entry in good.json()["top_k"]}
        expected = read_bundle(SHIPPED).card.canary.logits
        assert [logits[index] for index in range(10)] == pytest.approx(expected, abs=1e-4)

        states = {
            model["name"]: model["state"]
            for model in (await service.client.get("/v1/models")).json()["models"]
        }
        assert states == {"broken": "failed", "gcm-cifar10": "ready"}
        detail = (await service.client.get("/v1/models/broken")).json()
        assert (detail["ready"], detail["card"]) == (False, None)
        assert named_in_message in detail["failure"]


async def test_without_a_version_the_newest_that_works_answers(bundle: Path) -> None:
    for version in ("2", "10"):
        shutil.copytree(bundle, bundle.parent / version)
        edit(bundle.parent / version, lambda card, version=version: card.update(version=version))  # type: ignore[misc]
    flip(bundle.parent / "10" / ONNX)
    async with serving(zoo_settings(repository=bundle.parent.parent)) as service:
        (entry,) = (await service.client.get("/v1/models")).json()["models"]
        assert (entry["versions"], entry["default"]) == (["1", "2", "10"], "2")
        image = (SHIPPED / CANARY).read_bytes()
        answer = await service.client.post("/v1/models/gcm-cifar10:predict", content=image)
        assert answer.json()["model"]["version"] == answer.headers["x-model-version"] == "2"
        old = await service.client.post("/v1/models/gcm-cifar10/versions/1:predict", content=image)
        assert old.json()["model"]["version"] == "1"


async def test_an_empty_repository_is_not_ready_and_says_where(tmp_path: Path) -> None:
    async with serving(zoo_settings(repository=tmp_path)) as service:
        health = await service.client.get("/readyz")
        assert (health.status_code, health.json()["problems"]) == (
            503,
            [f"there is no bundle under {tmp_path}"],
        )
        answer = await service.client.post("/v1/models/any:predict", content=b"x")
        assert (answer.status_code, answer.json()["error"]["detail"]) == (404, {"models": []})


async def test_the_graph_alone_is_enough(bundle: Path) -> None:
    """Without weights: for a service without torch."""
    (bundle / WEIGHTS).unlink()
    edit(bundle, lambda card: card["files"].pop(WEIGHTS))
    async with serving(
        zoo_settings(repository=bundle.parent.parent), make_engine=engines.make_engine
    ) as service:
        assert (await service.client.get("/readyz")).json() == {"status": "ok", "problems": []}
