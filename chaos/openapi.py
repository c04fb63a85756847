"""Schemathesis on our own OpenAPI document: what is documented, what is not, and what is forbidden."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from chaos.scenario import Context, NotRunError, Scenario
from chaos.servers import SMALL, Server, only, server
from konkyo.service.keys import append_key, make_key

ROOT = Path(__file__).parent.parent

AUTH = """
[auth.openapi.bearer]
bearer = "{}"
"""

CONFIG = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 504]  # a deadline of some microseconds passes

[checks.positive_data_acceptance]
# What a schema cannot say: parameters that exclude each other, bytes that are no image, a queue that is full.
expected-statuses = ["2xx", 401, 403, 404, 409, 413, 415, 422, 429, 503, 504]

[[operations]]
include-path-regex = "^/v2/"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", 400, 401, 403, 404, 409, 413, 429, 503, 504]  # that protocol's word for all of it
"""


def run(context: Context) -> None:
    """With keys; in a full run also without, models then being unloaded and loaded all the time."""
    if importlib.util.find_spec("schemathesis") is None:
        raise NotRunError("there is no schemathesis")
    for keys in (True,) if context.short else (True, False):
        _run(context, keys=keys)


def _run(context: Context, *, keys: bool) -> None:
    settings: dict[str, Any] = {"repository": only(context.folder, SMALL), "repository_api": not keys}
    secret = None
    if keys:
        secret, key = make_key("chaos", ("predict", "explain", "admin"))
        settings["api_keys_file"] = context.folder / "keys"
        append_key(settings["api_keys_file"], key)
    with server(context.folder, **settings) as running:
        output = _schemathesis(context, running, secret)
        if not keys:
            running.post(f"/v2/repository/models/{SMALL}/load", b"{}", "application/json")
        what = "with_keys" if keys else "without_keys"
        context.figures[what] = _figures(output)
        context.hold(running.get("/readyz")[0] == 200, f"not ready afterwards: {running.get('/readyz')}")
        faults = sorted(set(re.findall(r"^- (ST\d+ .*)$", output, re.M)))
        told = f"{what}: {faults or output[-2000:]}; all of it in build/schemathesis.txt"
        context.hold(output.endswith("exit 0\n"), told)


def _schemathesis(context: Context, running: Server, secret: str | None) -> str:
    schema, config = context.folder / "openapi.json", context.folder / "schemathesis.toml"
    schema.write_text(json.dumps(_bound(running.get("/openapi.json")[1])))
    config.write_text((AUTH.format(secret) if secret else "") + CONFIG)
    checks = [] if secret else ["--exclude-checks", "ignored_auth"]
    command = [
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run", str(schema),
        "--url", running.address, "--seed", str(context.seed), "--max-examples", str(context.pick(10, 200)),
        "--checks", "all", *checks, "--continue-on-failure", "--warnings", "off",
        "--generation-database", "none", "--request-timeout", "30",
    ]  # fmt: skip
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "chaos.schema_hooks", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, cwd=context.folder, capture_output=True, check=False)
    # Bodies are bytes: what is left of them is legible.
    text = (
        re.sub(r"[^\x20-\x7e\n]", "?", done.stdout.decode(errors="replace")) + f"\nexit {done.returncode}\n"
    )
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "schemathesis.txt").write_text(text)
    return text


def _bound(document: Any) -> Any:
    """The document with the names that exist: else every request would be of an unknown model."""
    for path in document["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "path" and parameter["name"] in ("model", "version"):
                    parameter["schema"]["enum"] = [SMALL] if parameter["name"] == "model" else ["1"]
    return document


def _figures(output: str) -> dict[str, int]:
    operations = re.search(r"Tested: (\d+)", output)
    cases = re.search(r"(\d+) generated", output)
    return {
        "operations": int(operations[1]) if operations else 0,
        "requests": int(cases[1]) if cases else 0,
        "faults": len(re.findall(r"^- ST\d+ ", output, re.M)),
    }


SCENARIO = Scenario(
    "Schemathesis on our OpenAPI document",
    "no 5xx but a deadline's 504, answers as documented, what violates the schema or lacks a key is refused",
    run,
)
