"""Many different images at once, in every method and protocol: each answer is its own image's."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import uvloop

from chaos import files
from chaos.client import Answer, Connection, request_bytes
from chaos.scenario import Context, Scenario
from chaos.servers import Server, only, server

MODEL = "abn-magnetic-tile"
METHODS = (None, "attention", "gradcam", "hirescam", "gradcam-plus-plus", "layercam")
TOLERANCE = 1e-3
"""Of values of order 1: kernels differ by the size of a batch."""

APART = 20
"""Times the tolerance, by which the answers to any two images differ at the least."""


@dataclass(frozen=True)
class Ask:
    """One request: its kind, and how to read the numbers out of its answer."""

    kind: str
    request: bytes


def run(context: Context) -> None:
    """All at once, then each alone; the same numbers, and no image's like another's."""
    count = context.pick(300, 1000)
    repository = only(context.folder, MODEL)
    settings: dict[str, Any] = {
        "repository": repository, "engine": "auto", "queue_capacity": count, "max_connections": 2 * count,
    }  # fmt: skip
    with server(context.folder, **settings) as running:
        asks = [_ask(running, number) for number in range(count)]
        uvloop.run(_alone(running, asks[: len(METHODS) * 4]))  # torch is loaded by the first that needs it
        together = uvloop.run(_together(running, asks))
        alone = uvloop.run(_alone(running, asks))
        batches = running.metric("konkyo_inferences_total") / running.metric("konkyo_executions_total")
    worst = nearest = 0.0
    for number, (ask, one, other) in enumerate(zip(asks, together, alone, strict=True)):
        context.hold(
            one.status == other.status == 200, f"{ask.kind} {number}: {one.status} {one.body[:300]!r}"
        )
        given, right = _numbers(ask.kind, one), _numbers(ask.kind, other)
        context.hold(given.keys() == right.keys(), f"{ask.kind} {number}: {given.keys()}")
        for name, values in given.items():
            scale = max(1.0, float(np.ptp(right[name])))
            off = float(np.abs(values - right[name]).max()) / scale
            worst = max(worst, off)
            context.hold(off < TOLERANCE, f"{ask.kind} {number}: {name} is off by {off:.2g}")
    logits = np.stack([_numbers(ask.kind, answer)["logits"] for ask, answer in zip(asks, alone, strict=True)])
    differences = np.abs(logits[:, None] - logits[None]).max(axis=-1) + np.eye(count) * 1e9
    nearest = float(differences.min())
    context.figures |= {
        "images": count,
        "kinds": len({ask.kind for ask in asks}),
        "swapped": 0,
        "mean_batch": round(batches, 2),
        "largest_difference": float(f"{worst:.1g}"),
        "nearest_two_images": round(nearest, 4),
    }
    context.hold(nearest > APART * TOLERANCE, "two images are too much alike to see them swapped")
    context.hold(batches > 1.2, "hardly anything shared a batch")


def _ask(running: Server, number: int) -> Ask:
    """Predictions, explanations by each method, of each protocol in turn."""
    image = files.file(files.picture(128, 128, 5000 + number).convert("RGB"), "PNG", compress_level=1)
    way = number % 4
    method = METHODS[number // 4 % len(METHODS)]
    if way == 0:
        return Ask("predict", _post(running, f"v1/models/{MODEL}:predict?top_k=10", image))
    if way in (1, 2):
        query = f"&method={method}" if method else ""
        if method not in (None, "attention"):
            query += f"&targets={number % 6},{(number + 3) % 6}" if way == 2 else ""
        path = f"v1/models/{MODEL}:explain?top_k=10&map=float32{query}"
        return Ask(
            f"explain {method} {'targets' if 'targets' in query else ''}".strip(), _post(running, path, image)
        )
    binary = len(image).to_bytes(4, "little") + image
    parameters = {"binary_data_size": len(binary)}
    tensor = {"name": "image_bytes", "datatype": "BYTES", "shape": [1], "parameters": parameters}
    outputs = [{"name": "logits"}] + [{"name": "map"}] * (number % 8 == 3)
    head = json.dumps({"inputs": [tensor], "outputs": outputs}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    kind = "oip with map" if len(outputs) > 1 else "oip"
    return Ask(kind, _post(running, f"v2/models/{MODEL}/infer", head + binary, headers))


def _post(running: Server, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    return request_bytes(running.address, "POST", f"/{path}", body, headers or {"Content-Type": "image/png"})


def _numbers(kind: str, answer: Answer) -> dict[str, Any]:
    """Logits and maps, as arrays by name."""
    body = answer.json()
    if kind.startswith("oip"):
        return {output["name"]: np.asarray(output["data"], np.float32) for output in body["outputs"]}
    entries = sorted(body["top_k"], key=lambda entry: entry["index"])
    found = {"logits": np.asarray([entry["logit"] for entry in entries], np.float32)}
    if "explanation" in body:
        shown = body["explanation"].get("maps") or [body["explanation"]]
        for number, entry in enumerate(shown):
            data = base64.b64decode(entry["map"]["data"])
            name = f"map {number} {(entry['target'] or {}).get('index')}"
            found[name] = np.frombuffer(data, "<f4")
    return found


async def _together(running: Server, asks: list[Ask]) -> list[Answer]:
    """Over a connection each, all of them sent before any is read."""

    async def one(ask: Ask) -> Answer:
        connection = Connection(running.address, timeout=300)
        try:
            return await connection.ask(ask.request)
        finally:
            connection.close()

    return await asyncio.gather(*map(one, asks))


async def _alone(running: Server, asks: list[Ask]) -> list[Answer]:
    connection = Connection(running.address)
    answers = [await connection.ask(ask.request) for ask in asks]
    connection.close()
    return answers


SCENARIO = Scenario(
    "different images at once, in every method and protocol",
    f"each answer within {TOLERANCE:g} of that image's alone, none swapped",
    run,
)
