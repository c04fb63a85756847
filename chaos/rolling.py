"""Two replicas behind haproxy, restarted again and again under load; and killed, which must be seen."""

from __future__ import annotations

import base64
import json
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import machine

from chaos.known import known
from chaos.proxy import K6, Proxy, tool
from chaos.scenario import Context, Figures, Scenario
from chaos.servers import SMALL, Server, only

RATE = 40
"""Requests a second, far from what two replicas can do: what is lost is lost to the restarts."""

SECONDS = 10
"""Of load for each restart, which takes half of that on an idle machine."""


def run(context: Context) -> None:
    """Restart by SIGTERM, with one worker process and with two, and as the control by SIGKILL."""
    tool("k6")
    tool("haproxy")
    cases = _cases(context.folder)
    rounds = context.pick(4, 20)
    context.figures["restarts"] = _play(context, cases, signal.SIGTERM, rounds)
    if not context.short:
        context.figures["restarts_of_two_workers_each"] = _play(
            context, cases, signal.SIGTERM, 10, processes=2
        )
    control = _play(context, cases, signal.SIGKILL, context.pick(4, 10))
    context.figures["control_sigkill"] = control
    for name, figures in context.figures.items():
        if name != "control_sigkill":
            context.hold(figures["failed"] == 0, f"{name}: {figures}")
        context.hold(figures["not_sent"] == 0, f"{name}: k6 could not keep up: {figures}")
        context.hold(figures["restarted"] >= 4, f"{name}: too few restarts: {figures}")
    context.hold(control["failed"] > 0, "nothing failed under SIGKILL: this load could not see a loss")


def _play(context: Context, cases: Path, number: signal.Signals, rounds: int, **settings: Any) -> Figures:
    """Restart each replica in turn; what k6 saw meanwhile."""
    repository = only(context.folder, SMALL)
    settings |= {"repository": repository, "drain_seconds": 3}

    def start(port: int) -> Server:
        replica = Server(context.folder / f"replica-{port}.log", port=port, **settings)
        replica.wait_ready()
        return replica

    replicas = [start(machine.free_port()) for _ in range(2)]
    restarted, codes = 0, set()
    with ExitStack() as stack:
        for position in range(2):
            stack.callback(lambda position=position: replicas[position].end())
        proxy = Proxy(context.folder, [replica.port for replica in replicas])
        stack.callback(proxy.end)
        proxy.wait_up()
        load = K6(
            context.folder, "rolling.js", address=proxy.address, cases=cases, model=SMALL, rate=RATE,
            seconds=SECONDS * rounds,
        )  # fmt: skip
        stack.callback(load.end)
        while load.running and restarted < rounds:
            position = restarted % 2
            old = replicas[position]
            old.send(number)
            codes.add(old.wait())
            old.end()
            replicas[position] = start(old.port)
            proxy.wait_up()
            restarted += 1
        summary = load.summary()
    if number is signal.SIGTERM:
        context.hold(codes == {0}, f"exit codes {codes}")
    lost, wrong = (int(summary.get(name, {}).get("count", 0)) for name in ("lost", "wrong"))
    return {
        "requests": int(summary["http_reqs"]["count"]),
        "failed": lost + wrong,
        "restarted": restarted,
        "not_sent": int(summary.get("dropped_iterations", {}).get("count", 0)),
        "p99_ms": round(summary["http_req_duration"]["p(99)"]),
    }


def _cases(folder: Path) -> Path:
    cases = [
        {
            "image": base64.b64encode(one.data).decode(),
            "label": one.label,
            "score": one.score,
            "max": float(one.map.max()),
        }
        for one in known(SMALL, 60)
    ]
    (folder / "cases.json").write_text(json.dumps(cases))
    return folder / "cases.json"


SCENARIO = Scenario(
    "rolling restarts of two replicas behind haproxy, load by k6",
    "0 requests failed or answered wrongly, every replica exits with 0; under SIGKILL some do fail",
    run,
)
