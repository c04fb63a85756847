"""Callers of every sort, good and bad, for as long as they are let: each is one of ``EVERYBODY``."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from chaos import files
from chaos.client import Answer, Connection, multipart, request_bytes
from chaos.known import Known
from chaos.mutation import mutant
from chaos.oip import malformed
from chaos.servers import SMALL

MODEL = f"/v1/models/{SMALL}"
OIP = f"/v2/models/{SMALL}/infer"
PAUSE = 0.15
"""Mean seconds between two requests of one caller."""


@dataclass
class Crowd:
    """What all callers share.

    Attributes:
        images: with the label and the score that every version of the model gives them.
        done: requests by kind.
        faults: what should not have been.
    """

    address: str
    images: list[Known]
    dice: random.Random
    done: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def image(self) -> Known:
        """Any of them."""
        return self.dice.choice(self.images)

    def count(self, kind: str, condition: bool, said: object) -> None:
        """Count a request, and a fault unless a condition holds."""
        self.done[kind] += 1
        if not condition:
            self.faults.append(f"{kind}: {str(said)[:300]}")


Caller = Callable[[Crowd, Connection], Coroutine[Any, Any, None]]


async def keep_asking(crowd: Crowd, caller: Caller, stop: asyncio.Event) -> None:
    """One caller with a connection of its own, until ``stop``."""
    connection = Connection(crowd.address)
    while not stop.is_set():
        try:
            await caller(crowd, connection)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            crowd.faults.append(f"{caller.__name__}: {error!r}")
        await asyncio.sleep(crowd.dice.expovariate(1 / PAUSE))
    connection.close()


def _right(answer: Answer, one: Known) -> bool:
    if answer.status != 200:
        return False
    body = answer.json()
    body = next(iter(body.values()))[0] if "model" not in body else body
    return bool(body["label"] == one.label and abs(body["score"] - one.score) < 1e-3)


async def predicts(crowd: Crowd, connection: Connection) -> None:
    """A raw image, a form or JSON."""
    one, verb = crowd.image(), crowd.dice.choice(("predict", "explain", "explain?map=float32"))
    match crowd.dice.randrange(3):
        case 0:
            body, headers = one.data, {"Content-Type": "image/jpeg"}
        case 1:
            body, headers = multipart(one.data)
        case _:
            instance = {"image_bytes": {"b64": base64.b64encode(one.data).decode()}}
            body, headers = (
                json.dumps({"instances": [instance]}).encode(),
                {"Content-Type": "application/json"},
            )
    answer = await connection.ask(request_bytes(crowd.address, "POST", f"{MODEL}:{verb}", body, headers))
    crowd.count("answers", _right(answer, one), answer)


async def wants_pictures(crowd: Crowd, connection: Connection) -> None:
    """The overlay of a photograph."""
    kind = crowd.dice.choice(("png", "jpeg", "webp"))
    image = files.file(files.picture(640, 480, crowd.dice.randrange(50)).convert("RGB"), "JPEG")
    answer = await connection.ask(
        request_bytes(crowd.address, "POST", f"{MODEL}:explain", image, {"Accept": f"image/{kind}"})
    )
    right = answer.status == 200 and answer.headers["content-type"] == f"image/{kind}"
    crowd.count("pictures", right, answer.status)


async def speaks_oip(crowd: Crowd, connection: Connection) -> None:
    """A file as the whole request."""
    one = crowd.image()
    headers = {"Inference-Header-Content-Length": "0"}
    answer = await connection.ask(request_bytes(crowd.address, "POST", OIP, one.data, headers))
    right = answer.status == 200 and one.label.encode() in answer.body
    crowd.count("answers by OIP", right, answer.status)


async def sends_damage(crowd: Crowd, connection: Connection) -> None:
    """Damaged images."""
    data = mutant(7, crowd.dice.randrange(10**6)).data
    verb = crowd.dice.choice(("predict", "explain"))
    answer = await connection.ask(request_bytes(crowd.address, "POST", f"{MODEL}:{verb}", data))
    crowd.count("damaged images", answer.status < 500, answer)


async def sends_nonsense(crowd: Crowd, connection: Connection) -> None:
    """Malformed OIP, unknown paths and methods, request ids and parameters that are none."""
    if crowd.dice.random() < 0.5:
        body, headers = malformed(7, crowd.dice.randrange(10**6))
        answer = await connection.ask(request_bytes(crowd.address, "POST", OIP, body, headers))
    else:
        number = crowd.dice.randrange(10**9)
        paths = ("/", "/v1/models/", "/v1/jobs/", f"{MODEL}:predict?x=", f"{MODEL}:explain?target=no")
        path = f"{crowd.dice.choice(paths)}{number}"
        method = crowd.dice.choice(("GET", "POST", "PUT", f"BREW{number}"))
        headers = {"X-Request-Id": f"{number} {'x' * (number % 300)}"}
        answer = await connection.ask(request_bytes(crowd.address, method, path, b"x", headers))
    crowd.count("nonsense", answer.status < 500, answer)


async def begins_jobs(crowd: Crowd, connection: Connection) -> None:
    """Long explanations that are polled to their end, deleted, or left alone."""
    method = crowd.dice.choice(("occlusion?patch=16", "rise?masks=64")).replace("?", "&")
    path = f"{MODEL}:explain?method={method}"
    answer = await connection.ask(request_bytes(crowd.address, "POST", path, crowd.image().data))
    crowd.count("jobs", answer.status in (202, 429), answer)
    if answer.status != 202:
        return
    job = answer.headers["location"]
    if crowd.dice.random() < 0.3:
        return
    method = "DELETE" if crowd.dice.random() < 0.3 else "GET"
    for _ in range(20):
        found = await connection.ask(request_bytes(crowd.address, method, job))
        if method == "DELETE" or found.status == 404 or found.json()["state"] not in ("queued", "running"):
            break
        await asyncio.sleep(0.1)
    crowd.count("jobs", found.status in (200, 404), found)


async def leaves_streams(crowd: Crowd, connection: Connection) -> None:
    """Streams of events, left after some of them."""
    head = {"Accept": "text/event-stream", "Connection": "close"}
    path = f"{MODEL}:explain?method=rise&masks=500&interim=true"
    request = request_bytes(crowd.address, "POST", path, crowd.image().data, head)
    await _leave(crowd, request, after=crowd.dice.choice((0, 200, 2000, 20_000)))
    crowd.count("streams left", True, "")


async def leaves_while_sending(crowd: Crowd, connection: Connection) -> None:
    """Bodies that break off, and callers who do not wait for the answer."""
    verb = crowd.dice.choice(("predict", "explain"))
    request = request_bytes(crowd.address, "POST", f"{MODEL}:{verb}", crowd.image().data)
    cut = crowd.dice.choice((10, 100, len(request) - 50, len(request)))
    await _leave(crowd, request[:cut], after=0)
    crowd.count("callers who left", True, "")


async def reads_slowly(crowd: Crowd, connection: Connection) -> None:
    """An answer of some hundred kilobytes in small pieces; sometimes not to its end."""
    image = files.file(files.picture(800, 800, 1).convert("RGB"), "JPEG")
    request = request_bytes(
        crowd.address, "POST", f"{MODEL}:explain?overlay=blend", image, {"Connection": "close"}
    )
    reader, writer = await _open(crowd)
    writer.write(request)
    for _ in range(crowd.dice.choice((3, 40))):
        if not await reader.read(4096):
            break
        await asyncio.sleep(0.02)
    writer.close()
    crowd.count("slow readers", True, "")


async def looks_around(crowd: Crowd, connection: Connection) -> None:
    """Metrics, models, the page, health."""
    path = crowd.dice.choice(
        ("/metrics", "/v1/models", MODEL, "/", "/readyz", "/v2/models/stats", "/openapi.json")
    )
    answer = await connection.ask(request_bytes(crowd.address, "GET", path))
    crowd.count("looks", answer.status == 200, (path, answer.status, answer.body[:200]))


async def _leave(crowd: Crowd, request: bytes, after: int) -> None:
    """Send, read at most so many bytes, and go."""
    reader, writer = await _open(crowd)
    writer.write(request)
    await asyncio.sleep(crowd.dice.choice((0, 0.01, 0.1)))
    if after:
        try:
            async with asyncio.timeout(10):
                await reader.readexactly(after)
        except asyncio.IncompleteReadError:
            pass
    writer.close()


async def _open(crowd: Crowd) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = crowd.address.removeprefix("http://").partition(":")
    return await asyncio.open_connection(host, int(port))


EVERYBODY: tuple[Caller, ...] = (
    *(predicts, predicts, predicts, wants_pictures, speaks_oip, sends_damage, sends_damage, sends_nonsense),
    *(begins_jobs, leaves_streams, leaves_while_sending, leaves_while_sending, reads_slowly, looks_around),
)
