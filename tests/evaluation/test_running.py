"""The run: what is recorded, going on after whatever ended it, and what is refused."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import interrupted
import numpy as np
import pytest
import torch
from interrupted import Alone, Neighbours, Things, pictures, run
from torch import Tensor
from toys import SIDE, Linear, Pictures, make_candidate

from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.config import EvaluateConfig
from konkyo.evaluation.drawing import draw
from konkyo.evaluation.evaluating import device_of, evaluate
from konkyo.evaluation.examples import Batch
from konkyo.evaluation.lines import read_lines
from konkyo.evaluation.measures.base import Parameters, Record
from konkyo.evaluation.planning import Choice, Task
from konkyo.evaluation.recording import Subject
from konkyo.evaluation.results import MeasureResult, Results
from konkyo.evaluation.running import Pace, take
from konkyo.evaluation.sources import Source

RECORDS = Path("records") / "toy" / "1"


@pytest.fixture
def ends() -> Iterator[None]:
    """Whatever a test sets, runs after it do not end themselves."""
    # A shell without job control starts what runs in its background with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
    Alone.ends = None


def figures(results: Results) -> dict[str, Any]:
    """What must be the same of two runs."""
    return results.model_dump(exclude={"date": True, "measures": {"__all__": {"seconds"}}})


def found(results: Results, measure: str, source: str | None = None) -> MeasureResult:
    [one] = [item for item in results.measures if (item.measure, item.source) == (measure, source)]
    return one


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The run that nothing ended."""
    return run(tmp_path_factory.mktemp("whole"))


def test_figures_are_of_the_records(whole: Results) -> None:
    examples = pictures()
    taken = [examples.items[place] for place in draw(examples.truths(), 0)]
    batches = [taken[start : start + 4] for start in range(0, 20, 4)]
    expected = [
        item.pixels.mean() + 1000 * np.mean([one.pixels for one in batch]) + len(batch)
        for batch in batches
        for item in batch
    ]
    alone = found(whole, "alone")
    assert alone.figures[0].value == pytest.approx(np.mean(expected))
    assert (alone.figures[0].images, alone.figures[0].few) == (20, True)
    assert alone.figures[0].low is not None
    assert alone.figures[0].low < np.mean(expected) < (alone.figures[0].high or 0)
    [curve] = alone.curves
    assert curve.y == (pytest.approx(np.mean(expected)), 0.0)
    assert curve.low[0] == pytest.approx(alone.figures[0].low)
    order = np.argsort(expected, kind="stable")[:3]
    assert [case.example for case in alone.worst] == [taken[place].name for place in order]
    assert [case.value for case in alone.worst] == pytest.approx([expected[place] for place in order])
    assert {case.target for case in alone.worst} == {None}


def test_maps_are_measured_on_the_first_of_the_drawn(whole: Results) -> None:
    examples = pictures()
    chosen = [examples.items[place] for place in draw(examples.truths(), 0)[:14]]
    marked = [item for item in chosen if item.marked]
    assert found(whole, "neighbours", "centre").figures[0].images == 14
    things = found(whole, "things", "random")
    assert things.figures[0].images == 2 * len(marked)
    assert {case.about for case in things.worst} <= {"thing", "other"}
    assert all(case.target == {"thing": 0, "other": 1}[case.about] for case in things.worst)
    assert whole.data.model_dump(exclude={"name", "description", "licence"}) == {
        "images": 20, "explained": 14, "marked": len(marked), "grouped": True, "skipped": (),
    }  # fmt: skip


def test_results_are_in_the_folder(tmp_path: Path) -> None:
    results = run(tmp_path)
    assert Results.model_validate_json((tmp_path / "results.json").read_text()) == results
    assert results.settings["batch_size"] == 4
    assert results.settings["device"] in ("cpu", "cuda")
    assert {"konkyo", "torch", "python"} <= results.versions.keys()
    assert [item.name for item in results.candidates] == ["toy/1"]
    assert not list(tmp_path.glob("*.tmp"))
    line = next(read_lines(tmp_path / RECORDS / "centre" / "things.jsonl"))
    assert line.keys() == {"example", "group", "seconds", "records"}


@pytest.mark.parametrize("batch", [2, 5])
def test_goes_on_after_a_kill(tmp_path: Path, whole: Results, batch: int) -> None:
    """A process of its own that nothing can prepare for it."""
    command = [sys.executable, interrupted.__file__, str(tmp_path), str(int(signal.SIGKILL)), str(batch)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not (tmp_path / "results.json").exists()
    before = list(read_lines(tmp_path / RECORDS / "centre" / "neighbours.jsonl"))
    assert len(before) == min(4 * batch, 14)  # of this batch too, which the others lack
    assert len(list(read_lines(tmp_path / RECORDS / "model" / "alone.jsonl"))) == 4 * (batch - 1)
    assert figures(run(tmp_path)) == figures(whole)
    after = list(read_lines(tmp_path / RECORDS / "centre" / "neighbours.jsonl"))
    assert after[: len(before)] == before


@pytest.mark.usefixtures("ends")
@pytest.mark.parametrize(("number", "error"), [(0, RuntimeError), (signal.SIGINT, KeyboardInterrupt)])
def test_goes_on_after_a_fault_or_an_interrupt(
    tmp_path: Path, whole: Results, number: int, error: type[BaseException]
) -> None:
    Alone.ends = number, 2
    with pytest.raises(error):
        run(tmp_path)
    Alone.ends = None
    assert figures(run(tmp_path)) == figures(whole)


class Listed(Pictures):
    """Counts how often it was asked for all names."""

    def names(self) -> Sequence[str]:
        self.__dict__["asked"] = self.__dict__.get("asked", 0) + 1
        return super().names()


def test_names_are_not_listed_for_each_image(tmp_path: Path) -> None:
    """That would take the square of their number."""
    few, many = (Listed(pictures(count).items) for count in (4, 12))
    for examples in (few, many):
        run(tmp_path / str(len(examples)), examples)
    assert vars(few)["asked"] == vars(many)["asked"]


def test_a_finished_run_is_not_done_again(tmp_path: Path, whole: Results) -> None:
    run(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.jsonl")}
    nothing_left = Pictures(pictures().items, broken=frozenset(pictures().names()))
    assert figures(run(tmp_path, nothing_left)) == figures(whole)  # no image is opened
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.jsonl")} == before


def test_more_images_go_on_from_fewer(tmp_path: Path) -> None:
    """What was measured is not measured again; the composition of its batches is another."""
    run(tmp_path, images=4)
    kept = (tmp_path / RECORDS / "centre" / "neighbours.jsonl").read_bytes()
    results = run(tmp_path, images=8)
    assert (tmp_path / RECORDS / "centre" / "neighbours.jsonl").read_bytes().startswith(kept)
    assert found(results, "neighbours", "centre").figures[0].images == 8
    assert found(run(tmp_path, images=4), "neighbours", "centre").figures[0].images == 4
    assert found(run(tmp_path, images=0), "neighbours", "centre").figures[0].images == 20


def test_other_settings_in_a_folder_are_refused(tmp_path: Path, whole: Results) -> None:
    run(tmp_path)
    with pytest.raises(ValueError, match=r"masks was null and is now \"other\"; .* --restart"):
        run(tmp_path, masks="other")
    other = Pictures(pictures().items[1:])
    with pytest.raises(ValueError, match=r"data\.images was"):
        run(tmp_path, other)
    first, *rest = pictures().items
    painted = Pictures([replace(first, pixels=255 - first.pixels), *rest])
    with pytest.raises(ValueError, match=r"data\.content was"):
        run(tmp_path, painted)
    assert found(run(tmp_path, other, restart=True), "alone").figures[0].images == 19
    assert figures(run(tmp_path, restart=True)) == figures(whole)


def test_intervals_need_no_new_records(tmp_path: Path) -> None:
    run(tmp_path)
    before = (tmp_path / RECORDS / "model" / "alone.jsonl").read_bytes()
    again = run(tmp_path, resamples=150, level=0.5)
    assert (tmp_path / RECORDS / "model" / "alone.jsonl").read_bytes() == before
    assert again.settings["resamples"] == 150


def test_broken_images_are_refused_or_counted(tmp_path: Path) -> None:
    broken = ["3.png", "8.png"]
    with pytest.raises(ValueError, match=r"[38]\.png: cannot be read"):
        run(tmp_path, pictures(broken=broken))
    results = run(tmp_path, pictures(broken=broken), skip_broken=True)
    assert sorted(results.data.skipped) == [f"{name}: cannot be read" for name in broken]
    assert results.data.images == 18
    assert found(results, "alone").figures[0].images == 18
    again = run(tmp_path, pictures(broken=broken), skip_broken=True)
    assert figures(again) == figures(results)
    with pytest.raises(ValueError, match=r"[38]\.png: cannot be read"):
        run(tmp_path, pictures())


def test_nothing_but_broken_images(tmp_path: Path) -> None:
    results = run(tmp_path, pictures(3, broken=["0.png", "1.png", "2.png"]), skip_broken=True)
    assert results.data.images == 0
    assert all(item.unsuited for item in results.measures)


class Small(Linear):
    """A network for which the device has memory for 3 images."""

    def forward(self, image: Tensor) -> Tensor:
        if len(image) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(image)


class Counting(Neighbours):
    def records(self, batch: Batch, targets: Tensor, maps: Tensor) -> Sequence[Record]:
        return [
            Record(place, {"own": float(len(batch)), "map": 0, "curve": [0, 0]})
            for place in range(len(batch))
        ]


def test_batches_are_halved_where_memory_ends(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = EvaluateConfig(data="toy", methods="centre", batch_size=8, resamples=100, images=0)
    subject = Subject(make_candidate(Small(torch.zeros(2, SIDE, SIDE))), pictures())
    results = evaluate([subject], [Choice(Counting, Parameters())], config, tmp_path)
    lengths = [
        line["records"][0]["values"]["own"]
        for line in read_lines(tmp_path / RECORDS / "centre" / "neighbours.jsonl")
    ]
    assert lengths == [2.0] * 20
    assert found(results, "neighbours", "centre").figures[0].images == 20
    assert [record.args for record in caplog.records] == [(8, 4), (4, 2)]


class TooSmall(Linear):
    def forward(self, image: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_single_image_must_fit(tmp_path: Path) -> None:
    config = EvaluateConfig(data="toy", methods="centre")
    subject = Subject(make_candidate(TooSmall(torch.zeros(2, SIDE, SIDE))), pictures())
    with pytest.raises(torch.OutOfMemoryError):
        evaluate([subject], [Choice(Neighbours, Parameters())], config, tmp_path)


def test_what_a_measure_lacks_is_said(tmp_path: Path) -> None:
    """Of images of which nothing is known."""
    known = pictures()
    strangers = Pictures([replace(item, truth=None, marked=None, group=None) for item in known.items])
    results = run(tmp_path, strangers)
    things = found(results, "things", "centre")
    assert things.unsuited == "no image has masks or boxes"
    assert things.figures == ()
    assert found(results, "neighbours", "centre").unsuited is None
    assert (results.data.marked, results.data.grouped) == (0, False)
    empty = Pictures([item for item in known.items if item.marked == ()])
    things = found(run(tmp_path / "empty", empty), "things", "centre")
    assert things.unsuited == "nothing is marked in any image"


def test_models_are_compared_on_the_same_images(tmp_path: Path) -> None:
    candidate = make_candidate(Linear(torch.zeros(2, SIDE, SIDE)))
    choices = [Choice(Neighbours, Parameters())]
    config = EvaluateConfig(data="toy", methods="centre")
    with pytest.raises(ValueError, match="two of the bundles are called toy/1"):
        evaluate([Subject(candidate, pictures()), Subject(candidate, pictures())], choices, config, tmp_path)
    other = make_candidate(Linear(torch.zeros(2, SIDE, SIDE)))
    other.card = other.card.model_copy(update={"name": "other"})
    with pytest.raises(ValueError, match="other/1 would be given other images than toy/1"):
        evaluate([Subject(candidate, pictures()), Subject(other, pictures(19))], choices, config, tmp_path)
    results = evaluate(
        [Subject(candidate, pictures()), Subject(other, pictures())], choices, config, tmp_path
    )
    one, two = results.measures
    assert (one.candidate, two.candidate) == ("toy/1", "other/1")
    assert one.figures == two.figures
    twins = Pictures([pictures().items[0]] * 2)
    with pytest.raises(ValueError, match="pictures: 2 images are called"):
        evaluate([Subject(candidate, twins)], choices, config, tmp_path)
    with pytest.raises(ValueError, match="there are no images"):
        evaluate([Subject(candidate, Pictures([]))], choices, config, tmp_path)


def test_a_method_that_no_model_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no method 'gradcm'; there are: .*centre"):
        run(tmp_path, methods="centre,gradcm")
    assert not tmp_path.joinpath("records").exists()


def test_values_that_are_not_known_are_null(tmp_path: Path) -> None:
    class Unknown(Neighbours):
        def records(self, batch: Batch, targets: Tensor, maps: Tensor) -> Sequence[Record]:
            found = super().records(batch, targets, maps)
            return [item._replace(values={**item.values, "own": math.nan}) for item in found[:1]]

    config = EvaluateConfig(data="toy", methods="centre", batch_size=10)
    subject = Subject(make_candidate(Linear(torch.zeros(2, SIDE, SIDE))), pictures())
    results = evaluate([subject], [Choice(Unknown, Parameters())], config, tmp_path)
    [measured] = results.measures
    mean, middle = measured.figures
    assert (mean.value, mean.low, mean.images) == (None, None, 0)
    assert middle.value is not None
    assert middle.images == 2
    assert measured.worst == ()
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["measures"][0]["figures"][0]["value"] is None


@pytest.mark.parametrize("name", ["cuda:77", "gpu"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"--device {name}: "):
        device_of(name)


class Peculiar(Source):
    """Maps that tell how many classes were asked for."""

    def maps(self, candidate: Candidate, pixels: Tensor, targets: Tensor) -> Tensor:
        return torch.full((*targets.shape, 1, 1), float(targets.shape[1]))


def test_maps_are_those_of_all_measures_also_when_some_are_done(tmp_path: Path) -> None:
    """The classes that are asked for together are the same, so the maps are, to the last bit."""
    candidate, source = make_candidate(Linear(torch.zeros(2, SIDE, SIDE))), Peculiar("peculiar")
    tasks = [
        Task(Choice(kind, Parameters()), "peculiar", source, kind(candidate, source, Parameters()))
        for kind in (Neighbours, Things)
    ]

    def maps() -> list[float]:
        take(Subject(candidate, pictures()), tasks, range(20), Pace(4), tmp_path, {})
        lines = read_lines(tmp_path / RECORDS / "peculiar" / "neighbours.jsonl")
        return [line["records"][0]["values"]["map"] for line in lines]

    first = maps()
    assert first == [2.0] * 20
    (tmp_path / RECORDS / "peculiar" / "neighbours.jsonl").unlink()
    assert maps() == first
