"""Malformed Open Inference Protocol: valid requests with any part of them gone wrong."""

from __future__ import annotations

import asyncio
import base64
import collections
import json
import random
import struct
import zlib
from typing import Any

import numpy as np
import uvloop

from chaos import files
from chaos.client import Connection, request_bytes
from chaos.scenario import Context, Scenario
from chaos.servers import SMALL, Server, only, server

PATH = f"/v2/models/{SMALL}/infer"
CONNECTIONS = 8
ALLOWED = (200, 400, 404, 413, 415, 422)
SIZES = (-(2**63), -(2**31), -1, 0, 1, 2, 31, 33, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, 2**64, 10**40)
ODD: tuple[Any, ...] = (
    *SIZES, None, True, "", "1", "\u0000", "image", 1.5, 1e308, -0.0, [], [[]], {}, {"a": 1}, [1, [2, [3]]],
    "é" * 300, "BYTES", "FP16", "INT64", "UINT8",
)  # fmt: skip
HEADER = "Inference-Header-Content-Length"


def run(context: Context) -> None:
    """Send them all: 4xx with a sentence, or an answer; then an honest one is answered as before."""
    count = context.pick(6000, 50_000)
    with server(context.folder, repository=only(context.folder, SMALL)) as running:
        honest = json.dumps(_honest(random.Random(0))).encode()
        before = running.post(PATH, honest, "application/json")
        statuses, wrong = uvloop.run(_send_all(running, context.seed, count))
        context.figures |= {"requests": count, "statuses": dict(sorted(statuses.items()))}
        context.hold(not wrong, f"{len(wrong)} answered wrongly, such as {wrong[:3]}")
        context.hold(
            statuses[200] > count / 50, "hardly any was answered: the requests are too wrong to reach far"
        )
        context.hold(running.get("/v2/health/ready")[0] == 200, "not ready afterwards")
        after = running.post(PATH, honest, "application/json")
        context.hold(before[1]["outputs"] == after[1]["outputs"], "another answer afterwards")


async def _send_all(running: Server, seed: int, count: int) -> tuple[collections.Counter[int], list[str]]:
    statuses: collections.Counter[int] = collections.Counter()
    wrong: list[str] = []
    numbers = iter(range(count))

    async def caller() -> None:
        connection = Connection(running.address)
        for number in numbers:
            body, headers = malformed(seed, number)
            answer = await connection.ask(request_bytes(running.address, "POST", PATH, body, headers))
            statuses[answer.status] += 1
            if answer.status not in ALLOWED or (answer.status >= 400 and not _sentence(answer.body)):
                wrong.append(
                    f"number {number}: {answer.status} {answer.body[:200]!r} to {body[:200]!r} {headers}"
                )
        connection.close()

    await asyncio.gather(*(caller() for _ in range(CONNECTIONS)))
    return statuses, wrong


def _sentence(body: bytes) -> bool:
    """Whether it is the protocol's error: a text that is not empty."""
    error = json.loads(body)
    return set(error) == {"error"} and isinstance(error["error"], str) and len(error["error"]) > 3


def malformed(seed: int, number: int) -> tuple[bytes, dict[str, str]]:
    """The request of this number; the same for the same seed."""
    dice = random.Random(f"{seed}-{number}")
    request: Any = _honest(dice)
    for _ in range(dice.choice((0, 1, 1, 1, 2, 3))):
        request = _break(request, dice)
    text = json.dumps(request).encode() if dice.random() < 0.95 else _nested(dice)
    if dice.random() < 0.05:
        text = _damaged(text, dice)
    headers = {"Content-Type": dice.choice(("application/json", "application/octet-stream", "text/plain"))}
    if dice.random() < 0.5:
        body = text + _tensors(request, dice)
        length = len(text) if dice.random() < 0.8 else dice.choice((*SIZES, len(body), len(body) + 1))
        headers[HEADER] = (
            str(length) if dice.random() < 0.95 else dice.choice(("", "x", "1e3", "0x10", "٣", " 5 "))
        )
        if not headers[HEADER].isascii():
            headers[HEADER] = "+7"
    else:
        body = text
    if dice.random() < 0.05:
        headers["Content-Encoding"] = dice.choice(("gzip", "deflate", "br", "gzip, gzip"))
        body = dice.choice((zlib.compress(body), body, zlib.compress(body)[:-4]))
    return body, headers


def _honest(dice: random.Random) -> dict[str, Any]:
    """A request that is right: pixels or a file, in JSON or binary, some outputs."""
    binary = dice.random() < 0.5
    if dice.random() < 0.5:
        values = np.random.default_rng(dice.randrange(1000)).integers(0, 256, (1, 32, 32, 3), np.uint8)
        tensor: dict[str, Any] = {"name": "image", "datatype": "UINT8", "shape": [1, 32, 32, 3]}
        tensor |= {"parameters": {"binary_data_size": 3072}} if binary else {"data": values.ravel().tolist()}
    else:
        file = files.honest()["png-RGB"]
        tensor = {"name": "image_bytes", "datatype": "BYTES", "shape": [1]}
        encoded = base64.b64encode(file).decode()
        tensor |= {"parameters": {"binary_data_size": len(file) + 4}} if binary else {"data": [encoded]}
    targets = {"name": "targets", "datatype": "INT64", "shape": [1, 2], "data": [3, -1]}
    outputs = [{"name": name} for name in dice.sample(["logits", "probabilities", "label", "map"], 2)]
    return {"id": "chaos", "inputs": [tensor, targets], "outputs": outputs}


def _tensors(request: Any, dice: random.Random) -> bytes:
    """What follows the JSON: as long as it says, or not."""
    inputs = request.get("inputs") if isinstance(request, dict) else None
    sizes = []
    for one in inputs if isinstance(inputs, list) else []:
        parameters = one.get("parameters") if isinstance(one, dict) else None
        size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
        if type(size) is int and 0 <= size < 10**6:
            sizes.append(size)
    file = files.honest()["png-RGB"]
    data = b"".join(
        (struct.pack("<I", len(file)) + file)[:size] if size != 3072 else dice.randbytes(size)
        for size in sizes
    )
    return data if dice.random() < 0.9 else data[: -dice.randint(1, 9)] + dice.randbytes(dice.randint(0, 9))


def _break(value: Any, dice: random.Random) -> Any:
    """Change, drop, repeat or rename something, anywhere."""
    if isinstance(value, dict) and value and dice.random() < 0.85:
        key = dice.choice(list(value))
        match dice.randrange(8):
            case 0:
                return {name: one for name, one in value.items() if name != key}
            case 1:
                return {**value, dice.choice(("extra", "", "data", "parameters", "name")): dice.choice(ODD)}
            case 2:
                return {**value, key: dice.choice(ODD)}
            case _:
                return {**value, key: _break(value[key], dice)}
    if isinstance(value, list) and value and dice.random() < 0.85:
        place = dice.randrange(len(value))
        match dice.randrange(5):
            case 0:
                return value[:place] + value[place + 1 :]
            case 1:
                return [*value, value[place]]
            case 2:
                return [*value[:place], dice.choice(ODD), *value[place + 1 :]]
            case _:
                return [*value[:place], _break(value[place], dice), *value[place + 1 :]]
    return dice.choice(ODD)


def _nested(dice: random.Random) -> bytes:
    depth = dice.choice((99, 100, 101, 120, 5000, 250_000))
    opening, closing = dice.choice(((b"[", b"]"), (b'{"inputs":', b"}")))
    return opening * depth + dice.choice((b"1", b"", b"null")) + closing * dice.choice((depth, depth - 1, 0))


def _damaged(text: bytes, dice: random.Random) -> bytes:
    place = dice.randrange(len(text))
    return (
        text[:place] + dice.choice((b"", b"\xff", b"\\ud800", b"NaN", b"9" * 5000, b",")) + text[place + 1 :]
    )


SCENARIO = Scenario(
    "malformed Open Inference Protocol",
    "4xx with a sentence or an answer, never 5xx; the same honest answer before and after",
    run,
)
