"""``konkyo evaluate`` and ``konkyo measures``, on pictures made here and networks that ship."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import interrupted
import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from konkyo.cli import app
from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.config import EvaluateConfig
from konkyo.evaluation.measures import measures
from konkyo.evaluation.results import Results
from konkyo.models.bundle import read_bundle
from konkyo.service.settings import ZOO
from konkyo.training.examples import open_examples

GCM, CLIPPED = ZOO / "gcm-cifar10" / "1", ZOO / "gcm-clipped-cifar10" / "1"
SIDE = 40
CLASSES = ("cat", "ship")
DOCUMENT = Path(__file__).parents[2] / "docs" / "evaluation.md"


def konkyo(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 pictures of two classes, ten objects; cats are marked, ships have nothing to mark."""
    root = tmp_path_factory.mktemp("data") / "pictures"
    generator = np.random.default_rng(0)
    rows = ["image,object"]
    for label in CLASSES:
        (root / "images" / label).mkdir(parents=True)
        (root / "masks" / "cat").mkdir(parents=True, exist_ok=True)
        for number in range(10):
            pixels = generator.integers(60, 130, (SIDE, SIDE, 3), np.uint8)
            mask = np.zeros((SIDE, SIDE), np.uint8)
            top, left = generator.integers(0, 20, 2)
            mask[top : top + 16, left : left + 16] = 255
            pixels[mask > 0] = (220, 150, 60) if label == "cat" else (40, 60, 220)
            Image.fromarray(pixels).save(root / "images" / label / f"{number}.png")
            if label == "cat":
                Image.fromarray(mask).save(root / "masks" / "cat" / f"{number}.png")
            rows.append(f"images/{label}/{number}.png,{label}{number // 2}")
    (root / "groups.csv").write_text("\n".join(rows) + "\n")
    return root


def results_in(out: Path) -> Results:
    return Results.model_validate_json((out / "results.json").read_text())


def values(results: Results) -> dict[tuple[str, str | None, str, str], float | None]:
    return {
        (item.candidate, item.source, item.measure, figure.name): figure.value
        for item in results.measures
        for figure in item.figures
    }


def accuracy(bundle: Path, data: Path) -> float:
    """Of the network itself, on every image."""
    candidate = Candidate.load(read_bundle(bundle))
    examples = open_examples(str(data), candidate.card.input, candidate.card.labels, split="all")
    read = [examples.read(index) for index in range(len(examples))]
    answers = candidate.logits(torch.from_numpy(np.stack([item.pixels for item in read]))).argmax(dim=1)
    return float(np.mean([item.truth == answer for item, answer in zip(read, answers.tolist(), strict=True)]))


def test_two_models_side_by_side(data: Path, tmp_path: Path) -> None:
    """By default every measure, by the models' own methods and the baselines."""
    out = tmp_path / "report"
    chosen = ["--split", "all", "--images", "6", "--resamples", "100"]
    dear = ["--limit", "occlusion_correlation=2", "--set", "pointing.tolerance=2"]
    result = konkyo("evaluate", GCM, CLIPPED, "--data", data, "--out", out, *chosen, *dear)
    assert result.exit_code == 0, result.output
    assert str(out / "report.html") in result.stdout
    assert "20 images, maps of 6" in result.stdout
    results = results_in(out)
    assert [item.name for item in results.candidates] == ["gcm-cifar10/1", "gcm-clipped-cifar10/1"]
    assert results.data.model_dump(include={"images", "explained", "marked", "grouped"}) == {
        "images": 20, "explained": 6, "marked": 3, "grouped": True,
    }  # fmt: skip
    assert {item.measure for item in results.measures} == set(measures())
    own = {item.source for item in results.measures if item.candidate == "gcm-cifar10/1"}
    assert own == {None, "gcm", "contribution", "gradcam", "random", "centre", "edges"}
    pointing = [item for item in results.measures if item.measure == "pointing"]
    assert len(pointing) == 12
    assert {item.settings["tolerance"] for item in pointing} == {2.0}
    assert {figure.images for item in pointing for figure in item.figures[:1]} == {3}
    limited = [item for item in results.measures if item.measure == "occlusion_correlation"]
    assert max(figure.images for item in limited for figure in item.figures) == 2
    found = values(results)
    for source in ("random", "centre", "edges"):  # they ask no model: the same maps for both
        one, two = (
            (model, source, "energy", "energy_all") for model in ("gcm-cifar10/1", "gcm-clipped-cifar10/1")
        )
        assert found[one] == found[two]
    assert found["gcm-cifar10/1", None, "classification", "accuracy"] == accuracy(GCM, data)
    assert results.settings["limit"] == {"occlusion_correlation": 2}
    assert results.command.startswith("konkyo")  # what follows are the words of this process
    page = (out / "report.html").read_text()
    assert "gcm-clipped-cifar10/1" in page
    assert page.count("data:image/") > 10
    for measured in results.measures:
        if measured.unsuited is not None:
            by = f", {measured.source}" if measured.source else ""
            line = f"not taken: {measured.measure} of {measured.candidate}{by}: {measured.unsuited}"
            assert line in result.stdout.splitlines()


def test_goes_on_with_more_models_and_measures(data: Path, tmp_path: Path) -> None:
    """What was measured stays, and is not measured again."""
    drawn = ["--split", "all", "--images", "4", "--resamples", "100", "--methods", "gcm,centre"]
    common = ("--data", data, "--out", tmp_path, *drawn)
    assert konkyo("evaluate", GCM, *common, "--measures", "energy").exit_code == 0
    first = values(results_in(tmp_path))
    kept = {path: path.read_bytes() for path in tmp_path.rglob("energy.jsonl")}
    assert len(kept) == 2
    result = konkyo("evaluate", GCM, CLIPPED, *common, "--measures", "energy,pointing,classification")
    assert result.exit_code == 0, result.output
    second = values(results_in(tmp_path))
    assert first.items() <= second.items()
    assert {path: path.read_bytes() for path in kept} == kept
    assert {(candidate, measure) for candidate, _, measure, _ in second} == {
        (candidate, measure)
        for candidate in ("gcm-cifar10/1", "gcm-clipped-cifar10/1")
        for measure in ("energy", "pointing", "classification")
    }


def test_other_settings_want_another_folder(data: Path, tmp_path: Path) -> None:
    chosen = [
        "--split",
        "all",
        "--images",
        "2",
        "--resamples",
        "100",
        "--methods",
        "centre",
        "--measures",
        "pointing",
    ]
    common = ("evaluate", GCM, "--data", data, "--out", tmp_path, *chosen)
    assert konkyo(*common).exit_code == 0
    result = konkyo(*common, "--set", "pointing.tolerance=1")
    assert result.exit_code == 1
    assert "settings.tolerance was 15.0 and is now 1.0" in result.stderr
    assert result.stderr.count("\n") == 1
    assert konkyo(*common, "--set", "pointing.tolerance=1", "--restart").exit_code == 0
    assert results_in(tmp_path).measures[0].settings == {"tolerance": 1.0}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--measures", "pointig"], "there is no measure 'pointig'; there are: average_drop"),
        (["--methods", "gradcm"], "gcm-cifar10/1 has no method 'gradcm'; there are: gcm"),
        (["--methods", ","], "--methods names none"),
        (["--set", "pointing.far=1"], "its parameters: tolerance"),
        (["--limit", "pointing"], "expected MEASURE=N"),
        (["--device", "gpu"], "--device gpu"),
        (["--images", "-1"], "images: "),
        (["--data", "nowhere"], "nowhere"),
        (["--classes", "nowhere.json"], "nowhere.json"),
    ],
)
def test_what_is_wrong_is_one_line(data: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    result = konkyo("evaluate", GCM, "--data", data, "--out", tmp_path / "out", *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out" / "results.json").exists()


def test_broken_images_end_it_or_are_counted(data: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    for label in CLASSES:
        (root / label).mkdir(parents=True)
        for number in range(3):
            (root / label / f"{number}.png").write_bytes(
                (data / "images" / label / f"{number}.png").read_bytes()
            )
    (root / "cat" / "1.png").write_bytes(b"no picture")
    chosen = ["--split", "all", "--resamples", "100", "--measures", "classification"]
    common = ("evaluate", GCM, "--data", root, "--out", tmp_path / "out", *chosen)
    result = konkyo(*common)
    assert result.exit_code == 1
    assert "1.png" in result.stderr
    result = konkyo(*common, "--skip-broken")
    assert result.exit_code == 0, result.output
    assert re.search(r"^skipped, cannot be read: .*cat/1\.png", result.stdout, re.M)
    results = results_in(tmp_path / "out")
    assert (results.data.images, len(results.data.skipped)) == (5, 1)


INTERRUPTED = """
import signal, sys
from interrupted import Alone
from konkyo.cli import main
from konkyo.evaluation.measures import register

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
register(Alone)
Alone.ends = signal.SIGINT, 2
main()
"""


def test_an_interrupt_says_how_to_go_on(data: Path, tmp_path: Path) -> None:
    """Ctrl-C in the second batch, in a process of its own."""
    chosen = ["--measures", "alone,classification", "--split", "all", "--batch-size", "8"]
    arguments = ["evaluate", str(GCM), "--data", str(data), *chosen]
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, *arguments, "--out", str(tmp_path)],
        cwd=Path(interrupted.__file__).parent, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (75, "interrupted; start it again to go on\n")
    lines = (tmp_path / "records" / "gcm-cifar10" / "1" / "model" / "alone.jsonl").read_text().splitlines()
    assert len(lines) == 1 + 8


def test_measures_are_listed_with_their_parameters() -> None:
    result = konkyo("measures", GCM)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    for name, kind in measures().items():
        assert any(line.startswith(f"{name}: {kind.title}, ") for line in lines)
        for field in kind.parameters.model_fields:
            assert any(line.startswith(f"    {name}.{field}=") for line in lines)
    assert lines[-1].startswith("methods of gcm-cifar10/1: gcm, ")
    assert konkyo("measures").stdout.splitlines() == lines[:-1]


def test_every_option_is_in_the_document() -> None:
    def shown(default: Any) -> str:
        return "–" if default is None else f"`{json.dumps(default).strip(chr(34))}`"  # noqa: RUF001

    rows = {
        tuple(cell.strip() for cell in line.strip("|").split("|"))
        for line in DOCUMENT.read_text(encoding="utf-8").splitlines()
        if line.startswith("| `--")
    }
    for name, field in EvaluateConfig.model_fields.items():
        if not field.is_required():
            option = f"`--{name.replace('_', '-')}`"
            assert (option, shown(field.default), str(field.description)) in rows
