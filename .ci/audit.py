"""Known vulnerabilities of what constraints files pin, by pip-audit.

``python .ci/audit.py PIP-AUDIT FILE ...`` ends with 1 if there are any, or if pip-audit fails. A service
that cannot be reached, or knows none of the packages, is no finding: then it says so, and ends with 0.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


class Unreachable(Exception):
    """The vulnerability service does not answer."""


def audit(program: str, pins: Path) -> list[dict[str, Any]]:
    """The packages of a file, with what is known of each.

    Raises:
        Unreachable: the service does not answer.
        RuntimeError: pip-audit fails otherwise.
    """
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.json"
        result = subprocess.run(  # noqa: S603 - our own command
            [program, "--no-deps", "--disable-pip", "--progress-spinner=off", f"--requirement={pins}",
             "--format=json", f"--output={report}"],
            capture_output=True,
            text=True,
        )  # fmt: skip
        if report.exists():  # also when something is found
            packages: list[dict[str, Any]] = json.loads(report.read_text(encoding="utf-8"))["dependencies"]
            return packages
    *_, last = ["", *result.stderr.strip().splitlines()]
    if last.startswith("requests.exceptions.") or "onnect" in last:
        raise Unreachable(last)
    raise RuntimeError(result.stderr)


def report(name: str, packages: list[dict[str, Any]]) -> bool:
    """Print what is known; whether there is a vulnerability."""
    known = [package for package in packages if "skip_reason" not in package]
    if not known:
        print(f"{name}: skipped, the vulnerability service knows none of its {len(packages)} packages")
        return False
    print(f"{name}: {len(known)} of {len(packages)} packages looked up")
    vulnerable = False
    for package in known:
        for vulnerability in package["vulns"]:
            vulnerable = True
            fixed = ", ".join(vulnerability["fix_versions"]) or "no version"
            print(f"  {package['name']} {package['version']}: {vulnerability['id']}, fixed in {fixed}")
    return vulnerable


def main() -> int:
    """Exit code."""
    program, *files = sys.argv[1:]
    vulnerable = False
    for name in files:
        try:
            vulnerable |= report(name, audit(program, Path(name)))
        except Unreachable as problem:
            print(f"{name}: skipped, the vulnerability service is not reachable: {problem}")
    return int(vulnerable)


if __name__ == "__main__":
    sys.exit(main())
