"""What the service answers over HTTP: real from the bundle that ships, exact from the fake."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest
import pytest_asyncio
from fastapi.openapi.models import OpenAPI
from fastapi.routing import APIRoute
from PIL import Image
from pydantic import BaseModel
from services import Service, pictures, serving, zoo_settings

import konkyo
from konkyo.models.bundle import read_bundle
from konkyo.service import engines
from konkyo.service.app import ROUTERS
from konkyo.service.engines.base import UInt8
from konkyo.service.schemas import (
    Explained,
    Explanations,
    Health,
    InfoBody,
    ModelDetail,
    ModelList,
    Prediction,
    Predictions,
)  # fmt: skip
from konkyo.service.settings import ZOO

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "/v1/models/gcm-cifar10"
EXPLAIN, PREDICT = f"{MODEL}:explain", f"{MODEL}:predict"
CARD = read_bundle(ZOO / "gcm-cifar10" / "1").card


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def real() -> AsyncIterator[Service]:
    async with serving(zoo_settings(engine="onnx"), make_engine=engines.make_engine) as service:
        yield service


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fake() -> AsyncIterator[Service]:
    async with serving(zoo_settings()) as service:
        yield service


@pytest.fixture(scope="module")
def image() -> UInt8:
    return next(pictures(1, seed=7))


def encode(image: UInt8, format_: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, format_, **options)
    return out.getvalue()


async def ask(service: Service, path: str, data: bytes, **parameters: Any) -> dict[str, Any]:
    response = await service.client.post(
        path, content=data, params=parameters, headers={"content-type": "image/png"}
    )
    assert response.status_code == 200, response.text
    body = response.json()
    strictly(Explained if "explain" in path else Prediction, body)
    return body  # type: ignore[no-any-return]


def strictly(model: type[BaseModel], body: Any) -> None:
    """The body is of the documented type, with nothing missing, left over or converted."""
    model.model_validate_json(json.dumps(body), strict=True)


def same(body: dict[str, Any]) -> dict[str, Any]:
    """An answer without what differs between two requests."""
    return {key: value for key, value in body.items() if key not in ("id", "timing_ms", "batch_size")}


def float32(map_: dict[str, Any]) -> Any:
    assert map_["encoding"] == "float32"
    data = np.frombuffer(base64.b64decode(map_["data"]), "<f4").reshape(map_["height"], map_["width"])
    assert (map_["min"], map_["max"]) == (pytest.approx(data.min()), pytest.approx(data.max()))
    return data


def picture(data: bytes) -> UInt8:
    with Image.open(io.BytesIO(data)) as opened:
        return np.asarray(opened)


# The class


async def test_a_prediction(fake: Service, image: UInt8) -> None:
    """The fake's logits are the mean of the image times 1 to 10, so its scores are known."""
    mean = image.mean() / 255
    body = await ask(fake, PREDICT, encode(image), top_k=3)
    scores = np.exp(mean * np.arange(1, 11))
    scores /= scores.sum()
    assert [entry["index"] for entry in body["top_k"]] == [9, 8, 7]
    assert [entry["label"] for entry in body["top_k"]] == ["truck", "ship", "horse"]
    assert [entry["logit"] for entry in body["top_k"]] == pytest.approx(
        [10 * mean, 9 * mean, 8 * mean], rel=1e-5
    )
    assert [entry["score"] for entry in body["top_k"]] == pytest.approx(scores[[9, 8, 7]], rel=1e-4)
    assert (body["label"], body["index"], body["score"]) == ("truck", 9, body["top_k"][0]["score"])
    assert body["model"] == {
        "name": "gcm-cifar10",
        "version": "1",
        "digest": read_bundle(ZOO / "gcm-cifar10" / "1").digest,
    }
    assert body["geometry"] == {
        "original": [32, 32],
        "orientation": 1,
        "crop": [0, 0, 32, 32],
        "input": [32, 32],
        "map": None,
        "map_to_original": None,
    }
    assert body["batch_size"] == 1


@pytest.mark.parametrize(("top_k", "listed"), [(1, 1), (5, 5), (10, 10), (1000, 10)])
async def test_top_k(fake: Service, image: UInt8, top_k: int, listed: int) -> None:
    body = await ask(fake, PREDICT, encode(image), top_k=top_k)
    assert len(body["top_k"]) == listed
    assert sum(entry["score"] for entry in body["top_k"]) <= 1 + 1e-6


async def test_explaining_does_not_change_the_class(real: Service, image: UInt8) -> None:
    predicted = await ask(real, PREDICT, encode(image))
    explained = await ask(real, EXPLAIN, encode(image))
    assert predicted["label"] == explained["label"]
    assert [e["logit"] for e in predicted["top_k"]] == pytest.approx(
        [e["logit"] for e in explained["top_k"]], rel=1e-5
    )


# The map


async def test_the_mean_of_map_times_image_is_the_logit_of_every_class(real: Service) -> None:
    for image in pictures(3, seed=1):
        body = await ask(
            real,
            EXPLAIN,
            encode(image),
            map="float32",
            frame="input",
            top_k=10,
            targets=",".join(CARD.labels),
        )
        logits = {entry["label"]: entry["logit"] for entry in body["top_k"]}
        grey = image.mean(axis=2) / 255
        maps = body["explanation"]["maps"]
        assert [entry["target"]["label"] for entry in maps] == list(CARD.labels)
        largest = max(map(abs, logits.values()))
        for entry in maps:
            assert (float32(entry["map"]) * grey).mean() == pytest.approx(
                logits[entry["target"]["label"]], rel=1e-4, abs=1e-4 * largest
            )


async def test_the_default_target_is_the_predicted_class(real: Service) -> None:
    seen = set()
    for image in pictures(8, seed=2):
        body = await ask(real, EXPLAIN, encode(image))
        assert body["explanation"]["target"] == {"label": body["label"], "index": body["index"]}
        seen.add(body["index"])
    assert seen != {0}


async def test_a_target_by_name_and_by_index(real: Service, image: UInt8) -> None:
    name = await ask(real, EXPLAIN, encode(image), target="cat", map="float32")
    index = await ask(real, EXPLAIN, encode(image), target=3, map="float32")
    assert name["explanation"] == index["explanation"]
    assert name["explanation"]["target"] == {"label": "cat", "index": 3}
    assert "maps" not in name["explanation"]
    other = await ask(real, EXPLAIN, encode(image), target="dog", map="float32")
    assert other["explanation"]["map"] != name["explanation"]["map"]


async def test_several_targets_take_one_pass(fake: Service, image: UInt8) -> None:
    before = len(fake.engine.batches)
    body = await ask(fake, EXPLAIN, encode(image), targets="cat, 0,cat", map="float32")
    assert len(fake.engine.batches) == before + 1
    explanation = body["explanation"]
    assert [entry["target"]["index"] for entry in explanation["maps"]] == [3, 0, 3]
    assert {key: explanation[key] for key in explanation["maps"][0]} == explanation["maps"][0]
    grey = image.mean(axis=2, dtype=np.float32) / 255
    for entry, index in zip(explanation["maps"], [3, 0, 3], strict=True):
        np.testing.assert_allclose(float32(entry["map"]), grey - index / 10, atol=1e-6)


async def test_a_map_is_sent_as_asked(fake: Service, image: UInt8) -> None:
    expected = image.mean(axis=2, dtype=np.float32) / 255 - 0.9  # the fake predicts class 9
    png = (await ask(fake, EXPLAIN, encode(image)))["explanation"]["map"]
    level = picture(base64.b64decode(png["data"])).astype(float)
    step = (png["max"] - png["min"]) / 255
    assert np.abs(png["min"] + level * step - expected).max() <= 0.51 * step
    raw = (await ask(fake, EXPLAIN, encode(image), map="float32"))["explanation"]["map"]
    np.testing.assert_allclose(float32(raw), expected, atol=1e-6)
    target = {"target": 0}
    none = (await ask(fake, EXPLAIN, encode(image), map="none", **target))["explanation"]
    assert none["map"] is None
    assert (
        none["regions"] == (await ask(fake, EXPLAIN, encode(image), **target))["explanation"]["regions"] != []
    )


async def test_a_map_in_the_original_frame_has_the_size_of_the_original(fake: Service) -> None:
    wide = np.full((48, 96, 3), 250, np.uint8)
    original = (await ask(fake, EXPLAIN, encode(wide), target=0))["explanation"]["map"]
    assert (original["width"], original["height"]) == (96, 48)
    level = picture(base64.b64decode(original["data"]))
    assert (level[:, :24] == 0).all()  # the network has not seen the sides
    assert (level[:, 72:] == 0).all()
    assert (level[:, 24:72] == 255).all()
    seen = (await ask(fake, EXPLAIN, encode(wide), target=0, frame="input"))["explanation"]["map"]
    assert (seen["width"], seen["height"]) == (32, 32)
    raw = (await ask(fake, EXPLAIN, encode(wide), target=0, map="float32"))["explanation"]["map"]
    assert (raw["width"], raw["height"]) == (32, 32)  # never resized


@pytest.mark.parametrize(
    ("level", "target", "status"),
    [(128, 0, "flat"), (0, 5, "flat"), ("gradient", 9, "all_negative"), ("gradient", 0, "ok")],
)
async def test_the_status_says_what_a_black_map_hides(
    fake: Service, level: int | str, target: int, status: str
) -> None:
    image = np.full((32, 32, 3), 0 if level == "gradient" else level, np.uint8)
    if level == "gradient":
        image[:] = np.arange(32, dtype=np.uint8)[:, None, None] * 4
    body = await ask(fake, EXPLAIN, encode(image), target=target)
    assert body["explanation"]["status"] == status


# Regions and geometry


def patch(width: int, height: int, box: tuple[int, int, int, int]) -> UInt8:
    """Black with a white box."""
    image = np.zeros((height, width, 3), np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = 255
    return image


async def test_boxes_scale_with_the_frame(fake: Service) -> None:
    data = encode(patch(96, 48, (36, 12, 48, 30)))
    original = (await ask(fake, EXPLAIN, data, target=0, regions=0.5))["explanation"]["regions"]
    seen = (await ask(fake, EXPLAIN, data, target=0, regions=0.5, frame="input"))["explanation"]["regions"]
    assert [region["box"] for region in seen] == [[8, 8, 16, 20]]
    assert [region["box"] for region in original] == [[36, 12, 48, 30]]
    assert seen[0]["area"] == original[0]["area"] == pytest.approx(8 * 12 / 32**2)


async def test_a_higher_threshold_gives_smaller_regions(real: Service, image: UInt8) -> None:
    area = []
    for threshold in (0.05, 0.15, 0.5, 0.9):
        regions = (await ask(real, EXPLAIN, encode(image), regions=threshold))["explanation"]["regions"]
        mass = [region["mass"] for region in regions]
        assert mass == sorted(mass, reverse=True)
        assert 0 < sum(mass) <= 1 + 1e-6
        area.append(sum(region["area"] for region in regions))
    assert area == sorted(area, reverse=True)
    assert area[0] > area[-1]


ROTATED = {
    1: lambda up: up,
    2: lambda up: up[:, ::-1],
    3: lambda up: up[::-1, ::-1],
    4: lambda up: up[::-1],
    5: lambda up: up.transpose(1, 0, 2),
    6: lambda up: np.rot90(up, 1),
    7: lambda up: np.rot90(up, 2).transpose(1, 0, 2),
    8: lambda up: np.rot90(up, -1),
}


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((96, 64), (60, 8, 72, 20)),
        ((64, 96), (8, 60, 20, 72)),
        ((101, 67), (30, 40, 46, 56)),
        ((640, 480), (400, 50, 480, 130)),
        ((32, 32), (20, 4, 26, 10)),
    ],
)
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
async def test_a_bright_patch_is_found_where_it_lies_in_the_upright_photo(
    fake: Service, size: tuple[int, int], box: tuple[int, int, int, int], orientation: int, format_: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(ROTATED[orientation](patch(*size, box)))
    body = await ask(fake, EXPLAIN, encode(stored, format_, exif=exif), target=0, regions=0.3, map="png")

    geometry = body["geometry"]
    assert (geometry["original"], geometry["orientation"]) == (list(size), orientation)
    side = min(size)
    left, top = (size[0] - side) / 2, (size[1] - side) / 2
    assert geometry["crop"] == pytest.approx([left, top, left + side, top + side])
    a, b, c, d, e, f = geometry["map_to_original"]
    assert (a, b, c, d, e, f) == pytest.approx((side / 32, 0, left, 0, side / 32, top))

    (region,) = body["explanation"]["regions"]
    assert region["box"] == pytest.approx(box, abs=a)  # within a cell of the map
    assert box[0] <= region["peak"][0] <= box[2]
    assert box[1] <= region["peak"][1] <= box[3]

    level = picture(base64.b64decode(body["explanation"]["map"]["data"]))
    assert level.shape == size[::-1]
    y, x = np.unravel_index(level.argmax(), level.shape)
    assert box[0] - a <= x <= box[2] + a
    assert box[1] - a <= y <= box[3] + a


# Pictures


@pytest.mark.parametrize("format_", ["png", "jpeg", "webp"])
async def test_accept_asks_for_the_picture_itself(real: Service, format_: str) -> None:
    data = encode(np.asarray(Image.fromarray(next(pictures(1))).resize((96, 60))))
    expected = await ask(real, EXPLAIN, data)
    response = await real.client.post(EXPLAIN, content=data, headers={"accept": f"image/{format_}"})
    assert response.status_code == 200
    assert response.headers["content-type"] == f"image/{format_}"
    with Image.open(io.BytesIO(response.content)) as opened:
        assert (opened.format, opened.size) == (format_.upper(), (96, 60))
    assert response.headers["x-model"] == "gcm-cifar10"
    assert response.headers["x-model-version"] == "1"
    assert response.headers["x-label"] == expected["label"]
    assert response.headers["x-index"] == str(expected["index"])
    assert float(response.headers["x-score"]) == pytest.approx(expected["score"], abs=1e-6)
    assert response.headers["x-status"] == expected["explanation"]["status"]
    assert response.headers["x-batch-size"] == "1"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "application/json"),
        ("text/html", "application/json"),
        ("application/json, image/png", "application/json"),
        ("image/webp;q=0.9, application/json", "image/webp"),
        ("IMAGE/PNG", "image/png"),
    ],
)
async def test_the_first_acceptable_type_counts(fake: Service, image: UInt8, accept: str, kind: str) -> None:
    response = await fake.client.post(EXPLAIN, content=encode(image), headers={"accept": accept})
    assert response.headers["content-type"] == kind


async def test_the_picture_of_a_class_weight_map_is_the_product(fake: Service) -> None:
    """Class 0's map is the grey image: the spotlight of a white patch on black is the patch."""
    image = patch(32, 32, (8, 8, 24, 24))
    response = await fake.client.post(
        EXPLAIN, content=encode(image), params={"target": 0}, headers={"accept": "image/png"}
    )
    np.testing.assert_array_equal(picture(response.content), image)


@pytest.mark.parametrize("overlay", ["spotlight", "blend", "contour"])
@pytest.mark.parametrize(("part", "rows"), [("positive", 1), ("negative", 1), ("both", 2)])
async def test_overlays(fake: Service, overlay: str, part: str, rows: int) -> None:
    rows = rows if overlay == "spotlight" else 1
    data = encode(patch(40, 20, (16, 4, 22, 12)))
    body = await ask(fake, EXPLAIN, data, overlay=overlay, part=part, target=4)
    sent = body["explanation"]["overlay"]
    assert (sent["media_type"], sent["width"], sent["height"]) == ("image/png", 40, 20 * rows)
    direct = await fake.client.post(
        EXPLAIN,
        content=data,
        params={"overlay": overlay, "part": part, "target": 4},
        headers={"accept": "image/png"},
    )
    np.testing.assert_array_equal(picture(base64.b64decode(sent["data"])), picture(direct.content))


async def test_an_overlay_in_the_frame_of_the_input(fake: Service) -> None:
    body = await ask(fake, EXPLAIN, encode(patch(40, 20, (16, 4, 22, 12))), overlay="blend", frame="input")
    assert (body["explanation"]["overlay"]["width"], body["explanation"]["overlay"]["height"]) == (32, 32)


async def test_a_blend_of_no_opacity_is_the_photo(fake: Service) -> None:
    photo = np.asarray(Image.fromarray(next(pictures(1, seed=3))).resize((50, 30)))
    body = await ask(fake, EXPLAIN, encode(photo), overlay="blend", alpha=0)
    np.testing.assert_array_equal(picture(base64.b64decode(body["explanation"]["overlay"]["data"])), photo)


async def test_pictures_of_several_targets_lie_one_below_the_other(fake: Service, image: UInt8) -> None:
    several = await fake.client.post(
        EXPLAIN, content=encode(image), params={"targets": "0,5"}, headers={"accept": "image/png"}
    )
    each = [
        await fake.client.post(
            EXPLAIN, content=encode(image), params={"target": target}, headers={"accept": "image/png"}
        )
        for target in (0, 5)
    ]
    np.testing.assert_array_equal(
        picture(several.content), np.concatenate([picture(response.content) for response in each])
    )


# Bodies


async def test_raw_multipart_and_json_give_the_same_answer(real: Service, image: UInt8) -> None:
    data = encode(image)
    raw = same(await ask(real, EXPLAIN, data, target="ship", top_k=2))
    form = await real.client.post(
        EXPLAIN, files={"image": ("x.png", data)}, data={"target": "ship", "top_k": "2"}
    )
    assert same(form.json()) == raw
    instances = {
        "instances": [{"image_bytes": {"b64": base64.b64encode(data).decode()}}],
        "parameters": {"target": "ship", "top_k": 2},
    }
    document = (await real.client.post(EXPLAIN, json=instances)).json()
    strictly(Explanations, document)
    assert [same(body) for body in document["explanations"]] == [raw]


@pytest.mark.parametrize(
    "content_type", [None, "application/octet-stream", "image/anything", "application/x-www-form-urlencoded"]
)
async def test_raw_bodies_need_no_exact_type(fake: Service, image: UInt8, content_type: str | None) -> None:
    headers = {"content-type": content_type} if content_type else {}
    response = await fake.client.post(PREDICT, content=encode(image), headers=headers)
    assert response.status_code == 200


async def test_parameters_of_the_body_go_before_those_of_the_query(fake: Service, image: UInt8) -> None:
    form = await fake.client.post(
        PREDICT, params={"top_k": 2}, files={"image": encode(image)}, data={"top_k": "3"}
    )
    assert len(form.json()["top_k"]) == 3


@pytest.mark.parametrize("way", ["multipart", "json"])
@pytest.mark.parametrize(
    ("path", "key", "schema"),
    [(PREDICT, "predictions", Predictions), (EXPLAIN, "explanations", Explanations)],
)
async def test_of_several_images_each_fails_alone_and_in_order(
    fake: Service, way: str, path: str, key: str, schema: type[BaseModel]
) -> None:
    first, second = pictures(2, seed=5)
    parts = [encode(first), b"not an image", encode(second), b"", encode(second)[:100]]
    if way == "multipart":
        response = await fake.client.post(path, files=[("image", part) for part in parts])
    else:
        coded = [{"image_bytes": {"b64": base64.b64encode(part).decode()}} for part in parts]
        response = await fake.client.post(
            path, json={"instances": [*coded, {"image_bytes": {"b64": "%%%"}}, 7]}
        )
    assert response.status_code == 200
    body = response.json()
    strictly(schema, body)
    found = [
        answer["error"]["code"] if "error" in answer else round(answer["top_k"][0]["logit"], 4)
        for answer in body[key]
    ]
    expected = [
        round(10 * float(first.mean()) / 255, 4),
        "unsupported_image",
        round(10 * float(second.mean()) / 255, 4),
        "empty_body",
        "broken_image",
    ]
    assert found == pytest.approx([*expected, *(["invalid_request"] * 2 if way == "json" else [])], abs=2e-4)
    identity = response.headers["x-request-id"]
    assert body[key][0]["id"] == f"{identity}-0"
    assert body[key][2]["id"] == f"{identity}-2"


async def test_a_large_json_body_is_read_as_well(fake: Service) -> None:
    noise = np.random.default_rng(6).integers(0, 256, (200, 200, 3), np.uint8)
    text = base64.b64encode(encode(noise)).decode()
    assert len(text) > 64 * 1024
    response = await fake.client.post(PREDICT, json={"instances": [{"image_bytes": {"b64": text}}]})
    assert response.json()["predictions"][0]["label"] == "truck"


# Headers


async def test_server_timing_repeats_the_body(fake: Service, image: UInt8) -> None:
    response = await fake.client.post(EXPLAIN, content=encode(image))
    timing = response.json()["timing_ms"]
    assert list(timing) == ["decode", "queue", "forward", "explain", "render", "total"]
    assert response.headers["server-timing"] == ", ".join(
        f"{name};dur={value:.3f}" for name, value in timing.items()
    )
    assert 0 < timing["decode"] + timing["forward"] <= timing["total"]


@pytest.mark.parametrize("path", [PREDICT, "/livez", "/nowhere"])
async def test_a_request_id_is_echoed(fake: Service, image: UInt8, path: str) -> None:
    identity = "job-7/part.3:a=b+c_" + "x" * 100
    response = await fake.client.post(path, content=encode(image), headers={"x-request-id": identity})
    assert response.headers["x-request-id"] == identity
    if path == PREDICT:
        assert response.json()["id"] == identity


@pytest.mark.parametrize(
    "hostile",
    [b"", b"a" * 129, b"a b", b'"><script>', b"a\xff", b"a\tb", b"{}"],
    ids=lambda value: repr(value[:10]),
)
async def test_a_hostile_request_id_is_replaced(fake: Service, hostile: bytes) -> None:
    made = (await fake.client.get("/livez", headers=[(b"x-request-id", hostile)])).headers["x-request-id"]
    assert len(made) == 32
    assert int(made, 16) >= 0


async def test_two_requests_have_two_ids(fake: Service) -> None:
    first, second = [(await fake.client.get("/livez")).headers["x-request-id"] for _ in range(2)]
    assert first != second


async def test_the_page_keeps_to_itself(fake: Service) -> None:
    for path in ("/", "/static/app.js"):
        response = await fake.client.get(path)
        assert response.status_code == 200
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"


# Models and what runs here


async def test_models(real: Service) -> None:
    body = (await real.client.get("/v1/models")).json()
    strictly(ModelList, body)
    (entry,) = [entry for entry in body["models"] if entry["name"] == "gcm-cifar10"]
    assert entry == {
        "name": "gcm-cifar10",
        "versions": ["1"],
        "default": "1",
        "state": "ready",
        "methods": [CARD.explanation.method, "occlusion", "rise"],
        "default_method": "gcm",
        "problems": [],
    }


@pytest.mark.parametrize("path", [MODEL, f"{MODEL}/versions/1"])
async def test_a_model(real: Service, path: str) -> None:
    body = (await real.client.get(path)).json()
    ModelDetail.model_validate_json(json.dumps(body), strict=True)
    assert body["card"] == CARD.model_dump(mode="json")
    assert {
        key: body[key] for key in ("name", "version", "state", "ready", "failure", "engine", "device")
    } == {
        "name": "gcm-cifar10",
        "version": "1",
        "state": "ready",
        "ready": True,
        "failure": None,
        "engine": "onnx",
        "device": "cpu",
    }


@pytest.mark.parametrize("verb", ["predict", "explain"])
async def test_a_version_answers_like_the_default(real: Service, image: UInt8, verb: str) -> None:
    named = await ask(real, f"{MODEL}/versions/1:{verb}", encode(image))
    assert same(named) == same(await ask(real, f"{MODEL}:{verb}", encode(image)))


async def test_info(real: Service) -> None:
    body = (await real.client.get("/v1/info")).json()
    strictly(InfoBody, body)
    assert (body["name"], body["version"]) == ("konkyo", konkyo.__version__)
    assert body["engines"]["gcm-cifar10/1"] == "onnx/cpu"
    assert body["limits"] == {
        "max_body_bytes": 20 * 2**20,
        "max_pixels": 50_000_000,
        "max_instances": 32,
        "max_batch": 32,
        "queue_capacity": 256,
    }


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_health(real: Service, path: str) -> None:
    response = await real.client.get(path)
    assert response.status_code == 200
    strictly(Health, response.json())
    assert response.json()["status"] == "ok"


# The description


async def test_the_openapi_document_is_valid_and_complete(real: Service) -> None:
    response: httpx.Response = await real.client.get("/openapi.json")
    document = response.json()
    OpenAPI.model_validate(document)
    described = {(path, verb.upper()) for path, item in document["paths"].items() for verb in item}
    served = {
        (route.path, method)
        for route in [*(route for router in ROUTERS for route in router.routes), *real.app.routes]
        if isinstance(route, APIRoute) and route.include_in_schema
        for method in route.methods
    }
    assert described == served
    assert ("/v1/models/{model}:explain", "POST") in described
    assert ("/metrics", "GET") in described

    schemas = document["components"]["schemas"]
    references = [part.split('"')[0] for part in response.text.split('"$ref":"')[1:]]
    assert references
    assert {reference.removeprefix("#/components/schemas/") for reference in references} <= schemas.keys()
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    identities = [operation["operationId"] for operation in operations]
    assert len(set(identities)) == len(identities)
    for operation in operations:
        places = [(parameter["in"], parameter["name"]) for parameter in operation.get("parameters", [])]
        assert len(set(places)) == len(places)
        assert operation["summary"]
        assert operation.get("description")
