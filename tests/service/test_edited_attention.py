"""Correcting the map: a caller brings an attention map and gets the answer by it, and the one without."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import pytest
import pytest_asyncio
from faults import Clock, broken, until
from PIL import Image
from services import (
    FILES,
    IMAGES,
    Caller,
    Service,
    attention_models,
    png,
    serving,
    zoo_settings,
)

from konkyo.errors import InvalidParameter
from konkyo.models.bundle import read_bundle
from konkyo.service import engines
from konkyo.service.attention import MAX_SIDE, read_attention
from konkyo.service.engines.base import Float32, Outputs, UInt8
from konkyo.service.schemas import Explained, ExplainOptions, Explanations

ONE, THREE = "/v1/models/one:explain", "/v1/models/three:explain"
RANGE = (0.25, 0.75)  # of the cards behind ONE and THREE
JSON = {"content-type": "application/json"}


def on_module_loop(test: Any) -> Any:
    return pytest.mark.asyncio(loop_scope="module")(test)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fake() -> AsyncIterator[Service]:
    async with serving(zoo_settings(repository=attention_models())) as service:
        yield service


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def picture_of(pixels: UInt8, format_: str = "PNG", mode: str | None = None) -> str:
    out = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(out, format_)
    return base64_of(out.getvalue())


async def ask(service: Service, path: str, number: int = 1, **parameters: Any) -> dict[str, Any]:
    """Post image ``number`` as a form; the answer, of the documented type."""
    fields = {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in parameters.items()
    }
    response = await service.client.post(path, files={"image": FILES[number]}, data=fields)
    assert response.status_code == 200, response.text
    Explained.model_validate_json(response.content, strict=True)
    return response.json()  # type: ignore[no-any-return]


def values(map_: dict[str, Any]) -> Float32:
    """Of a map sent as float32."""
    assert map_["encoding"] == "float32"
    return np.frombuffer(base64.b64decode(map_["data"]), "<f4").reshape(map_["height"], map_["width"])


def pixels(data: str | bytes) -> UInt8:
    content = base64.b64decode(data) if isinstance(data, str) else data
    with Image.open(io.BytesIO(content)) as opened:
        return np.asarray(opened)


def logits(answer: dict[str, Any]) -> list[float]:
    """In the order of the classes."""
    return [entry["logit"] for entry in sorted(answer["top_k"], key=lambda entry: entry["index"])]


def grey(number: int) -> Float32:
    """The fake engine's own map."""
    return IMAGES[number].mean(axis=2, dtype=np.float32) / 255


# What the answer is


@on_module_loop
async def test_the_answer_is_by_the_edited_map_and_the_original_without_it(fake: Service) -> None:
    """The fake's logits are the mean of its map times 1 to 10: no attention, and the first class is left."""
    body = await ask(fake, ONE, attention=[[0]], top_k=10)
    assert (body["label"], body["index"], body["score"]) == ("airplane", 0, pytest.approx(0.1))
    assert logits(body) == [0] * 10
    original = body["original"]
    assert (original["label"], original["index"]) == ("truck", 9)
    mean = float(grey(1).mean())
    assert logits(original) == pytest.approx(mean * np.arange(1, 11), rel=1e-5)
    plain = await ask(fake, ONE, top_k=10)
    assert "original" not in plain
    assert {key: plain[key] for key in original} == original


@on_module_loop
async def test_the_map_is_the_attention_that_was_used(fake: Service) -> None:
    """Left a quarter, right its own; at 2 columns for the 32 of the map."""
    body = await ask(fake, ONE, attention=[[0.25, -1]], map="float32", top_k=10)
    expected = grey(1).copy()
    expected[:, :16] = 0.25
    np.testing.assert_allclose(values(body["explanation"]["map"]), expected, atol=1e-6)
    np.testing.assert_allclose(values(body["original"]["explanation"]["map"]), grey(1), atol=1e-6)
    assert logits(body) == pytest.approx(expected.mean() * np.arange(1, 11), rel=1e-5)
    assert body["geometry"]["map"] == [32, 32]


@on_module_loop
async def test_both_answers_come_from_one_batch(fake: Service) -> None:
    before = len(fake.engine.batches)
    body = await ask(fake, ONE, attention=[[0.5]])
    assert [len(batch) for batch in fake.engine.batches[before:]] == [2]
    assert body["batch_size"] == 2


@on_module_loop
async def test_a_map_for_all_classes_has_no_target(fake: Service) -> None:
    explanation = (await ask(fake, ONE))["explanation"]
    assert (explanation["method"], explanation["target"]) == ("attention", None)
    assert not {"maps", "scale"} & explanation.keys()


@on_module_loop
async def test_several_scales_are_listed_finest_first(fake: Service) -> None:
    body = await ask(fake, THREE, map="float32", attention=[[0.5], [-1]])
    for answer, upper in ((body, [0.5] * 3), (body["original"], None)):
        explanation = answer["explanation"]
        assert [(entry["scale"], entry["target"]) for entry in explanation["maps"]] == [
            (scale, None) for scale in range(3)
        ]
        assert {key: explanation[key] for key in explanation["maps"][0]} == explanation["maps"][0]
        for scale, entry in enumerate(explanation["maps"]):
            expected = grey(1) / (scale + 1)
            if upper is not None:  # an edit holds at every scale
                expected[:16] = upper[scale]
            np.testing.assert_allclose(values(entry["map"]), expected, atol=1e-6)


@on_module_loop
async def test_a_constant_map_is_flat(fake: Service) -> None:
    for value in (0.0, 0.4, 1.0):
        body = await ask(fake, THREE, attention=[[value]])
        assert [entry["status"] for entry in body["explanation"]["maps"]] == ["flat"] * 3
        assert body["original"]["explanation"]["status"] == "ok"


@on_module_loop
async def test_regions_are_those_of_the_edited_map(fake: Service) -> None:
    attention = np.zeros((8, 8))
    attention[2:4, 5:8] = 1
    body = await ask(fake, ONE, attention=attention.tolist())
    (region,) = body["explanation"]["regions"]
    assert region["box"] == [20, 8, 32, 16]
    assert region["area"] == pytest.approx(6 / 64)
    assert region["mass"] == pytest.approx(1)


@on_module_loop
async def test_one_instance_in_json(fake: Service) -> None:
    body = {
        "instances": [{"image_bytes": {"b64": base64_of(FILES[1])}}],
        "parameters": {"attention": [[0.25, -1]], "map": "float32"},
    }
    response = await fake.client.post(ONE, json=body)
    Explanations.model_validate_json(response.content, strict=True)
    (answer,) = response.json()["explanations"]
    form = await ask(fake, ONE, attention=[[0.25, -1]], map="float32")
    assert {key: answer[key] for key in ("explanation", "original", "score")} == {
        key: form[key] for key in ("explanation", "original", "score")
    }


@on_module_loop
async def test_in_the_query(fake: Service) -> None:
    level = picture_of(np.array([[64, 255]], np.uint8))
    response = await fake.client.post(ONE, content=FILES[1], params={"attention": level, "map": "float32"})
    np.testing.assert_allclose(values(response.json()["explanation"]["map"])[0, [0, 31]], [64 / 255, 1])


@on_module_loop
async def test_the_card_says_what_a_model_takes(fake: Service) -> None:
    for name, scales in (("one", 1), ("three", 3)):
        explanation = (await fake.client.get(f"/v1/models/{name}")).json()["card"]["explanation"]
        assert (explanation["takes_attention"], explanation["scales"]) == (True, scales)


@on_module_loop
async def test_the_description_names_the_parameter_and_the_original(fake: Service) -> None:
    document = (await fake.client.get("/openapi.json")).json()
    operation = document["paths"]["/v1/models/{model}:explain"]["post"]
    [attention] = [parameter for parameter in operation["parameters"] if parameter["name"] == "attention"]
    assert attention["schema"] == {"type": "string"}  # also rows of numbers, in a query
    content = operation["requestBody"]["content"]
    assert content["multipart/form-data"]["schema"]["properties"]["attention"] == {"type": "string"}
    parameters = content["application/json"]["schema"]["properties"]["parameters"]["anyOf"][0]["properties"]
    assert {option["type"] for option in parameters["attention"]["anyOf"]} == {"string", "array", "null"}
    assert "original" in document["components"]["schemas"]["Explained"]["properties"]
    assert document["components"]["schemas"]["Original"]["required"] == [
        "label", "index", "score", "top_k", "explanation",
    ]  # fmt: skip


# Pictures: one scale for all images, the range of the card


WARM = np.array([230, 97, 1])


async def drawn(service: Service, path: str = ONE, **parameters: Any) -> UInt8:
    response = await service.client.post(
        path, content=FILES[1], params=parameters, headers={"accept": "image/png"}
    )
    assert response.status_code == 200, response.text
    return pixels(response.content)


@on_module_loop
@pytest.mark.parametrize(
    ("value", "strength"), [(0.0, 0), (0.25, 0), (0.375, 0.25), (0.5, 0.5), (0.75, 1), (1.0, 1)]
)
async def test_colours_are_those_of_the_range_of_the_card(
    fake: Service, value: float, strength: float
) -> None:
    found = await drawn(fake, attention=json.dumps([[value]]), alpha=0.5)
    expected = IMAGES[1] + (WARM - IMAGES[1].astype(float)) * 0.5 * strength
    assert np.abs(found - expected).max() <= 1


@on_module_loop
async def test_a_spotlight_lights_by_the_range_of_the_card(fake: Service) -> None:
    found = await drawn(fake, attention="[[0.5]]", overlay="spotlight")
    assert np.abs(found - IMAGES[1] / 2).max() <= 1


@on_module_loop
async def test_contours_lie_at_a_share_of_the_range_of_the_card(fake: Service) -> None:
    """Half a range is 0.5: a map that stays below has no outline, whatever its own maximum."""
    options = {"overlay": "contour", "regions": 0.5}
    plain = await drawn(fake, attention="[[0.49, 0.3]]", **options)
    np.testing.assert_array_equal(plain, IMAGES[1])
    outlined = await drawn(fake, attention="[[0.75, 0.3]]", **options)
    changed = (outlined != IMAGES[1]).any(axis=(0, 2))
    assert changed[:16].all()
    assert not changed[20:].any()


@on_module_loop
async def test_the_picture_of_an_attention_map_is_a_blend(fake: Service) -> None:
    np.testing.assert_array_equal(await drawn(fake), await drawn(fake, overlay="blend"))


@on_module_loop
async def test_pictures_of_several_scales_lie_one_below_the_other(fake: Service) -> None:
    attention = "[[0.5, -1]]"
    found = await drawn(fake, THREE, attention=attention)
    body = await ask(fake, THREE, attention=attention, overlay="blend")
    each = [pixels(entry["overlay"]["data"]) for entry in body["explanation"]["maps"]]
    assert found.shape == (96, 32, 3)
    np.testing.assert_array_equal(found, np.concatenate(each))
    assert (each[0][:, 16:] != each[1][:, 16:]).any()


@on_module_loop
async def test_the_png_of_a_map_keeps_its_own_range(fake: Service) -> None:
    sent = (await ask(fake, ONE, attention=[[0.25, 0.5]], frame="input"))["explanation"]["map"]
    assert (sent["min"], sent["max"]) == (0.25, 0.5)
    assert pixels(sent["data"])[0, [0, 31]].tolist() == [0, 255]


# Reading


def rgba(grey_level: int, alpha: int) -> UInt8:
    return np.full((1, 1, 4), [grey_level] * 3 + [alpha], np.uint8)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([[0, 0.5, 1]], [[0, 0.5, 1]]),
        ([[-1, -0.001, -1e300], [0.0, 1, 0.25]], [[-1, -1, -1], [0, 1, 0.25]]),
        ("[[0.5, -3]]", [[0.5, -1]]),
        (" \n[[1],[0]]", [[1], [0]]),
        (picture_of(np.array([[0, 51, 255]], np.uint8)), [[0, 0.2, 1]]),
        (picture_of(np.full((2, 1, 3), 51, np.uint8)), [[0.2], [0.2]]),
        (picture_of(np.array([[[255, 0, 0], [30, 60, 63]]], np.uint8)), [[1 / 3, 0.2]]),
        (picture_of(np.array([[0, 255]], np.uint8), mode="1"), [[0, 1]]),
        (picture_of(np.array([[0, 255]], np.uint8), mode="P"), [[0, 1]]),
        (picture_of(rgba(51, 255)), [[0.2]]),
        (picture_of(rgba(51, 128)), [[0.2]]),  # not laid over white
        (picture_of(rgba(51, 127)), [[-1]]),
        (picture_of(rgba(255, 0)), [[-1]]),
        (picture_of(rgba(51, 127), mode="LA"), [[-1]]),
    ],
)
def test_what_is_read(value: Any, expected: list[list[float]]) -> None:
    found = read_attention(value)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_png_and_the_numbers_it_stands_for_are_the_same() -> None:
    generator = np.random.default_rng(0)
    level = generator.integers(0, 256, (7, 5), np.uint8)
    alpha = generator.choice(np.array([0, 255], np.uint8), (7, 5))
    picture = picture_of(np.dstack([level, level, level, alpha]))
    rows = np.where(alpha == 255, level / 255, -1).tolist()
    np.testing.assert_allclose(read_attention(picture), read_attention(rows), atol=1e-7)
    wrapped = "\r\n".join(picture[start : start + 76] for start in range(0, len(picture), 76))
    np.testing.assert_array_equal(read_attention(wrapped), read_attention(picture))


def test_the_largest_is_read() -> None:
    assert read_attention(picture_of(np.zeros((MAX_SIDE, MAX_SIDE), np.uint8))).shape == (1024, 1024)
    assert read_attention([[0.5] * MAX_SIDE] * MAX_SIDE).shape == (1024, 1024)


WRONG: dict[str, tuple[Any, str]] = {
    "no rows": ([], "0x0 cells"),
    "empty rows": ([[], []], "0x2 cells"),
    "a number": (0.5, "neither base64 of a PNG nor rows"),
    "an object": ({"a": 1}, "neither base64 of a PNG nor rows"),
    "true": (True, "neither base64 of a PNG nor rows"),
    "a flat list": ([0.5, 0.5], "neither base64 of a PNG nor rows"),
    "a list of words": (["ab", "cd"], "neither base64 of a PNG nor rows"),
    "ragged": ([[0, 1], [0]], "differ in length"),
    "too deep": ([[[0.5]]], "not a number"),
    "a cell too deep": ([[0.5, [0.5]]], "not a number"),
    "a word": ([[0.5, "0.5"]], "not a number"),
    "nothing": ([[0.5, None]], "not a number"),
    "a truth": ([[0.5, True]], "not a number"),
    "above 1": ([[0.5, 1.001]], "above 1"),
    "in percent": ([[50, 100]], "above 1"),
    "huge": ([[10**400]], "above 1"),
    "minus huge": ([[-(10**400)]], "not finite"),
    "too wide": ([[0.5] * 1025], "1025x1 cells"),
    "too high": ([[0.5]] * 1025, "1x1025 cells"),
    "an empty text": ("", "empty"),
    "no base64": ("???", "neither base64 of a PNG"),
    "not ASCII": ("é", "neither base64 of a PNG"),
    "no picture": (base64_of(b"hello"), "not an image we read"),
    "half a picture": (base64_of(png(IMAGES[0])[:200]), "truncated or damaged"),
    "a JPEG": (picture_of(IMAGES[0], "JPEG"), "not an 8-bit PNG"),
    "16 bits": (picture_of(np.full((2, 2), 4000, np.uint16)), "not an 8-bit PNG"),
    "too wide a picture": (picture_of(np.zeros((1, 1025), np.uint8)), "1025x1 cells"),
    "a huge picture": (picture_of(np.zeros((8000, 8000), np.uint8), mode="1"), "over the limit of 1048576"),
    "broken rows": ("[[0.5, ", "malformed JSON"),
    "rows that are not a number": ("[[NaN]]", "malformed JSON"),
    "100,000 lists": ("[" * 100_000, "malformed JSON"),
}


@on_module_loop
@pytest.mark.parametrize("name", WRONG)
async def test_what_cannot_be_read_is_refused(fake: Service, name: str) -> None:
    value, message = WRONG[name]
    with pytest.raises(InvalidParameter, match=message):
        read_attention(value)
    text = value if isinstance(value, str) else json.dumps(value)
    if isinstance(value, str):
        response = await fake.client.post(ONE, files={"image": FILES[1]}, data={"attention": text})
    else:
        instance = json.dumps({"image_bytes": {"b64": base64_of(FILES[1])}})
        body = f'{{"instances": [{instance}], "parameters": {{"attention": {text}}}}}'
        response = await fake.client.post(ONE, content=body.encode(), headers=JSON)
    error = refused(response)
    assert message in error["message"]
    assert error["detail"] == {"parameter": "attention"}
    assert len(error["message"]) < 300


def refused(response: httpx.Response, status: int = 422, code: str = "invalid_parameter") -> dict[str, Any]:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["code"] == code
    return error  # type: ignore[no-any-return]


@on_module_loop
@pytest.mark.parametrize("name", ["target", "targets"])
async def test_a_target_of_a_map_for_all_classes_is_refused(fake: Service, name: str) -> None:
    response = await fake.client.post(ONE, content=FILES[1], params={name: "cat"})
    error = refused(response)
    message = f"by attention is the same for every class; leave {name} out, or choose another method"
    assert message in error["message"]
    assert error["detail"] == {"parameter": name}


@on_module_loop
async def test_several_images_with_one_map_are_refused(fake: Service) -> None:
    parts = [("image", FILES[1]), ("image", FILES[2])]
    response = await fake.client.post(ONE, files=parts, data={"attention": "[[1]]"})
    assert "one image" in refused(response)["message"]


@on_module_loop
async def test_predict_knows_no_attention(fake: Service) -> None:
    path = "/v1/models/one:predict"
    error = refused(await fake.client.post(path, files={"image": FILES[1]}, data={"attention": "[[1]]"}))
    assert error["detail"]["known"] == ["deadline_ms", "top_k"]


async def test_a_model_that_takes_none_says_so() -> None:
    async with serving(zoo_settings()) as service:
        path = "/v1/models/gcm-cifar10:explain"
        response = await service.client.post(path, files={"image": FILES[1]}, data={"attention": "[[1]]"})
        assert "gcm-cifar10 by gcm cannot be edited; only attention maps can" in refused(response)["message"]
        assert service.count("requests_total", kind="explain", outcome="invalid") == 1


# However it ends


def edited(service: Service, number: int = 1, side: int = 2) -> asyncio.Task[httpx.Response]:
    """Ask with an edited map in the background."""
    rows = json.dumps([[0.5] * side] * side)
    return asyncio.create_task(
        service.client.post(ONE, files={"image": FILES[number]}, data={"attention": rows})
    )


async def held(service: Service) -> asyncio.Task[httpx.Response]:
    """Occupy the engine of ONE with image 0."""
    service.engine.gate.shut()
    task = asyncio.create_task(service.client.post(ONE, content=FILES[0]))
    await service.engine.gate.entered()
    return task


def fails_once_of_two(images: UInt8, outputs: Outputs) -> Outputs:
    """A fault: the second of two has logits that are no numbers, which is the one without the edit."""
    if len(outputs.logits) == 2:
        outputs.logits[1] = np.nan
    return outputs


@pytest.mark.parametrize("fault", [broken, fails_once_of_two])
async def test_if_one_of_the_two_fails_the_request_fails(fault: Any) -> None:
    async with serving(zoo_settings(repository=attention_models())) as service:
        service.engine.fault = fault
        refused(await edited(service), 500, "inference_failed")
        service.engine.fault = None
        assert service.depth("explain") == service.state.budget.held == 0
        assert (await edited(service)).status_code == 200


async def test_where_only_one_of_the_two_fits_none_waits() -> None:
    async with serving(zoo_settings(repository=attention_models(), queue_capacity=2)) as service:
        first = await held(service)
        second = asyncio.create_task(service.client.post(ONE, content=FILES[2]))
        await until(lambda: service.depth("explain") == 1)
        refused(await edited(service), 429, "queue_full")
        await until(lambda: service.depth("explain") == 1)
        service.engine.gate.open()
        assert [(await task).status_code for task in (first, second)] == [200, 200]
        assert [len(batch) for batch in service.engine.batches[-2:]] == [1, 1]


async def test_shedding_answers_both_labels_without_maps() -> None:
    settings = zoo_settings(repository=attention_models(), queue_capacity=2, shed=True)
    async with serving(settings) as service:
        first = await held(service)
        waiting = [asyncio.create_task(service.client.post(ONE, content=FILES[2])) for _ in range(2)]
        await until(lambda: service.depth("explain") == 2)
        shed = edited(service)
        await until(lambda: service.depth("predict") == 2)
        service.engine.gate.open()
        body = (await shed).json()
        for answer in (body, body["original"]):
            assert answer["explanation"] == {"method": "attention", "status": "shed", "target": None}
        assert logits(body) != logits(body["original"])
        assert all(response.status_code == 200 for response in await asyncio.gather(first, *waiting))


async def test_who_leaves_takes_both_along() -> None:
    async with serving(zoo_settings(repository=attention_models())) as service:
        first = await held(service)
        caller = Caller(service.app, ONE, query="attention=%5B%5B1%5D%5D")
        caller.send(FILES[1])
        await until(lambda: service.depth("explain") == 2)
        caller.leave()
        await caller.done
        assert caller.status == 499
        await until(lambda: service.depth("explain") == 0)
        service.engine.gate.open()
        assert (await first).status_code == 200
        assert not service.engine.saw(IMAGES[1])
        assert service.state.budget.held == 0


async def test_a_deadline_is_that_of_both(clock: Clock) -> None:
    async with serving(zoo_settings(repository=attention_models())) as service:
        first = await held(service)
        late = asyncio.create_task(
            service.client.post(
                ONE, files={"image": FILES[1]}, data={"attention": "[[1]]", "deadline_ms": "1000"}
            )
        )
        await until(lambda: service.depth("explain") == 2)
        await clock.advance(2)
        refused(await late, 504, "deadline_exceeded")
        assert service.depth("explain") == 0
        service.engine.gate.open()
        await first
        assert service.state.budget.held == 0


async def test_an_edited_map_counts_as_held_memory() -> None:
    async with serving(zoo_settings(repository=attention_models())) as service:
        first = await held(service)
        before = service.state.budget.held
        small = edited(service, side=1)
        await until(lambda: service.depth("explain") == 2)
        with_small = service.state.budget.held
        large = edited(service, side=100)
        await until(lambda: service.depth("explain") == 4)
        with_large = service.state.budget.held
        service.engine.gate.open()
        bodies = [int((await task).request.headers["content-length"]) for task in (small, large)]
        assert with_large - with_small == (with_small - before) + (bodies[1] - bodies[0]) + 4 * (100**2 - 1)
        await first
        assert service.state.budget.held == 0


async def test_edited_maps_of_different_sizes_are_all_answered() -> None:
    async with serving(zoo_settings(repository=attention_models())) as service:
        first = await held(service)
        tasks = [edited(service, number, side) for number, side in enumerate((1, 2, 1, 3, 2, 1), 1)]
        await until(lambda: service.depth("explain") == 12)
        service.engine.gate.open()
        for number, response in enumerate(await asyncio.gather(*tasks), 1):
            body = response.json()
            own = body["original"]["top_k"][0]["logit"]
            assert own == pytest.approx(10 * float(grey(number).mean()), rel=1e-5)
            assert body["top_k"][0]["logit"] == pytest.approx(5)
        await first
        # all of one size, with everybody's original up to there
        assert sum(len(batch) for batch in service.engine.batches[-3:]) == 12


async def test_metrics_are_of_the_network_and_not_of_the_edit() -> None:
    async with serving(zoo_settings(repository=attention_models())) as service:
        before = service.count("inferences_total", model="one", kind="explain")
        assert (await edited(service)).json()["label"] == "truck"
        response = await service.client.post(ONE, files={"image": FILES[1]}, data={"attention": "[[0]]"})
        assert response.json()["label"] == "airplane"
        assert service.count("predictions_total", label="truck") == 2
        assert service.count("predictions_total", label="airplane") == 0
        assert service.count("prediction_score_count") == 2
        assert service.count("map_entropy_count") == 2
        assert service.count("degenerate_maps_total") == 0  # though both edited maps are flat
        assert service.count("requests_total", kind="explain", outcome="success") == 2
        assert service.count("inferences_total", model="one", kind="explain") == before + 4


# The real thing


@pytest.mark.parametrize("engine", ["onnx", "torch"])
@pytest.mark.parametrize("architecture", ["abn", "multiscale-abn"])
async def test_the_service_answers_as_the_graph_does(
    architecture: str, engine: str, attentive: Callable[[str], Path]
) -> None:
    """Against ONNX Runtime alone: with the edit, without, and with one that leaves every cell."""
    bundle = read_bundle(attentive(architecture))
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(bundle.path / "model.onnx", options)
    edit = np.random.default_rng(3).uniform(-1, 1, (6, 9)).astype(np.float32)
    settings = zoo_settings(repository=bundle.path.parent.parent, engine=engine)
    path = f"/v1/models/{architecture}:explain"
    async with serving(settings, make_engine=engines.make_engine) as service:
        assert service.model.state == "ready", service.model.failure
        for number in range(1, 5):
            image = {"image": IMAGES[number][None], "targets": np.full((1, 1), -1)}
            by_edit = session.run(["logits", "maps"], {**image, "attention": edit[None]})
            own = session.run(["logits", "maps"], image)
            body = await ask(service, path, number, attention=edit.tolist(), map="float32", top_k=4)
            for answer, expected in ((body, by_edit), (body["original"], own)):
                assert logits(answer) == pytest.approx(expected[0][0].tolist(), abs=1e-5)
                assert answer["index"] == expected[0][0].argmax()
                maps = answer["explanation"].get("maps", [answer["explanation"]])
                sent = np.stack([values(entry["map"]) for entry in maps])
                np.testing.assert_allclose(sent, expected[1][0], atol=1e-5)
            assert np.abs(np.array(logits(body)) - logits(body["original"])).max() > 1e-3

            left = await ask(service, path, number, attention=[[-1] * 4] * 3, top_k=4)
            assert (left["label"], left["score"]) == (
                body["original"]["label"],
                pytest.approx(body["original"]["score"], abs=1e-6),
            )
            assert left["original"]["score"] == pytest.approx(left["score"], abs=1e-6)


async def test_a_png_gives_the_answer_of_its_numbers(attentive: Callable[[str], Path]) -> None:
    level = np.random.default_rng(4).integers(0, 256, (16, 16), np.uint8)
    settings = zoo_settings(repository=attentive("abn").parent.parent, engine="onnx")
    async with serving(settings, make_engine=engines.make_engine) as service:
        picture, rows = [
            await ask(service, "/v1/models/abn:explain", attention=attention, map="float32")
            for attention in (picture_of(level), (level / 255).tolist())
        ]
    assert picture["score"] == pytest.approx(rows["score"], abs=1e-6)
    found = values(picture["explanation"]["map"])
    np.testing.assert_allclose(found, values(rows["explanation"]["map"]), atol=1e-6)
    np.testing.assert_allclose(found, level / 255, atol=1e-5)


def test_the_parameter_is_checked_where_it_is_read() -> None:
    """A million wrong cells are one fault, and not a million."""
    options = ExplainOptions.model_validate({"attention": [["x"] * 1000] * 1000})
    with pytest.raises(InvalidParameter) as caught:
        read_attention(options.attention)
    assert len(caught.value.message) < 100
