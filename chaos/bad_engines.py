"""Engines that fail, run out of memory and hang, in real processes."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import uvloop
from PIL import Image

from chaos import files
from chaos.client import Answer, Connection, request_bytes
from chaos.faulty import LARGEST_BATCH, MARK, POISONS
from chaos.scenario import Context, Figures, Scenario
from chaos.servers import LARGE, SMALL, Server, only, server, status
from konkyo.service.engines.base import UInt8

FAULTY = ("-m", "chaos.faulty")
PNG = {"Content-Type": "image/png"}
PATH = f"/v1/models/{SMALL}"


def run(context: Context) -> None:
    """Each kind of fault in a server of its own."""
    os.environ["FAULTS"] = str(context.folder)
    for name, part in (
        ("poisoned", _poisoned), ("small_memory", _small_memory), ("broken_engine", _broken),
        ("hanging_engine", _hanging), ("real_memory_limit", _real_memory),
    ):  # fmt: skip
        context.figures[name] = part(context)


def _poisoned(context: Context) -> Figures:
    """One image in ten is poisoned: it alone fails, whoever shares its batch."""
    dice = random.Random(context.seed)
    count = context.pick(1000, 10_000)
    poisons = [dice.choice(POISONS) if dice.random() < 0.1 else None for _ in range(count)]
    images = [_image(number, poison) for number, poison in enumerate(poisons)]
    with server(
        context.folder, FAULTY, repository=only(context.folder, SMALL), queue_capacity=512
    ) as running:
        answers = uvloop.run(_ask_all(running, images, "explain?map=float32&top_k=10"))
        failed = 0
        for number, (image, poison, answer) in enumerate(zip(images, poisons, answers, strict=True)):
            said = f"image {number}, {poison}: {answer.status} {answer.body[:200]!r}"
            if poison in (None, "nan_map"):
                context.hold(answer.status == 200 and _right(answer, image), said)
                state = answer.json()["explanation"]["status"]
                context.hold((state == "non_finite") == (poison == "nan_map"), said)
            else:
                failed += 1
                context.hold(
                    answer.status == 500 and answer.json()["error"]["code"] == "inference_failed", said
                )
        out_of_memory = running.metric("konkyo_oom_total")
        context.hold(
            out_of_memory >= sum(poison in ("memory", "bad_alloc") for poison in poisons), "not counted"
        )
        running.wait_ready()
    return {
        "images": count,
        "poisoned_and_failed": failed,
        "others_failed": 0,
        "oom_total": int(out_of_memory),
    }


def _small_memory(context: Context) -> Figures:
    """Batches of more than four do not fit: all are answered, in smaller ones."""
    images = [_image(number) for number in range(context.pick(500, 5000))]
    with server(
        context.folder, FAULTY, repository=only(context.folder, SMALL), queue_capacity=512
    ) as running:
        (context.folder / "small").touch()
        answers = uvloop.run(_ask_all(running, images, "explain?map=float32&top_k=10"))
        (context.folder / "small").unlink()
        for number, (image, answer) in enumerate(zip(images, answers, strict=True)):
            context.hold(answer.status == 200 and _right(answer, image), f"image {number}: {answer.status}")
            context.hold(answer.json()["batch_size"] <= LARGEST_BATCH, "a batch that cannot have been")
        out_of_memory = int(running.metric("konkyo_oom_total"))
    context.hold(out_of_memory > 0, "no batch was ever too large: this load could not see it")
    return {"images": len(images), "failed": 0, "oom_total": out_of_memory}


def _broken(context: Context) -> Figures:
    """An engine that fails at everything makes the server unready, and ready again once it works."""
    switch = context.folder / "broken"
    with server(context.folder, FAULTY, repository=only(context.folder, SMALL)) as running:
        switch.touch()
        codes = {running.post(f"{PATH}:predict", _file(_image(number)))[0] for number in range(5)}
        context.hold(codes == {500}, f"{codes}")
        code, body = running.get("/readyz")
        context.hold(code == 503 and "fails" in str(body), f"still ready: {code} {body}")
        context.hold(running.get("/livez")[0] == 200, "a restart is no help here")
        switch.unlink()
        started = time.perf_counter()
        running.wait_ready()
        seconds = time.perf_counter() - started
        context.hold(running.post(f"{PATH}:predict", _file(_image(0)))[0] == 200, "no answer afterwards")
    return {"ready_again_s": round(seconds, 2)}


def _hanging(context: Context) -> Figures:
    """While an engine hangs, deadlines hold, the queue refuses, health says so; all is well after it."""
    switch = context.folder / "hang"
    settings: dict[str, Any] = {
        "default_deadline_ms": 1000,
        "queue_capacity": 20,
        "max_batch": 8,
        "hang_seconds": 3,
    }
    with server(context.folder, FAULTY, repository=only(context.folder, SMALL), **settings) as running:
        images = [_image(number) for number in range(60)]
        switch.touch()
        answers = uvloop.run(_ask_all(running, images, "predict?top_k=10", at_once=60))
        codes = sorted(answer.status for answer in answers)
        context.hold(set(codes) == {429, 504}, f"{codes}")
        late = max(answer.seconds for answer in answers)
        context.hold(late < 3, f"the deadline of a second was kept after {late:.1f} s")
        give_up = time.monotonic() + 10
        while (codes_of_health := [running.get(path)[0] for path in ("/livez", "/readyz")]) != [503, 503]:
            context.hold(time.monotonic() < give_up, f"health says {codes_of_health}")
            time.sleep(0.1)
        switch.unlink()
        running.wait_ready()
        after = uvloop.run(_ask_all(running, images, "predict?top_k=10", at_once=4))
        context.hold(all(answer.status == 200 for answer in after), f"{[answer.status for answer in after]}")
        context.hold(running.get("/livez")[0] == 200, "a restart is no more needed")
    return {"overdue": codes.count(504), "refused": codes.count(429), "longest_wait_s": round(late, 2)}


def _real_memory(context: Context) -> Figures:
    """A real server may not take more than a little beside what it has: large batches do not fit."""
    images = [files.file(files.picture(224, 224, number).convert("RGB"), "JPEG") for number in range(96)]
    settings = {"repository": only(context.folder, LARGE), "max_batch": 64, "queue_capacity": 512}
    with server(context.folder, **settings) as running:
        path, headers = f"/v1/models/{LARGE}:predict", {"Content-Type": "image/jpeg"}
        requests = [request_bytes(running.address, "POST", path, image, headers) for image in images]
        first = [one.json()["label"] for one in uvloop.run(_send(running, requests, at_once=2))]
        room = status(running.pid, "VmSize") + 100 * files.MEBIBYTE
        resource.prlimit(running.pid, resource.RLIMIT_AS, (room, resource.RLIM_INFINITY))
        answers = uvloop.run(_send(running, requests * context.pick(2, 6), at_once=96))
        resource.prlimit(running.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        codes = [answer.status for answer in answers]
        out_of_memory = int(running.metric("konkyo_oom_total"))
        labels = [one.json()["label"] if one.status == 200 else None for one in answers]
        expected = first * (len(answers) // len(first))
        wrong = sum(label not in (None, right) for label, right in zip(labels, expected, strict=True))
        figures = {
            "images": len(answers),
            "answered": codes.count(200),
            "wrong": wrong,
            "oom_total": out_of_memory,
        }
        context.hold(wrong == 0, f"{figures}")
        context.hold(out_of_memory > 0, f"the memory was never short: {figures}")
        context.hold(codes.count(200) == len(codes), f"{figures} {sorted(set(codes))}")
        running.wait_ready()
        after = [one.json()["label"] for one in uvloop.run(_send(running, requests, at_once=2))]
        context.hold(after == first, "other answers afterwards")
    return figures


def _image(number: int, poison: str | None = None) -> UInt8:
    image = np.random.default_rng(number).integers(0, 255, (32, 32, 3), np.uint8)
    if poison is not None:
        image[0, 0] = (*MARK, POISONS.index(poison))
    return image


def _file(image: UInt8) -> bytes:
    return files.file(Image.fromarray(image), "PNG", compress_level=1)


def _right(answer: Answer, image: UInt8) -> bool:
    """Whether it is the fake engine's answer to this image."""
    first = next(entry["logit"] for entry in answer.json()["top_k"] if entry["index"] == 0)
    return bool(abs(first - image.mean() / 255) < 1e-5)


async def _ask_all(running: Server, images: Sequence[UInt8], verb: str, at_once: int = 64) -> list[Answer]:
    requests = [
        request_bytes(running.address, "POST", f"{PATH}:{verb}", _file(image), PNG) for image in images
    ]
    return await _send(running, requests, at_once=at_once)


async def _send(running: Server, requests: Sequence[bytes], at_once: int) -> list[Answer]:
    """The answers, in order."""
    answers: dict[int, Answer] = {}
    waiting = iter(enumerate(requests))

    async def caller() -> None:
        connection = Connection(running.address)
        for number, request in waiting:
            answers[number] = await connection.ask(request)
        connection.close()

    await asyncio.gather(*(caller() for _ in range(at_once)))
    return [answers[number] for number in range(len(requests))]


SCENARIO = Scenario(
    "engines that fail, run out of memory, hang",
    "poisoned images fail alone; a batch out of memory is halved and all of it answered; a broken engine "
    "makes unready until it works; while one hangs deadlines hold and health says so",
    run,
)
