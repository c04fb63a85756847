"""The Dockerfile and what surrounds it, read and not built."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines())


def instructions(name: str) -> list[str]:
    """Arguments of every instruction of that name."""
    whole = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE))
    return [found.strip() for found in re.findall(rf"^{name}\s+(.*)$", whole, re.MULTILINE)]


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="there is no hadolint")
def test_hadolint_has_nothing_to_say() -> None:
    result = subprocess.run(["hadolint", ROOT / "Dockerfile"], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (0, "")


def test_bases_are_arguments_with_an_exact_tag_and_no_registry() -> None:
    bases = dict(text.split("=") for text in instructions("ARG") if "_BASE=" in text)
    assert bases.keys() == {"CPU_BASE", "CUDA_BASE"}
    for base in bases.values():
        name, _, tag = base.partition(":")
        assert re.fullmatch(r"[a-z]+(/[a-z]+)?", name), f"{name}: a registry"
        assert re.search(r"\d{8}|\d+\.\d+\.\d+", tag), f"{tag} is not exact"
    stages = {text.partition(" AS ")[2] for text in instructions("FROM")}
    origins = {text.partition(" AS ")[0] for text in instructions("FROM")}
    assert origins <= stages | {f"${{{name}}}" for name in bases}
    assert {"cpu", "cuda"} <= stages


def test_both_targets_are_run_alike() -> None:
    """There is no way to write it down once."""
    cpu, cuda = (stage for stage in DOCKERFILE.split("\nFROM ") if re.match(r"\S+ AS (cpu|cuda)\n", stage))

    def alike(stage: str) -> str:
        stage = re.sub(r"^#.*\n|^ +NVIDIA_.*\n", "", stage.partition("\n")[2], flags=re.MULTILINE)
        stage = stage.replace("cuda-", "cpu-")
        return re.sub(r'(description="[^:]*):[^"]*"', r'\1"', stage).partition("\n\n")[0].rstrip()

    assert alike(cpu) == alike(cuda)
    assert "USER 10001:10001" in alike(cpu)


def test_both_runtimes_are_pinned_to_one_version() -> None:
    """The cpu image takes the plain one, which an environment on Linux never has installed."""
    assert PINS["onnxruntime"] == PINS["onnxruntime-gpu"]
