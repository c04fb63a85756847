"""The commands of docs/security.md, in order, against a server that asks for the keys they make."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from konkyo.service.demo import running_server

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"^```bash\n(.*?)^```", (ROOT / "docs" / "security.md").read_text("utf-8"), re.M | re.S)
ADDRESS = "http://127.0.0.1:8000"


def run(command: str, folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
    )
    assert result.returncode == 0, f"{command}\n{result.stdout[-500:]}{result.stderr[-500:]}"
    return result.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_keys_work_as_they_are_described(tmp_path: Path) -> None:
    making, asking = BLOCKS
    (tmp_path / "src").symlink_to(ROOT / "src")
    run(making, tmp_path)
    arguments = ("--threads", "1", "--device", "cpu", "--api-keys-file", str(tmp_path / "api-keys"))
    seen = []
    with running_server(*arguments) as address:
        for line in re.split(r"(?<!\\)\n", asking.strip()):
            command, _, comment = line.partition("  # ")
            status = run(
                command.replace(ADDRESS, address).replace(
                    "curl ", "curl --noproxy '*' -sS -o answer -w '%{http_code}' ", 1
                ),
                tmp_path,
            )
            seen.append((status, comment or "200"))
    assert [status for status, _ in seen] == [expected for _, expected in seen]
    assert [status for status, _ in seen] == ["200", "200", "401", "403", "200"]
