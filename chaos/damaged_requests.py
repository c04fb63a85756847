"""Damaged images through the API: raw, as a form, as JSON, in the Open Inference Protocol."""

from __future__ import annotations

import asyncio
import base64
import collections
import json
import random
from typing import Any

from chaos import files
from chaos.client import Connection, multipart, request_bytes
from chaos.decoding import MAX_PIXELS, apart
from chaos.mutation import mutant
from chaos.scenario import Context, Scenario
from chaos.servers import SMALL, Server, only, server, status

CONNECTIONS = 8
MAX_GROWTH = 400 * files.MEBIBYTE
"""Pictures of two megapixels for eight callers at once."""
PATH = f"/v1/models/{SMALL}"
OIP = f"/v2/models/{SMALL}/infer"
WAYS = ("raw", "form", "json", "oip", "oip-binary", "oip-raw")
OIP_ERRORS = {
    "image_too_large": "413 True",
    **dict.fromkeys(("empty_body", "broken_image", "unsupported_image"), "400 True"),
}
"""Statuses of that protocol, whose errors are a sentence without a code, and never empty."""

VARYING = ("id", "timing_ms", "batch_size")
"""What differs between two answers to the same image."""


def run(context: Context) -> None:
    """Send them all: each is answered as the decoder does, and what is asked before and after is equal."""
    count = context.pick(10_000, 50_000)
    repository = only(context.folder, SMALL)
    with server(context.folder, repository=repository, max_pixels=MAX_PIXELS) as running:
        before, resident = _controls(running), status(running.pid, "VmRSS")
        expected = [line["outcome"] for line in apart(context, count)]
        outcomes, wrong = asyncio.run(_send_all(running, context, expected))
        context.figures |= {
            "requests": sum(outcomes.values()),
            "statuses": {code: outcomes[code] for code in sorted(outcomes)},
            "server_errors": sum(number for code, number in outcomes.items() if code >= 500),
            "most_memory_mib": (status(running.pid, "VmHWM") - resident) >> 20,
        }
        context.hold(not wrong, f"{len(wrong)} answered otherwise than the decoder, such as {wrong[:1]}")
        context.hold(running.get("/readyz")[0] == 200, "not ready afterwards")
        context.hold(_controls(running) == before, "other answers afterwards")
        context.hold(context.figures["most_memory_mib"] << 20 < MAX_GROWTH, "the process has grown")


async def _send_all(
    running: Server, context: Context, expected: list[str]
) -> tuple[collections.Counter[int], list[str]]:
    numbers = iter(range(len(expected)))
    outcomes: collections.Counter[int] = collections.Counter()
    wrong: list[str] = []

    async def caller() -> None:
        connection = Connection(running.address)
        for number in numbers:
            found, way = mutant(context.seed, number), WAYS[number % len(WAYS)]
            answer = await connection.ask(_request(running.address, way, found.data, number))
            outcomes[answer.status] += 1
            should, is_ = expected[number], _outcome(way, answer.status, answer.body)
            if is_ != (OIP_ERRORS.get(should, should) if way.startswith("oip") else should):
                wrong.append(f"number {number} as {way}: {is_} instead of {should} ({found.recipe})")
        connection.close()

    await asyncio.gather(*(caller() for _ in range(CONNECTIONS)))
    return outcomes, wrong


def _request(address: str, way: str, image: bytes, number: int) -> bytes:
    dice = random.Random(number)
    verb = dice.choice(("predict", "explain", "explain?map=float32", "explain?overlay=blend"))
    path = f"{PATH}:{verb}"
    if way == "raw":
        accept = dice.choice(("*/*", "application/json", "image/png") if "explain" in verb else ("*/*",))
        return request_bytes(address, "POST", path, image, {"Content-Type": "image/png", "Accept": accept})
    if way == "form":
        body, headers = multipart(image)
        return request_bytes(address, "POST", path, body, headers)
    encoded = base64.b64encode(image).decode()
    if way == "json":
        body = json.dumps({"instances": [{"image_bytes": {"b64": encoded}}]}).encode()
        return request_bytes(address, "POST", path, body, {"Content-Type": "application/json"})
    if way == "oip-raw":
        return request_bytes(address, "POST", OIP, image, {"Inference-Header-Content-Length": "0"})
    tensor: dict[str, Any] = {"name": "image_bytes", "datatype": "BYTES", "shape": [1]}
    outputs = [{"name": name} for name in dice.sample(["logits", "probabilities", "label", "map"], 2)]
    if way == "oip":
        tensor |= {"parameters": {"content_type": "base64"}, "data": [encoded]}
        return request_bytes(
            address, "POST", OIP, json.dumps({"inputs": [tensor], "outputs": outputs}).encode()
        )
    binary = len(image).to_bytes(4, "little") + image
    tensor["parameters"] = {"binary_data_size": len(binary)}
    head = json.dumps({"inputs": [tensor], "outputs": outputs}).encode()
    return request_bytes(
        address, "POST", OIP, head + binary, {"Inference-Header-Content-Length": str(len(head))}
    )


def _outcome(way: str, code: int, body: bytes) -> str:
    """``read``, or the code of the error, wherever the protocol puts it."""
    if code == 200:
        if way != "json":
            return "read"
        [answer] = next(iter(json.loads(body).values()))
        return answer["error"]["code"] if "error" in answer else "read"
    error = json.loads(body)["error"]
    return error["code"] if isinstance(error, dict) else f"{code} {bool(error)}"


def _controls(running: Server) -> list[Any]:
    """The answers to a few honest images, without what differs between any two answers."""
    answers = []
    for name in ("png-RGB", "jpeg", "webp-alpha", "tiff-tiff_lzw"):
        for verb in ("predict", "explain?map=float32", "explain?overlay=contour"):
            code, body = running.post(f"{PATH}:{verb}", files.honest()[name])
            answers.append((code, {key: value for key, value in body.items() if key not in VARYING}))
    return answers


SCENARIO = Scenario(
    "damaged images through the API",
    "no 5xx, every answer as the decoder's, ready at the end, control answers equal to those before",
    run,
)
