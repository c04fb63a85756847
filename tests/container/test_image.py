"""The cpu image as it was built: what it says of itself, what is in it, and what is not."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

import konkyo
from container import Image

SOURCES = Path(konkyo.__file__).parent
NOT_FOR_SALE = "amb-elpv"
"""Trained on data for non-commercial use only."""

INSTALLED = """
import importlib.metadata as metadata, json
from packaging.requirements import Requirement

found = {d.metadata["Name"].lower(): d.version for d in metadata.distributions()}
wanting = [
    f"{d.metadata['Name']}: {text}"
    for d in metadata.distributions()
    for text in d.requires or ()
    for wanted in [Requirement(text)]
    if wanted.marker is None or wanted.marker.evaluate({"extra": ""})
    if not any(
        d.metadata["Name"].lower().replace("_", "-") == wanted.name.lower().replace("_", "-")
        and wanted.specifier.contains(d.version, prereleases=True)
        for d in metadata.distributions()
    )
]
print(json.dumps([found, wanting]))
"""


def files(folder: Path) -> set[str]:
    """Of a package, without bytecode."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


@pytest.fixture(scope="session")
def package(image: Image) -> Path:
    """The folder of konkyo in the image."""
    (found,) = image.root.glob("opt/konkyo/lib/python3.*/site-packages/konkyo")
    return found


def test_what_it_says_of_itself(image: Image) -> None:
    config = image.config
    assert (config["Entrypoint"], config["Cmd"]) == (["konkyo"], ["serve"])
    assert config["User"] == "10001:10001"
    assert list(config["ExposedPorts"]) == ["8000/tcp"]
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"] == ["CMD", "konkyo", "health"]
    prefix = "org.opencontainers.image."
    labels = {name: value for name, value in config["Labels"].items() if name.startswith(prefix)}
    assert labels.pop(f"{prefix}description").startswith("Serves image classifiers that show why")
    assert len(labels.pop(f"{prefix}revision")) in (0, 40)
    assert labels == {
        f"{prefix}title": "konkyo",
        f"{prefix}version": konkyo.__version__,
        f"{prefix}licenses": "Apache-2.0",
    }


def test_every_file_of_the_package_and_no_other(package: Path) -> None:
    expected = {name for name in files(SOURCES) if not name.startswith(f"zoo/{NOT_FOR_SALE}/")}
    assert "service/web/index.html" in expected
    assert "zoo/gcm-cifar10/1/model.onnx" in expected
    assert files(package) == expected


def test_nothing_that_builds_or_installs(image: Image) -> None:
    tools = {"pip", "pip3", "gcc", "cc", "g++", "clang", "ld", "as", "make", "cmake", "git", "curl", "wget"}
    programs = {path.name for folder in ("usr/bin", "usr/local/bin", "opt/konkyo/bin")
                for path in image.root.joinpath(folder).iterdir()}  # fmt: skip
    assert "python3" in programs
    assert "konkyo" in programs
    assert programs & tools == set()
    for module in ("pip", "setuptools", "ensurepip", "torch"):
        code, said = image.run("python", "-c", f"import {module}")
        assert code == 1
        assert f"ModuleNotFoundError: No module named '{module}'" in said


def test_nothing_of_the_build_is_left(image: Image) -> None:
    for place in ("build", "layer", "opt/pip", "etc/pip.conf", "root/.cache", "run/secrets/pip.conf"):
        assert not (image.root / place).exists(), place
    assert [path.name for path in image.root.joinpath("tmp").iterdir()] == []
    assert list(image.root.glob("var/lib/apt/lists/*_*")) == []


def test_no_program_makes_its_caller_root_and_no_file_belongs_to_the_user(image: Image) -> None:
    programs = [path for path in image.root.rglob("*") if path.is_file() and not path.is_symlink()]
    assert [path for path in programs if path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID)] == []
    assert [path for path in programs if path.stat().st_uid == 10001] == []


def test_dependencies_are_whole_and_have_no_cuda(image: Image) -> None:
    code, said = image.run("python", "-c", INSTALLED)
    assert code == 0, said
    found, wanting = json.loads(said)
    assert wanting == []
    assert {"konkyo", "onnxruntime", "opentelemetry-sdk"} <= found.keys()
    assert found["konkyo"] == konkyo.__version__
    assert not {"onnxruntime-gpu", "torch", "pytest", "pip"} & found.keys()


def test_bytecode_is_there_and_valid_whatever_the_dates_say(package: Path) -> None:
    """The flags in its header (PEP 552): 1 is by hash, and not compared with the source."""
    for source in package.rglob("*.py"):
        (compiled,) = source.parent.glob(f"__pycache__/{source.stem}.*.pyc")
        assert int.from_bytes(compiled.read_bytes()[4:8], "little") == 1, source


def test_its_size(image: Image) -> None:
    """The ONNX Runtime with CUDA alone would be over this."""
    size = sum(path.lstat().st_size for path in image.root.rglob("*") if path.is_file() or path.is_symlink())
    assert size < 650 * 2**20
