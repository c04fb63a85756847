"""Which room may know which other, read from the source; and the service without torch, for real."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import konkyo

ROOT = Path(konkyo.__file__).parent
SHARED = ("konkyo.errors", "konkyo.imaging", "konkyo.named")
FILES = ("konkyo.models.card", "konkyo.models.bundle", "konkyo.models.neurons")

MAY_KNOW = {
    "errors": (),
    "named": (),
    "image_limits": ("konkyo.errors",),
    "imaging": ("konkyo.errors", "konkyo.image_limits"),
    "models": ("konkyo.models", *SHARED),
    "export": ("konkyo.export", "konkyo.models", *SHARED),
    "converters": ("konkyo.converters", "konkyo.models", "konkyo.export", *SHARED),
    "training": (
        *("konkyo.training", "konkyo.converters", "konkyo.models", "konkyo.export", "konkyo.evaluation"),
        *SHARED,
    ),
    "evaluation": (
        *("konkyo.evaluation", "konkyo.models", "konkyo.export", "konkyo.perturbation", "konkyo.rendering"),
        *SHARED,
    ),
    "rendering": SHARED,
    "perturbation": ("konkyo.perturbation", "konkyo.models.card", *SHARED),
    "study": ("konkyo.study", "konkyo.rendering", *SHARED),
    "study/creating": (
        *("konkyo.study", "konkyo.evaluation", "konkyo.models.card"),
        *SHARED,
    ),
    "study/commands": (
        *("konkyo.study", "konkyo.evaluation.candidate", "konkyo.models.bundle", "konkyo.training.examples"),
        *SHARED,
    ),
    "study/report": (
        *("konkyo.study", "konkyo.evaluation.report", "konkyo.evaluation.results", "konkyo.rendering"),
        *SHARED,
    ),
    "study/report_words": ("konkyo.study", "konkyo.evaluation.report"),
    "service": (
        *("konkyo.service", "konkyo.perturbation", "konkyo.rendering", *FILES),
        *("konkyo.study.views", "konkyo.study.database", "konkyo.study.answering"),
        *SHARED,
    ),
    "service/engines/torch": (
        "konkyo.service",
        *FILES,
        "konkyo.models.explained",
        "konkyo.models.loading",
        *SHARED,
    ),
}
"""The longest path that fits a module rules it. The command line knows every room."""

RULED = sorted(path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).with_suffix("").as_posix() not in
               ("__init__", "__main__", "cli", "options"))  # fmt: skip

HEAVY = {
    "torch",
    "torchvision",
    "timm",
    "safetensors",
    "sklearn",
    "onnx",
    "onnxscript",
    "lightning",
    "matplotlib",
    "tqdm",
    "scipy",
    "jinja2",
    "torchmetrics",
}
WITHOUT_TORCH = (
    "errors",
    "image_limits",
    "imaging",
    "models/card",
    "models/bundle",
    "models/neurons",
    "models/__init__",
    "perturbation",
    "named",
    "rendering",
    "service",
    "study/__init__",
    "study/answering",
    "study/commands",
    "study/database",
    "study/drawing",
    "study/records",
    "study/scores",
    "study/store",
    "study/tables",
    "study/views",
)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").as_posix()


def within(name: str, place: str, separator: str) -> bool:
    return name == place or name.startswith(place + separator)


def imports(path: Path) -> Iterator[str]:
    """Every module imported anywhere in a file, also in functions and for types."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            assert node.module is not None
            if node.module == "konkyo":
                yield from (f"konkyo.{alias.name}" for alias in node.names)
            else:
                yield node.module


@pytest.mark.parametrize("path", RULED, ids=name_of)
def test_a_module_knows_only_the_rooms_it_may(path: Path) -> None:
    name = name_of(path)
    rule = max((place for place in MAY_KNOW if within(name, place, "/")), key=len, default=None)
    assert rule is not None, "a new room: say in MAY_KNOW what it may know"
    ours = [module for module in imports(path) if module.startswith("konkyo.")]
    assert [m for m in ours if not any(within(m, allowed, ".") for allowed in MAY_KNOW[rule])] == []


@pytest.mark.parametrize("path", RULED, ids=name_of)
def test_only_the_torch_engine_of_the_service_knows_torch(path: Path) -> None:
    name = name_of(path)
    if name == "service/engines/torch" or not any(within(name, place, "/") for place in WITHOUT_TORCH):
        return
    assert {module.partition(".")[0] for module in imports(path)} & HEAVY == set()


SERVE_WITHOUT_TORCH = """
import asyncio, sys
from importlib.abc import MetaPathFinder

HEAVY = {heavy!r}

class Blocked(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HEAVY | {{"sqlalchemy"}}:  # for studies alone
            raise AssertionError(f"{{name}} is imported")

sys.meta_path.insert(0, Blocked())

import httpx
from konkyo.service.app import create_app
from konkyo.service.settings import ZOO, Settings

async def main():
    app = create_app(Settings(engine="onnx", device="cpu", threads=1))
    transport = httpx.ASGITransport(app)
    client = httpx.AsyncClient(transport=transport, base_url="http://konkyo")
    async with app.router.lifespan_context(app), client:
        await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name() == "loading"))
        image = (ZOO / "gcm-cifar10" / "1" / "canary.png").read_bytes()
        answer = await client.post("/v1/models/gcm-cifar10:explain?overlay=spotlight", content=image)
        assert answer.status_code == 200, answer.text
        assert answer.json()["explanation"]["status"] == "ok"
        answer = await client.post(
            "/v1/models/gcm-cifar10:explain?method=occlusion",
            content=image,
            headers={{"accept": "text/event-stream"}},
        )
        assert answer.text.split("event: ")[-1].startswith("result"), answer.text

asyncio.run(main())
print(sorted(HEAVY & sys.modules.keys()))
"""


def test_the_service_explains_without_torch() -> None:
    script = SERVE_WITHOUT_TORCH.format(heavy=HEAVY)
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout.strip()) == (0, "[]"), result.stderr


def test_the_command_line_starts_without_torch() -> None:
    script = f"import sys, konkyo.cli; print(sorted({HEAVY!r} & sys.modules.keys()))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout.strip()) == (0, "[]"), result.stderr
