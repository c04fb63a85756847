"""Nobody is told that Konkyo runs: ONNX Runtime's telemetry is off before the runtime is there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SESSION = """
import {first}
import onnxruntime

onnxruntime.InferenceSession({model!r})
"""
MODEL = Path(__file__).parents[1] / "src/konkyo/zoo/gcm-cifar10/1/model.onnx"


def left_at_home(home: Path, first: str) -> list[str]:
    """What a process with a session leaves in the home folder of its user."""
    home.mkdir()
    silencing = ("ORT_DISABLE_TELEMETRY", "CI")  # it says nothing of itself in a continuous integration
    environment = {name: value for name, value in os.environ.items() if name not in silencing}
    subprocess.run(
        [sys.executable, "-c", SESSION.format(first=first, model=str(MODEL))],
        env={**environment, "HOME": str(home)},
        check=True,
        timeout=60,
    )
    return [path.name for path in home.rglob("*") if path.is_file()]


def test_the_runtime_keeps_no_identity_of_the_device(tmp_path: Path) -> None:
    """Beside it what happens otherwise: should the variable have another name one day, this fails."""
    assert left_at_home(tmp_path / "ours", "konkyo") == []
    assert "deviceid" in left_at_home(tmp_path / "without", "sys")
