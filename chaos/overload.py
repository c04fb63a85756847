"""Arrivals up to twice what a server can do: it answers as many as ever, and refuses the rest at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks import machine

from chaos import files
from chaos.arrivals import Load, closed_loop, open_loop, quantile
from chaos.client import request_bytes
from chaos.scenario import Context, Figures, Scenario
from chaos.servers import LARGE, SMALL, Server, only, server

LEVELS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
SHORT_LEVELS = (0.5, 1.0, 2.0)
GOODPUT = 0.9
REFUSED_SECONDS = 0.5
BATCH, QUEUE = 16, 64
JPEG = {"Content-Type": "image/jpeg"}


def run(context: Context) -> None:
    """Predictions, explanations and both, of a network that takes long and of one that takes no time."""
    cases: list[tuple[str, str, Sequence[str], dict[str, Any]]] = [
        ("predict", LARGE, ["predict"], {}),
        ("explain", LARGE, ["explain"], {}),
        ("mixed", LARGE, ["predict", "explain", "explain?map=float32"], {}),
        ("deadline", LARGE, ["predict"], {"default_deadline_ms": 600}),
        ("small network", SMALL, ["predict", "explain?map=float32"], {}),
    ]
    mine, other = machine.cores()
    machine.pin(other)
    try:
        for name, model, verbs, settings in cases[2:3] if context.short else cases:
            repository = only(context.folder, SMALL, LARGE)
            with server(
                context.folder, on=mine, repository=repository, max_batch=BATCH, queue_capacity=QUEUE,
                workers=1, **settings,
            ) as running:  # fmt: skip
                context.figures[name] = _case(context, running, model, verbs, settings)
    finally:
        machine.pin(mine | other)


def _case(
    context: Context, running: Server, model: str, verbs: Sequence[str], settings: dict[str, Any]
) -> dict[str, Any]:
    requests = _requests(running.address, model, verbs)
    seconds = context.pick(5, 15)
    closed_loop(running.address, requests, 4, 1)  # warm
    capacity = closed_loop(running.address, requests, 2 * BATCH, seconds).goodput
    levels = SHORT_LEVELS if context.short else LEVELS
    loads = {
        level: open_loop(running.address, requests, level * capacity, seconds, context.seed)
        for level in levels
    }
    found: dict[str, Any] = {"capacity_per_second": round(capacity, 1)}
    found |= {f"at_{level:g}": _figures(load) for level, load in loads.items()}
    peak, most = max(load.goodput for load in loads.values()), loads[max(levels)]
    found["goodput_at_2_of_peak"] = round(most.goodput / peak, 3)
    deadline = settings.get("default_deadline_ms")
    # Whoever is accepted waits for a full queue and the batches under way, of either kind.
    longest = deadline / 1e3 + 0.1 if deadline else 1.5 * (2 * QUEUE + 2 * BATCH) / capacity + 0.25
    found["longest_p99_s"] = round(longest, 2)
    for level, load in loads.items():
        where = f"{verbs} at {level} of {capacity:.1f}/s: {_figures(load)}"
        context.figures["last"] = where
        others = [answer.status for answer in load.answers if answer.status not in (200, 429, 504)]
        context.hold(not load.errors and not others, f"{load.errors[:3]} {others[:3]}; {where}")
        context.hold(
            all("retry-after" in answer.headers for answer in load.of(429)), f"no Retry-After; {where}"
        )
        if context.short:  # it may share its machine, so only what is counted decides
            continue
        context.hold(quantile(_seconds(load, 200), 0.99) <= longest, f"accepted too late; {where}")
        context.hold(quantile(_seconds(load, 429), 0.99) <= REFUSED_SECONDS, f"refused too late; {where}")
    context.hold(
        context.short or most.goodput >= GOODPUT * peak,
        f"goodput falls to {most.goodput / peak:.2f} of its peak: {found}",
    )
    context.figures.pop("last")
    return found


def _requests(address: str, model: str, verbs: Sequence[str]) -> list[bytes]:
    images = [files.file(files.picture(224, 224, seed).convert("RGB"), "JPEG") for seed in range(12)]
    return [
        request_bytes(address, "POST", f"/v1/models/{model}:{verb}", image, JPEG)
        for image in images
        for verb in verbs
    ]


def _figures(load: Load) -> Figures:
    return {
        "sent": load.sent,
        "good_per_second": round(load.goodput, 1),
        "p99_ms": round(1e3 * quantile(_seconds(load, 200), 0.99)),
        "refused": len(load.of(429)),
        "overdue": len(load.of(504)),
        "refused_p99_ms": round(1e3 * quantile(_seconds(load, 429), 0.99)),
        "generator_late_ms": round(1e3 * load.latest),
    }


def _seconds(load: Load, status: int) -> list[float]:
    return [answer.seconds for answer in load.of(status)]


SCENARIO = Scenario(
    "open-loop arrivals to twice the capacity",
    f"goodput at 2x >= {GOODPUT:.0%} of its peak, p99 of the accepted within the queue's length, "
    f"the rest 429 with Retry-After, p99 within {REFUSED_SECONDS:g} s",
    run,
)
