"""What is shipped and what it is made of: the wheel, the bill of materials, known vulnerabilities, pins."""

from __future__ import annotations

import importlib.metadata as metadata
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "konkyo"
PINS = ("constraints.txt", "constraints-tools.txt", "constraints-checkov.txt")


@pytest.mark.parametrize("name", PINS)
def test_pins_are_names_and_versions_in_order(name: str) -> None:
    """No file, address, option or hash, so that they say the same to everybody."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line)] == []
    names = [canonicalize_name(line.partition("==")[0]) for line in lines]
    assert len(set(names)) == len(names)
    assert lines == sorted(lines, key=str.upper)  # as LC_ALL=C sort -f


def test_the_wheel_is_the_package_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (wheel,) = tmp_path.glob("konkyo-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        found = set(archive.namelist())
    about = {name for name in found if ".dist-info/" in name}
    assert {name.partition(".dist-info/")[2] for name in about} == {
        *("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"),
    }
    expected = {
        path.relative_to(PACKAGE.parent).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {"konkyo/service/web/index.html", "konkyo/zoo/amb-elpv/1/model.onnx"} <= expected
    assert found - about == expected
    assert {Path(name).suffix for name in expected} <= {
        *(".py", ".html", ".j2", ".js", ".css", ".svg", ".md", ".txt", ".json", ".png", ".jpg"),
        *(".onnx", ".safetensors"),
    }


def needed(name: str) -> set[str]:
    """A distribution of this environment, and those it depends on, without extras."""
    found: set[str] = set()
    waiting = [canonicalize_name(name)]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.add(current)
            waiting += [
                canonicalize_name(requirement.name)
                for requirement in map(Requirement, metadata.requires(current) or ())
                if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            ]
    return found


@pytest.mark.skipif(shutil.which("cyclonedx-py") is None, reason="make tools installs cyclonedx-py")
def test_the_bill_of_materials_has_every_dependency_with_version_and_licence(tmp_path: Path) -> None:
    out = tmp_path / "bill.json"
    subprocess.run(  # it validates what it writes
        ["cyclonedx-py", "environment", "--pyproject", str(ROOT / "pyproject.toml"), "--gather-license-texts",
         "--output-file", str(out), sys.executable],
        check=True,
        timeout=120,
    )  # fmt: skip
    bill = json.loads(out.read_text(encoding="utf-8"))
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "konkyo"
    components = {canonicalize_name(component["name"]): component for component in bill["components"]}
    expected = needed("konkyo") - {"konkyo"}
    assert {"fastapi", "numpy", "pydantic-core"} <= expected
    assert {name: components[name]["version"] for name in expected} == {
        name: metadata.version(name) for name in expected
    }
    assert [name for name in sorted(expected) if not components[name].get("licenses")] == []


# Known vulnerabilities: what the stage says and how it ends


def audit(program: str | Path, pins: Path, **environment: str) -> tuple[int, str]:
    result = subprocess.run(
        [sys.executable, str(ROOT / ".ci" / "audit.py"), str(program), str(pins)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return result.returncode, result.stdout


def reporting(folder: Path, dependencies: list[dict[str, object]]) -> Path:
    """A program that is called like pip-audit, and reports this."""
    program = folder / "pip-audit"
    report = json.dumps({"dependencies": dependencies, "fixes": []})
    program.write_text(
        f"#!{sys.executable}\n"
        "import sys\n"
        "(out,) = [a.partition('=')[2] for a in sys.argv if a.startswith('--output=')]\n"
        f"open(out, 'w').write({report!r})\n"
        "sys.exit(1)\n"
    )
    program.chmod(0o755)
    return program


SOUND = {"name": "sound", "version": "1.0", "vulns": []}
UNKNOWN = {"name": "unknown", "skip_reason": "Dependency not found"}
VULNERABLE = {
    "name": "broken",
    "version": "2.0",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"], "aliases": [], "description": ""}],
}


@pytest.mark.parametrize(
    ("dependencies", "code", "says"),
    [
        ([SOUND, UNKNOWN, VULNERABLE], 1, "2 of 3 packages looked up\n  broken 2.0: PYSEC-1, fixed in 2.1"),
        ([SOUND, UNKNOWN], 0, "1 of 2 packages looked up"),
        ([UNKNOWN], 0, "skipped, the vulnerability service knows none of its 1 packages"),
    ],
    ids=["vulnerable", "sound", "unknown"],
)
def test_a_finding_fails_and_nothing_else(
    dependencies: list[dict[str, object]], code: int, says: str, tmp_path: Path
) -> None:
    pins = tmp_path / "pins.txt"
    assert audit(reporting(tmp_path, dependencies), pins) == (code, f"{pins}: {says}\n")


@pytest.mark.skipif(shutil.which("pip-audit") is None, reason="make tools installs pip-audit")
def test_without_a_service_nothing_is_claimed_and_nothing_fails(tmp_path: Path) -> None:
    pins = tmp_path / "pins.txt"
    pins.write_text("konkyo==0.1.0\n")
    code, said = audit("pip-audit", pins, HTTPS_PROXY="http://127.0.0.1:9", NO_PROXY="", no_proxy="")
    assert code == 0
    assert said.startswith(f"{pins}: skipped, the vulnerability service is not reachable: ")


@pytest.mark.skipif(shutil.which("pip-audit") is None, reason="make tools installs pip-audit")
def test_a_tool_that_fails_is_a_failure(tmp_path: Path) -> None:
    pins = tmp_path / "pins.txt"
    pins.write_text("what is this\n")
    assert audit("pip-audit", pins) == (1, "")
