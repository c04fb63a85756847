"""``konkyo score``: what it reads, the lines it writes, and what is left when it is stopped."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import PATIENCE, FaultyEngine, broken, until
from processes import eventually
from services import EXPLAIN, FILES, IMAGES, NAME, PNG, PREDICT, png, serving, zoo_settings

from konkyo.errors import BundleError, InferenceFailed, InvalidParameter, UnknownModel
from konkyo.models.bundle import Bundle
from konkyo.service.budget import MemoryBudget
from konkyo.service.engines import make_engine
from konkyo.service.engines.base import Outputs, UInt8
from konkyo.service.metrics import Metrics
from konkyo.service.model import Model
from konkyo.service.perturbing import Perturbing
from konkyo.service.pipeline import Pipeline
from konkyo.service.schemas import ExplainOptions, PredictOptions
from konkyo.service.scoring import running
from konkyo.service.scoring.folder import Folder, shard_of
from konkyo.service.scoring.orders import Orders, find_bundle, read_options
from konkyo.service.scoring.part import Part
from konkyo.service.scoring.running import INTERRUPTED, run
from konkyo.service.scoring.scorer import Scorer
from konkyo.service.settings import ZOO, Settings

BUNDLE = ZOO / NAME / "1"
PART = "part-00000-of-00001.jsonl"
Line = dict[str, Any]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Twenty images, half of them in folders below."""
    folder = tmp_path / "images"
    for number, file in enumerate(FILES):
        place = folder / ("", "a", "a/b", "c")[number % 4]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.png").write_bytes(file)
    return folder


def ordered(images: Path, explain: bool = False, shards: int = 1, shard: int = 0, **given: Any) -> Orders:
    out = images.parent / "out"
    return Orders(images, out, BUNDLE, read_options(explain, given), shards, shard)


def fake(**changes: Any) -> Settings:
    return zoo_settings(engine="fake", **changes)


def lines(part: Path) -> list[Line]:
    return [json.loads(line) for line in part.read_text().splitlines()]


def only(part: Path) -> dict[str, Line]:
    """By the image; every image once."""
    found = lines(part)
    by_image = {line["image"]: line for line in found}
    assert len(by_image) == len(found)
    return by_image


# What a line says


@pytest.mark.parametrize(
    ("path", "explain", "given"),
    [
        (PREDICT, False, {"top_k": 3}),
        (EXPLAIN, True, {"map": "float32", "overlay": "spotlight", "frame": "input"}),
        (EXPLAIN, True, {"targets": "cat,dog"}),
        (EXPLAIN, True, {"method": "occlusion", "overlay": "contour"}),
    ],
    ids=["predict", "explain", "two classes", "occlusion"],
)
async def test_lines_are_what_the_service_answers(
    images: Path, path: str, explain: bool, given: dict[str, str]
) -> None:
    settings = zoo_settings(engine="onnx", max_batch=1)  # the size of a batch shows in the last digit
    summary = await asyncio.to_thread(scored_by_command, images, explain, given)
    assert summary.startswith("20 images, 0 failed, ")
    assert summary.endswith(f" images/s; {images.parent}/out/{PART}")
    scored, events = only(images.parent / "out" / PART), {**PNG, "accept": "text/event-stream"}
    async with serving(settings, make_engine=make_engine) as service:
        for name, line in list(scored.items())[::7]:
            file = (images / name).read_bytes()
            answer = await service.client.post(path, content=file, headers=events, params=given)
            body = json.loads(answer.text.split("data: ")[-1])
            assert line.pop("image") == name
            assert line.pop("sha256") == hashlib.sha256(file).hexdigest()
            for of_a_request in ("id", "timing_ms", "batch_size"):
                del body[of_a_request]
            assert _with_data(line, images.parent / "out") == body


def scored_by_command(images: Path, explain: bool, given: dict[str, str]) -> str:
    """The last line of the command, with every parameter given as ``--parameter``."""
    options = [*(("--explain",) if explain else ()), "--engine=onnx", "--max-batch=1"]
    options += [f"--parameter={name}={value}" for name, value in given.items() if name != "top_k"]
    options += [f"--top-k={given['top_k']}"] if "top_k" in given else []
    with command(images, *options) as process:
        out, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors
    return str(out).strip()


def _with_data(entry: Any, out: Path) -> Any:
    """A line with the content of its files in the place of their paths."""
    if isinstance(entry, list):
        return [_with_data(item, out) for item in entry]
    if not isinstance(entry, dict):
        return entry
    found = {key: _with_data(value, out) for key, value in entry.items() if key != "path"}
    if "path" in entry:
        import base64

        file = out / entry["path"]
        data = file.read_bytes()
        if entry.get("encoding") == "npy":
            array = np.load(file)
            assert array.dtype == "<f4"
            assert array.shape == (entry["height"], entry["width"])
            found["encoding"], data = "float32", array.tobytes()
        found["data"] = base64.b64encode(data).decode()
    return found


def test_maps_and_overlays_lie_where_the_images_do(images: Path) -> None:
    summary = run(ordered(images, map="float32", overlay="blend", targets="cat,dog"), fake())
    out, line = images.parent / "out", only(summary.part)["a/b/2.png"]
    first, second = line["explanation"]["maps"]
    assert line["explanation"]["map"] == first["map"]
    assert (first["map"]["path"], first["overlay"]["path"]) == (
        "maps/a/b/2.png.npy",
        "overlays/a/b/2.png.png",
    )
    assert second["map"]["path"] == "maps/a/b/2.png.1.npy"
    grey = IMAGES[2].mean(axis=2, dtype=np.float32) / 255
    assert np.allclose(np.load(out / "maps/a/b/2.png.npy"), grey - 3 / 10)  # cat is class 3
    assert np.allclose(np.load(out / "maps/a/b/2.png.1.npy"), grey - 5 / 10)
    assert len(list(out.rglob("*.npy"))) == 40
    assert not list(out.rglob("*.tmp"))


def test_lines_come_in_the_order_of_the_names(images: Path) -> None:
    summary = run(ordered(images), fake(max_batch=3))
    assert [line["image"] for line in lines(summary.part)] == list(Folder(images).names())


# What is scored


def test_shards_are_disjoint_and_complete(images: Path) -> None:
    whole = run(ordered(images, map="none"), fake())
    apart = images.parent / "apart"
    parts = []
    for shard in range(5):
        orders = Orders(images, apart, BUNDLE, read_options(True, {"map": "none"}), 5, shard)
        parts.append(run(orders, fake()).part)
    assert [part.name for part in parts] == [f"part-0000{shard}-of-00005.jsonl" for shard in range(5)]
    assert sum(len(lines(part)) for part in parts) == 20
    together = {line["image"]: line for part in parts for line in lines(part)}
    assert together == only(whole.part)


def test_the_shard_of_a_name_is_the_same_for_ever() -> None:
    """By hand: the first 16 digits of sha256("a/b/2.png"), as a number, modulo 10."""
    assert shard_of("a/b/2.png", 10) == 8
    counts = np.bincount([shard_of(f"{number}.jpg", 10) for number in range(10_000)])
    assert counts.min() > 900
    assert counts.max() < 1100


def test_an_image_that_comes_in_between_moves_no_other(images: Path) -> None:
    before = set(Folder(images).shard(0, 3))
    (images / "0-new.png").write_bytes(FILES[0])
    assert set(Folder(images).shard(0, 3)) - {"0-new.png"} == before


def test_links_hidden_and_other_files_are_passed_over(images: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.png").write_bytes(FILES[0])
    (images / "file.png").symlink_to(outside / "secret.png")
    (images / "inside.png").symlink_to(images / "0.png")
    (images / "folder").symlink_to(outside)
    (images / "a" / "circle").symlink_to(images)
    (images / "notes.txt").write_text("not an image")
    (images / "no-suffix").write_bytes(FILES[0])
    (images / ".hidden.png").write_bytes(FILES[0])
    (images / ".snapshot").mkdir()
    (images / ".snapshot" / "0.png").write_bytes(FILES[0])
    os.mkfifo(images / "pipe.png")
    summary = run(ordered(images), fake())
    assert summary.count.images == 20
    assert "secret.png" not in summary.part.read_text()
    assert (summary.links, summary.others) == (4, 3)
    assert "passed over: 4 links, 3 other files" in str(summary)


def test_every_format_by_any_case_of_its_suffix(tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "images"
    folder.mkdir()
    names = ["1.jpg", "2.JPEG", "3.Png", "4.webp", "5.bmp", "6.tif", "7.TIFF"]
    for name in names:
        Image.fromarray(IMAGES[0]).save(folder / name)
    summary = run(ordered(folder), fake())
    assert [line["image"] for line in lines(summary.part)] == names
    assert summary.count.failed == 0


def test_names_that_are_no_unicode_have_their_line(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    name = os.fsdecode(b"gr\xfc\xdfe\n.png")
    (folder / name).write_bytes(FILES[0])
    summary = run(ordered(folder, map="png"), fake())
    [line] = lines(summary.part)
    assert (line["image"], line["label"]) == (name, "truck")
    assert (summary.part.parent / line["explanation"]["map"]["path"]).read_bytes().startswith(b"\x89PNG")
    assert run(ordered(folder, map="png"), fake()).before == 1


def test_an_empty_folder_leaves_an_empty_part(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    summary = run(ordered(tmp_path / "images"), fake())
    assert summary.part.read_bytes() == b""
    assert (summary.count.images, summary.exit_code) == (0, 0)


# What goes wrong


def test_images_that_cannot_be_read_have_a_line_with_the_error(images: Path) -> None:
    (images / "empty.png").write_bytes(b"")
    (images / "text.jpg").write_bytes(b"no image")
    (images / "half.png").write_bytes(FILES[0][: len(FILES[0]) // 2])
    (images / "heavy.png").write_bytes(b"\x00" * 10_001)
    (images / "wide.png").write_bytes(png(np.zeros((1, 2000, 3), np.uint8)))
    summary = run(ordered(images), fake(max_body_bytes=10_000, max_pixels=1999))
    found = only(summary.part)
    codes = {name: line["error"]["code"] for name, line in found.items() if "error" in line}
    assert codes == {
        "empty.png": "empty_body",
        "text.jpg": "unsupported_image",
        "half.png": "broken_image",
        "heavy.png": "body_too_large",
        "wide.png": "image_too_large",
    }
    assert found["text.jpg"]["sha256"] == hashlib.sha256(b"no image").hexdigest()
    assert found["heavy.png"]["sha256"] is None
    assert found["text.jpg"]["model"] == found["0.png"]["model"]
    assert (summary.count.images, summary.count.failed, summary.exit_code) == (25, 5, 0)
    assert str(summary).startswith("25 images, 5 failed, ")


def test_a_folder_that_cannot_be_listed_has_a_line(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = os.scandir

    def refuse(path: Path) -> Any:
        if path == images / "a":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = only(run(ordered(images), fake()).part)
    assert found["a/"]["error"]["code"] == "image_error"
    assert len(found) == 11


def test_a_name_too_long_for_its_map_fails_alone(images: Path) -> None:
    name = "x" * 251 + ".png"
    (images / name).write_bytes(FILES[0])
    found = only(run(ordered(images, map="png"), fake()).part)
    assert found[name]["error"]["code"] == "image_error"
    assert found[name]["error"]["message"] == "its name cannot be that of a map: File name too long"
    assert sum("error" in line for line in found.values()) == 1


def faulty(fault: Callable[[UInt8, Outputs], Outputs]) -> Callable[[Bundle, Settings], FaultyEngine]:
    def build(bundle: Bundle, settings: Settings) -> FaultyEngine:
        engine = FaultyEngine(bundle)
        engine.fault = fault
        return engine

    return build


def test_an_image_on_which_the_engine_fails_does_so_alone(images: Path) -> None:
    def poisoned(given: UInt8, outputs: Outputs) -> Outputs:
        if any((image == IMAGES[5]).all() for image in given):
            raise RuntimeError("injected")
        return outputs

    found = only(run(ordered(images), fake(), make_engine=faulty(poisoned)).part)
    failed = {name: line["error"]["code"] for name, line in found.items() if "error" in line}
    assert failed == {"a/5.png": "inference_failed"}


def test_an_engine_that_fails_on_everything_ends_the_run_which_can_go_on(images: Path) -> None:
    passes = 0

    def dies(given: UInt8, outputs: Outputs) -> Outputs:
        nonlocal passes
        passes += 1
        return outputs if passes < 7 else broken(given, outputs)  # two are the canary's

    settings = fake(max_batch=2, workers=1)
    with pytest.raises(InferenceFailed):
        run(ordered(images), settings, make_engine=faulty(dies))
    [partial] = (images.parent / "out").glob("*.partial")
    done = lines(partial)
    assert 0 < len(done) < 20
    assert all("label" in line for line in done)
    summary = run(ordered(images), settings)
    assert (summary.before, summary.count.images) == (len(done), 20 - len(done))
    assert only(summary.part).keys() == set(Folder(images).names())
    assert not partial.exists()


def test_images_wait_for_memory_instead_of_failing(images: Path) -> None:
    """Memory for two of the images under way at once; one that has not even alone enough fails."""
    cost = 32 * 32 * 3
    (images / "wide.png").write_bytes(png(np.zeros((100, 100, 3), np.uint8)))
    settings = fake(max_buffered_bytes=2 * (cost + max(map(len, FILES))), max_batch=8)
    found = only(run(ordered(images), settings).part)
    assert {name: line["error"]["code"] for name, line in found.items() if "error" in line} == {
        "wide.png": "overloaded"
    }
    assert len(found) == 21


def test_no_map_is_given_up_for_want_of_time(images: Path) -> None:
    """A gradient by two classes is three passes of work; beside it four leave room for a class alone."""
    orders = ordered(images, map="none", method="gradcam", targets="cat,dog")
    settings = zoo_settings(engine="torch", shed=True, work_capacity=4)
    found = only(run(orders, settings).part)
    assert [line["explanation"]["status"] == "shed" for line in found.values()] == [False] * 20


async def test_batches_are_full_while_images_are_left(images: Path, tmp_path: Path) -> None:
    settings, metrics = fake(max_batch=4, workers=1), Metrics()
    budget = MemoryBudget(settings.max_buffered_bytes)
    pipeline = Pipeline(settings, metrics, budget)
    engines: list[FaultyEngine] = []

    def build(bundle: Bundle, settings: Settings) -> FaultyEngine:
        engines.append(FaultyEngine(bundle))
        return engines[-1]

    model = Model(BUNDLE, settings, metrics, build)
    await model.load()
    [engine] = engines
    del engine.batches[:]
    engine.gate.shut()
    scorer = Scorer(
        model, PredictOptions(), settings, pipeline, Perturbing(settings, budget, pipeline), budget,
        images, tmp_path,
    )  # fmt: skip
    with Part(tmp_path, 0, 1) as part:
        task = asyncio.create_task(scorer.run(Folder(images).names(), part, asyncio.Event()))
        await engine.gate.entered()
        await until(lambda: model.batcher("predict").depth >= 4)
        assert model.batcher("predict").depth <= 2 * 4 + 1  # as many as are under way at most
        engine.gate.open()
        assert await task
    assert len(engine.batches[1]) == 4
    assert sum(map(len, engine.batches)) == 20
    await model.close()
    pipeline.close()


# What is refused before it begins


def test_results_of_other_orders_are_not_mixed(images: Path) -> None:
    run(ordered(images), fake())
    for other, differs in (
        (ordered(images, True), "verb"),
        (ordered(images, top_k=3), "options"),
        (ordered(images, shards=2), "shards"),
        (Orders(images, images.parent / "out", ZOO / "amb-elpv" / "1", PredictOptions()), "model"),
    ):
        with pytest.raises(ValueError, match=f"by another {differs}: .*choose another folder"):
            run(other, fake())
    assert run(ordered(images), fake()).before == 20


def test_shards_that_begin_together_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another shard notes the same orders while this one is about to."""
    noted, sync, others = tmp_path / "scoring.json", os.fsync, [tmp_path]
    orders = {"model": "a", "shards": 2}

    def fsync(file: int) -> None:
        sync(file)
        if others:
            others.pop()
            running._agree(noted, orders)

    monkeypatch.setattr(os, "fsync", fsync)
    running._agree(noted, orders)
    assert not others
    assert json.loads(noted.read_text()) == orders
    assert list(tmp_path.iterdir()) == [noted]


def test_two_processes_cannot_write_one_part(images: Path) -> None:
    orders = ordered(images)
    orders.out.mkdir()
    with Part(orders.out, 0, 1), pytest.raises(BlockingIOError, match="another process writes"):
        run(orders, fake())
    assert run(orders, fake()).count.images == 20


@pytest.mark.parametrize(("shard", "shards"), [(1, 1), (-1, 1), (0, 0), (0, 100_000)])
def test_shards_that_are_none(images: Path, shard: int, shards: int) -> None:
    with pytest.raises(ValueError, match="from 0, and of 99,999 at most"):
        ordered(images, shards=shards, shard=shard)


def test_results_may_not_lie_among_the_images(images: Path) -> None:
    with pytest.raises(ValueError, match="maps would be scored as images"):
        Orders(images, images / "a" / "out", BUNDLE, PredictOptions())


@pytest.mark.parametrize(
    ("given", "others", "message"),
    [
        ({"map": "png"}, ["colour=jet"], "colour: not a parameter here"),
        ({}, ["attention=[[1]]"], "for a request"),
        ({}, ["deadline_ms=5"], "for a request"),
        ({}, ["method=rise", "interim=true"], "for a request"),
        ({"method": "cam"}, ["method=gcm"], "each name once"),
        ({}, ["target"], "expected NAME=VALUE"),
        ({"top_k": 0}, [], "top_k: "),
        ({"overlay": "all"}, [], "overlay: "),
    ],
)
def test_parameters_that_mean_nothing(given: dict[str, Any], others: list[str], message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        read_options(False, given, others)


def test_what_only_explain_takes_asks_for_maps() -> None:
    assert type(read_options(False, {"top_k": 5, "map": None})) is PredictOptions
    assert isinstance(read_options(False, {"map": "none"}), ExplainOptions)
    assert isinstance(read_options(False, {}, ["target=cat"]), ExplainOptions)
    assert isinstance(read_options(True, {}), ExplainOptions)


def test_a_method_the_model_cannot_do_is_no_line_for_every_image(images: Path) -> None:
    with pytest.raises(InvalidParameter, match="cannot be explained by 'steam'"):
        run(ordered(images, method="steam"), fake())
    assert not (images.parent / "out").exists()


def test_a_bundle_that_is_none(images: Path, tmp_path: Path) -> None:
    orders = Orders(images, tmp_path / "out", tmp_path / "nothing" / "1", PredictOptions())
    with pytest.raises(BundleError, match=r"nothing/1 cannot be loaded: .*card\.json"):
        run(orders, fake())


def test_a_model_of_the_repository_by_its_name(tmp_path: Path) -> None:
    for version in ("1", "2", "10"):
        (tmp_path / "net" / version).mkdir(parents=True)
        (tmp_path / "net" / version / "card.json").touch()
    (tmp_path / "net" / "11").mkdir()
    assert find_bundle([tmp_path], "net") == tmp_path / "net" / "10"
    assert find_bundle([tmp_path], "net/2") == tmp_path / "net" / "2"
    for name in ("net/3", "ne", "", "*", "net/*"):
        with pytest.raises(UnknownModel):
            find_bundle([tmp_path], name)


# What is left of a run that is stopped


@pytest.mark.parametrize("end", [b"", b'{"image"', b'{"image": "a"', b"null\n", b"\0\0\0", b'{"image": "x"}'])
def test_a_torn_line_is_cut_off(tmp_path: Path, end: bytes) -> None:
    with Part(tmp_path, 3, 10) as part:
        for name in ("a", "b"):
            part.append({"image": name})
    partial = tmp_path / "part-00003-of-00010.jsonl.partial"
    with partial.open("ab") as file:
        file.write(end)
    with Part(tmp_path, 3, 10) as part:
        assert part.done == {"a", "b"}
        part.append({"image": "c"})
        part.complete()
    assert part.path.read_bytes() == b'{"image": "a"}\n{"image": "b"}\n{"image": "c"}\n'
    assert not partial.exists()


def test_a_finished_part_takes_what_has_come_since(images: Path) -> None:
    run(ordered(images), fake())
    (images / "new.png").write_bytes(FILES[0])
    summary = run(ordered(images), fake())
    assert (summary.before, summary.count.images) == (20, 1)
    assert "; 20 were done before" in str(summary)
    assert only(summary.part).keys() == set(Folder(images).names())


STOPS = """
import os, signal, sys, threading
from pathlib import Path
from konkyo.service.engines.fake import FakeEngine
from konkyo.service.scoring import running
from konkyo.service.scoring.orders import Orders, read_options
from konkyo.service.settings import Settings

images, out, bundle, how = sys.argv[1:]

class Stops(FakeEngine):
    passes = 0

    def run(self, images, targets, attention=None):
        self.passes += 1
        if self.passes == 8:  # two are the canary's
            if how == "TERM":
                os.kill(os.getpid(), signal.SIGTERM)
            else:
                print("it hangs", flush=True)
                threading.Event().wait()
        return super().run(images, targets, attention)

orders = Orders(Path(images), Path(out), Path(bundle), read_options(True, {"map": "png"}))
settings = Settings(engine="fake", max_batch=2, workers=1)
summary = running.run(orders, settings, make_engine=lambda bundle, settings: Stops(bundle))
print(summary)
sys.exit(summary.exit_code)
"""


@contextmanager
def command(images: Path, *options: str, script: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    """``konkyo score`` on the images, or another program."""
    out = str(images.parent / "out")
    score = ("-m", "konkyo", "score", str(images), f"--out={out}", f"--bundle={BUNDLE}", "--threads=1")
    arguments = (*script, str(images), out, str(BUNDLE)) if script else score
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KONKYO_")}
    process = subprocess.Popen(
        [sys.executable, *arguments, *options],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        try:
            yield process
        finally:
            process.kill()


def undisturbed(images: Path) -> dict[str, Line]:
    orders = Orders(images, images.parent / "undisturbed", BUNDLE, read_options(True, {"map": "png"}))
    return only(run(orders, fake()).part)


def finished(images: Path, before: int) -> None:
    """Start the command again: every image has one line, that of a run which nothing disturbed."""
    with command(images, "--explain", "--maps=png", "--engine=fake") as process:
        said, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert f"{20 - before} images, 0 failed" in said
    assert f"{before} were done before" in said
    out = images.parent / "out"
    assert only(out / PART) == undisturbed(images)
    assert sorted(path.name for path in out.iterdir()) == [
        "maps",
        PART,
        "scoring.json",
    ]
    assert len(list((out / "maps").rglob("*.png"))) == 20
    assert not list(out.rglob("*.tmp"))


def test_a_killed_run_goes_on_where_it_stopped(images: Path) -> None:
    partial = images.parent / "out" / f"{PART}.partial"
    with command(images, "KILL", script=("-c", STOPS)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "it hangs\n"
        eventually(lambda: len(partial.read_bytes().splitlines()) >= 1)
        process.send_signal(signal.SIGKILL)
        assert process.wait(PATIENCE) == -signal.SIGKILL
    before = len(lines(partial))
    assert 1 <= before <= 10
    with partial.open("ab") as file:
        file.write(b'{"image": "torn')
    (images.parent / "out" / "maps" / "c").mkdir(exist_ok=True)
    (images.parent / "out" / "maps" / "c" / "19.png.png.tmp").write_bytes(b"half a map")
    finished(images, before)


def test_sigterm_finishes_what_is_under_way(images: Path) -> None:
    with command(images, "TERM", script=("-c", STOPS)) as process:
        said, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == INTERRUPTED == 75, errors
    [line] = said.splitlines()
    assert line.endswith("interrupted; start it again to go on")
    assert "Traceback" not in errors
    before = len(only(images.parent / "out" / f"{PART}.partial"))
    assert 5 <= before < 20
    assert line.startswith(f"{before} images, 0 failed")
    finished(images, before)


def test_no_torch_is_imported(images: Path) -> None:
    script = (
        "import sys; from konkyo.cli import app; app(sys.argv[1:], standalone_mode=False); "
        "print(sorted({'torch', 'timm', 'safetensors', 'onnx'} & sys.modules.keys()))"
    )
    out = f"--out={images.parent / 'out'}"
    told = ["score", str(images), out, "--model=gcm-cifar10", "--explain", "--engine=onnx", "--threads=1"]
    done = subprocess.run(
        [sys.executable, "-c", script, *told], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.stdout.splitlines()[1:] == ["[]"], done.stderr


def test_the_command_says_in_one_line_what_is_wrong(images: Path) -> None:
    for options, code, message in (
        (["--shards=2", "--shard=2"], 1, "error: shard 2 of 2"),
        (["--method=steam"], 1, "error: gcm-cifar10 cannot be explained by 'steam'"),
        (["--model=gcm-cifar10"], 1, "error: give --bundle or --model"),
    ):
        with command(images, *options) as process:
            said, errors = process.communicate(timeout=PATIENCE)
        assert (process.returncode, said) == (code, "")
        assert errors.splitlines()[-1].startswith(message)
