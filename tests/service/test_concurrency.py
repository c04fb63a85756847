"""A thousand different images at once through the real application and the real network."""

from __future__ import annotations

import asyncio
import base64
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from services import EXPLAIN, PNG, PREDICT, pictures, png, serving, zoo_settings

from konkyo.models.bundle import read_bundle
from konkyo.service.engines import make_engine
from konkyo.service.engines.base import Engine, Outputs, UInt8
from konkyo.service.settings import ZOO

COUNT = 1000
TOLERANCE = 1e-4
BUNDLE = ZOO / "gcm-cifar10" / "1"


def _targets(number: int) -> list[int] | None:
    """None is a prediction; else what to explain: the predicted class, one class, or several."""
    return (None, [-1], [number % 10], [number % 10, (number + 3) % 10, (number + 7) % 10])[number % 4]


def _alone(engine: Engine, images: list[UInt8]) -> list[Outputs]:
    return [
        engine.run(image[None], np.asarray([_targets(number) or []], np.int64).reshape(1, -1))
        for number, image in enumerate(images)
    ]


def _logits(body: dict[str, Any]) -> np.ndarray:
    return np.asarray([entry["logit"] for entry in sorted(body["top_k"], key=lambda entry: entry["index"])])


def _maps(body: dict[str, Any]) -> np.ndarray:
    explanation = body["explanation"]
    maps = [entry["map"] for entry in explanation.get("maps", [explanation])]
    return np.stack(
        [
            np.frombuffer(base64.b64decode(entry["data"]), "<f4").reshape(entry["height"], entry["width"])
            for entry in maps
        ]
    )


async def test_a_thousand_at_once_each_get_their_own() -> None:
    images = list(pictures(COUNT))
    settings = zoo_settings(engine="onnx", queue_capacity=COUNT, max_batch=32)
    engine = make_engine(read_bundle(BUNDLE), settings)
    with ThreadPoolExecutor(1) as thread:
        references = await asyncio.get_running_loop().run_in_executor(thread, _alone, engine, images)

    async with serving(settings, make_engine=make_engine) as service:

        async def ask(number: int) -> dict[str, Any]:
            targets = _targets(number)
            path, parameters = PREDICT, {"top_k": "10"}
            if targets is not None:
                path, parameters["map"] = EXPLAIN, "float32"
                if targets != [-1]:
                    parameters["targets"] = ",".join(map(str, targets))
            answer = await service.client.post(
                path,
                params=parameters,
                content=png(images[number]),
                headers={**PNG, "x-request-id": f"request-{number}"},
            )
            assert answer.status_code == 200, answer.text
            body: dict[str, Any] = answer.json()
            assert answer.headers["x-request-id"] == body["id"] == f"request-{number}"
            assert answer.headers["x-batch-size"] == str(body["batch_size"])
            return body

        bodies = await asyncio.gather(*map(ask, range(COUNT)))

        inferences, executions = service.count("inferences_total"), service.count("executions_total")
        assert inferences == COUNT + 2  # and the canary, in both queues
        assert inferences / executions > 1
        assert service.count("requests_total", outcome="success") == COUNT
        assert max(body["batch_size"] for body in bodies) <= 32

    logits = np.concatenate([reference.logits for reference in references])
    assert len(np.unique(logits.round(3), axis=0)) == COUNT  # no two images could be mistaken for each other
    for number, (body, reference) in enumerate(zip(bodies, references, strict=True)):
        scale = max(1.0, float(np.ptp(reference.logits)))
        np.testing.assert_allclose(_logits(body), reference.logits[0], rtol=0, atol=TOLERANCE * scale)
        targets = _targets(number)
        if targets is None:
            assert "explanation" not in body
            continue
        resolved = [int(reference.logits.argmax()) if target < 0 else target for target in targets]
        shown = body["explanation"].get("maps", [body["explanation"]])
        assert [entry["target"]["index"] for entry in shown] == resolved
        maps = _maps(body)
        scale = max(1.0, float(np.ptp(reference.maps)))
        np.testing.assert_allclose(maps, reference.maps[0], rtol=0, atol=TOLERANCE * scale)
    engine.close()
