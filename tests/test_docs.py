"""The documents say what is there, and their commands work."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from fastapi.routing import APIRoute

from konkyo import errors
from konkyo.errors import BundleError, ImageError, KonkyoError, Unavailable
from konkyo.service.demo import running_server
from konkyo.service.long_options import LONG_OPTIONS
from konkyo.service.metrics import Metrics, Outcome
from konkyo.service.routes import jobs, oip, ops, studies, v1
from konkyo.service.schemas import ExplainOptions
from konkyo.service.settings import ZOO, Settings

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ADDRESS = "http://127.0.0.1:8000"


def text(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def rows(name: str) -> set[tuple[str, ...]]:
    """The lines of every table of a document."""
    lines = (line.strip() for line in text(name).splitlines())
    return {
        tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines if line.startswith("|")
    }


# What is there


def test_every_setting_with_its_default() -> None:
    def shown(default: Any) -> str:
        if default is None:
            return "\N{EN DASH}"
        if default == (ZOO,):
            return "the bundles that ship"
        return f"`{str(default).lower() if isinstance(default, bool) else default}`"

    expected = {
        (f"`KONKYO_{name.upper()}`", shown(field.default), str(field.description))
        for name, field in Settings.model_fields.items()
    }
    assert {row for row in rows("settings.md") if row[0].startswith("`KONKYO_")} == expected


def test_no_document_names_a_setting_that_is_not_there() -> None:
    known = {f"KONKYO_{name.upper()}" for name in Settings.model_fields} | {"KONKYO_NAME"}
    for document in DOCUMENTS:
        named = set(re.findall(r"\bKONKYO_[A-Z_]*[A-Z]", document.read_text(encoding="utf-8")))
        assert named <= known, document.name


def test_every_metric_with_its_type_and_labels() -> None:
    suffix = {"counter": "_total", "info": "_info"}
    kinds = {"info": "gauge"}
    families = {
        family.name: family.type
        for family in Metrics().registry.collect()
        if not family.name.startswith("process_")  # Prometheus' own, of any program
    }
    labels = {
        metric._name: ", ".join(f"`{label}`" for label in metric._labelnames)
        for metric in vars(Metrics()).values()
        if hasattr(metric, "_labelnames")
    }
    expected = {
        (
            f"`{name}{suffix.get(kind, '')}`",
            kinds.get(kind, kind),
            "versions" if kind == "info" else labels[name],
        )
        for name, kind in families.items()
    }
    assert {row[:3] for row in rows("metrics.md") if row[0].startswith("`konkyo_")} == expected
    assert all(f"`{outcome}`" in text("metrics.md") for outcome in get_args(Outcome))


def test_every_route() -> None:
    served = {
        f"`{method} {route.path}`"
        for router in (v1.router, jobs.router, studies.router, oip.router, ops.router)
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    }
    documented = {row[0] for row in rows("api.md") if row[0].startswith(("`GET", "`POST", "`PUT", "`DELETE"))}
    assert documented == served | {"`GET /metrics`"}


def test_every_parameter() -> None:
    documented = {row[0] for row in rows("api.md")}
    for options in (ExplainOptions, *LONG_OPTIONS.values()):
        assert {f"`{name}`" for name in options.model_fields} <= documented


def tree(error: type[KonkyoError] = KonkyoError) -> Iterator[type[KonkyoError]]:
    for branch in error.__subclasses__():
        if branch.__module__ == errors.__name__:
            yield branch
            yield from tree(branch)


def test_every_error_with_its_status() -> None:
    never_sent = {error.code for error in tree() if issubclass(error, BundleError)} | {
        ImageError.code,
        Unavailable.code,
    }
    expected = {(str(error.status), f"`{error.code}`") for error in tree() if error.code not in never_sent}
    expected |= {("405", "`method_not_allowed`"), ("500", "`internal`")}
    assert {row[:2] for row in rows("api.md") if re.fullmatch(r"\d{3}", row[0])} == expected


def test_links_between_documents_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name}: {target}"


# What works


def commands() -> Iterator[tuple[str, str]]:
    """Every command in a block marked ``sh`` that speaks to a server, with the document it is from.

    Lines that end in a backslash or a pipe go on.
    """
    for document in DOCUMENTS:
        for block in re.findall(r"^```sh\n(.*?)^```", document.read_text(encoding="utf-8"), re.M | re.S):
            for command in re.split(r"(?<![\\|])\n", block):
                if ADDRESS.removeprefix("http://") in command and "curl" in command:
                    yield document.name, command.strip()


COMMANDS = list(commands())


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running_server("--threads", "1", "--device", "cpu") as found:
        yield found


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.parametrize(
    ("document", "command"), COMMANDS, ids=[f"{name}-{n}" for n, (name, _) in enumerate(COMMANDS)]
)
def test_commands_work_as_they_are_written(document: str, command: str, address: str, tmp_path: Path) -> None:
    """Exit code 0; or, where a comment names it, the status the server answers with."""
    for entry in ("src", "docs", "tests"):
        (tmp_path / entry).symlink_to(ROOT / entry)
    command, _, comment = command.partition("  # ")
    command = command.replace(ADDRESS, address).replace(
        ADDRESS.removeprefix("http://"), address.removeprefix("http://")
    )
    status = comment.strip() if re.fullmatch(r"[1-5]\d\d", comment.strip()) else None
    options = "-sS -o answer -w '%{http_code}'" if status else "-sS --fail-with-body"
    command = re.sub(r"\bcurl\b", f"curl --noproxy '*' {options}", command)
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
    )
    assert result.returncode == 0, f"{document}: {command}\n{result.stdout[-500:]}{result.stderr[-500:]}"
    if status:
        assert result.stdout == status


def test_there_are_commands_to_run() -> None:
    assert len(COMMANDS) >= 8
