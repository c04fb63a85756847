"""``konkyo study``, from bundles and images to a score, on networks of random weights."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

pytest.importorskip("torch")

from konkyo.cli import app
from konkyo.export.bundle import Origin, write_bundle
from konkyo.export.canary import smooth_image
from konkyo.models.classifier import Classifier
from konkyo.models.cnn import CNN
from konkyo.study.answering import find_subject, finish, read_item, read_overview, save_ranking
from konkyo.study.database import Database
from konkyo.study.scores import StudyScores
from konkyo.study.store import Store
from konkyo.study.views import RankingRequest

METHOD = "gradcam-plus-plus"
"""It takes a gradient, so no graph is exported, which would take long."""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["study", *map(str, arguments)])


def ran(*arguments: object) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory, settled: Callable[..., object]) -> list[Path]:
    """Two networks of the same classes, in another order."""
    import torch

    folder = tmp_path_factory.mktemp("bundles")
    samples = np.stack([smooth_image(32, 32, seed) for seed in range(100, 108)])
    found = []
    for seed, (name, labels) in enumerate((("wombat", ("crack", "dent")), ("numbat", ("dent", "crack")))):
        torch.manual_seed(seed)
        classifier = Classifier(CNN(2), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
        settled(classifier, torch.from_numpy(samples))
        origin = Origin("cnn", {}, labels, METHOD, "none", "none", "none", None)
        bundle, _ = write_bundle(folder / name / "3", classifier.state_dict(), samples, origin)
        found.append(bundle.path)
    return found


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images of each class, twice as wide as high."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(8):
        path = folder / ("crack", "dent")[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(smooth_image(80, 40, number)).save(path)
    return folder


@pytest.fixture
def arguments(bundles: Sequence[Path], images: Path, tmp_path: Path) -> list[object]:
    """Of ``create``; options that are given again replace these."""
    return [
        "create", *bundles, "--images", images,
        "--title", "Where?", "--subjects", 2, "--database", tmp_path / "s.db", "--side", 64,
    ]  # fmt: skip


LINK = re.compile(r"(?m)^(http.*)/studies/([0-9a-f]{32})#([A-Za-z0-9_-]{43})$")


def answer_all(database: Database, study: str, token: str, best: int) -> None:
    """Rank the entry with this number first in every image."""
    subject = find_subject(database, study, token)
    assert subject is not None
    shown = {item.id: item.maps for item in Store(database).answers(study).items}
    for summary in read_overview(database, subject).items:
        first = shown[summary.item][best]
        rest = [picture for picture in read_item(database, subject, summary.item).maps if picture != first]
        request = RankingRequest(ranking=[first, *rest], done=True, revision=0)
        save_ranking(database, subject, summary.item, request)
    finish(database, subject)


def test_from_bundles_to_a_report(arguments: list[object], tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    result = ran(*arguments, "--number", 6, "--per-class", 2, "--address", "https://lab.example/k/")
    links = LINK.findall(result.stdout)
    assert result.stdout.count("\n") == len(links) == 2
    assert {address for address, _, _ in links} == {"https://lab.example/k"}
    assert result.stderr.splitlines()[-1] == f"study {links[0][1]}: 4 images, 2 maps each"
    [study] = {study for _, study, _ in links}

    with closing(Database(str(path))) as database:
        answers = Store(database).answers(study)
        assert [entry.name for entry in answers.entries] == [f"wombat/3 {METHOD}", f"numbat/3 {METHOD}"]
        assert [item.label for item in answers.items] == ["crack", "crack", "dent", "dent"]
        for item in answers.items:
            pictures = [Store(database).picture(picture) for picture in (item.picture, *item.maps)]
            opened = [Image.open(io.BytesIO(picture)) for picture in pictures]
            assert {(picture.size, picture.mode) for picture in opened} == {((64, 64), "RGB")}  # the middle
            assert len({*pictures}) == 3
        for _, _, token in links:
            answer_all(database, study, token, best=1)

    listed = ran("list", "--database", path).stdout
    assert "'Where?': 4 images, 2 maps each; 2 subjects, 2 finished; 8 of 8 rankings" in listed
    more = LINK.findall(ran("invite", study, "--subjects", 3, "--database", path).stdout)
    assert len({token for _, _, token in more} - {token for _, _, token in links}) == 3
    ran("withdraw", study, 5, "--database", path)
    assert "has no subject 5" in run("withdraw", study, 5, "--database", path).stderr
    ran("close", study, "--database", path)
    assert "closed 20" in ran("list", "--database", path).stdout
    ran("close", study, "--reopen", "--database", path)
    assert " open " in ran("list", "--database", path).stdout

    scored = ran("score", study, "--database", path, "--out", tmp_path / "report")
    assert scored.stdout.splitlines()[0] == f"  1  numbat/3 {METHOD}: rank score 4, mean 1.00, variance 0.00"
    written = (tmp_path / "report" / "score.json").read_text()
    scores = StudyScores.model_validate_json(written)
    assert [(entry.place, entry.rank_score) for entry in scores.entries] == [(2, 8), (1, 4)]
    assert scores.mean_w == 1
    assert [subject.done for subject in scores.subjects] == [4, 4, 0, 0]
    assert scores.settings["target"] == "true"
    assert scores.settings["colours"] == "jet"
    report = (tmp_path / "report" / "report.html").read_text()
    assert "numbat" in report

    refused = run("delete", study, "--database", path)
    assert (refused.exit_code, "with 8 rankings?" in refused.output) == (1, True)
    ran("delete", study, "--yes", "--database", path)
    assert ran("list", "--database", path).stdout == ""


def test_one_bundle_by_two_methods_and_the_maps_that_were_asked_for(
    arguments: list[object], bundles: Sequence[Path], tmp_path: Path
) -> None:
    """In the order in which they were given; a bundle may be there with several methods."""
    ran(*arguments, bundles[0], "--methods", "own,own,random")
    with closing(Database(str(tmp_path / "s.db"))) as database:
        store = Store(database)
        [study] = store.summaries()
        answers = store.answers(study.id)
    assert [entry.name for entry in answers.entries] == [
        f"wombat/3 {METHOD}",
        f"numbat/3 {METHOD}",
        "wombat/3 random",
    ]
    assert all(entry.digest.startswith("sha256:") for entry in answers.entries)
    assert study.items == 8


def test_one_bundle_takes_all_methods(
    arguments: list[object], bundles: Sequence[Path], tmp_path: Path
) -> None:
    one = [word for word in arguments if word != bundles[1]]
    ran(*one, "--methods", "own, random,centre", "--number", 1)
    with closing(Database(str(tmp_path / "s.db"))) as database:
        [study] = Store(database).summaries()
        entries = Store(database).answers(study.id).entries
    assert [entry.name for entry in entries] == [f"wombat/3 {METHOD}", "wombat/3 random", "wombat/3 centre"]


def test_maps_are_for_the_class_of_the_folder_by_its_name(
    bundles: Sequence[Path], images: Path, tmp_path: Path
) -> None:
    """As the network says itself, drawn by hand: the class is another index in each network."""
    import torch

    from konkyo.evaluation.candidate import Candidate
    from konkyo.models.bundle import read_bundle
    from konkyo.study.creating import Compared, Plan, make_item, picture_spec
    from konkyo.study.drawing import Canvas, to_png
    from konkyo.training.examples import open_examples

    compared = []
    for path in bundles:
        candidate = Candidate.load(read_bundle(path))
        card = candidate.card
        compared.append(Compared.make(candidate, "own", open_examples(str(images), card.input, card.labels)))
    labels = compared[0].candidate.card.labels
    shown = open_examples(str(images), picture_spec(64), labels)
    for index in (0, 7):
        item = make_item(compared, shown, index, Plan("t", "i", side=64))
        whole = shown.read(index)
        assert item.label == Path(whole.name).parent.name
        for each, png in zip(compared, item.maps, strict=True):
            example = each.examples.read(index)
            target = each.candidate.card.labels.index(item.label)
            pixels = torch.from_numpy(example.pixels.copy())[None]
            map_ = each.candidate.maps(METHOD, pixels, torch.tensor([[target]]))[0, 0].clamp(min=0).numpy()
            canvas = Canvas(whole.pixels, (80, 40), example.geometry.crop, 64)
            assert png == to_png(canvas.draw(map_, example.geometry))


def test_images_without_classes_take_the_predicted(
    arguments: list[object], images: Path, tmp_path: Path
) -> None:
    flat = images / "dent"
    refused = run(*arguments, "--images", flat)
    assert refused.exit_code == 1
    assert "its class is not known; put images into folders named by their class" in refused.output
    ran(*arguments, "--images", flat, "--target", "predicted")
    with closing(Database(str(tmp_path / "s.db"))) as database:
        store = Store(database)
        [study] = store.summaries()  # nothing is left of the one that failed
        assert [item.label for item in store.answers(study.id).items] == [""] * 4


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--methods", "own,own,own"], "3 methods for 2 bundles"),
        (["--methods", "own,none"], "numbat/3 has no method 'none'"),
        (["--bundles", "a", "--bundles", "b"], "name all bundles as options, or all without"),
        (["--title", "Is Wombat better?"], "names wombat, which subjects must not know"),
        (["--instruction", "Say numbat."], "names numbat"),
        (["--title", " "], "need words"),
        (["--instruction", ""], "need words"),
        (["--images", "nowhere"], "nowhere: there is no such folder"),
        (["--database", "mysql://host/x"], "not in mysql"),
    ],
)
def test_what_is_refused(arguments: list[object], more: list[str], why: str, tmp_path: Path) -> None:
    result = run(*arguments, *more)
    assert (result.exit_code, result.stderr.count("error: ")) == (1, 1)
    assert why in result.stderr
    if (tmp_path / "s.db").exists():
        with closing(Database(str(tmp_path / "s.db"))) as database:
            assert Store(database).summaries() == []


def test_two_are_needed_and_none_twice(arguments: list[object], bundles: Sequence[Path]) -> None:
    one = [word for word in arguments if word != bundles[1]]
    assert "a study compares at least two" in run(*one).stderr
    assert "name the bundles to compare" in run(*(word for word in one if word != bundles[0])).stderr
    assert f"wombat/3 {METHOD} is there twice" in run(*arguments, bundles[0]).stderr


@pytest.mark.parametrize("way", [["--bundles", 0, 1], ["--bundles", 0, "--bundles", 1], [0, 1]])
def test_bundles_are_named_with_and_without_an_option(
    arguments: list[object], bundles: Sequence[Path], tmp_path: Path, way: list[object]
) -> None:
    rest = [word for word in arguments if word not in bundles]
    ran(*rest, *(bundles[word] if isinstance(word, int) else word for word in way), "--number", 1)
    with closing(Database(str(tmp_path / "s.db"))) as database:
        [study] = Store(database).summaries()
        entries = Store(database).answers(study.id).entries
    assert [entry.model for entry in entries] == ["wombat", "numbat"]


def test_a_map_that_fails_leaves_nothing(
    arguments: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from konkyo.study import drawing

    def fail(self: Any, map_: Any, geometry: Any) -> None:
        raise ValueError("the map has values that are not finite")

    monkeypatch.setattr(drawing.Canvas, "draw", fail)
    result = run(*arguments)
    assert f"wombat/3 {METHOD}: crack/0.png: the map has values that are not finite" in result.stderr
    with closing(Database(str(tmp_path / "s.db"))) as database:
        assert Store(database).summaries() == []


def test_the_choice_of_images_is_the_seeds(images: Path) -> None:
    from konkyo.study.creating import Plan, choose, picture_spec
    from konkyo.training.examples import open_examples

    examples = open_examples(str(images), picture_spec(32), ("crack", "dent"))  # four of each, crack first
    for seed in range(5):
        chosen = choose(examples, Plan("t", "i", number=3, seed=seed))
        assert chosen == choose(examples, Plan("t", "i", number=3, seed=seed)) == sorted({*chosen})
        assert len(chosen) == 3
        balanced = choose(examples, Plan("t", "i", number=6, per_class=2, seed=seed))
        assert [index // 4 for index in balanced] == [0, 0, 1, 1]
    assert len({tuple(choose(examples, Plan("t", "i", number=3, seed=seed))) for seed in range(5)}) > 1
    assert choose(examples, Plan("t", "i")) == list(range(8))


def test_to_choose_opens_no_image(tmp_path: Path) -> None:
    from konkyo.study.creating import Plan, choose, picture_spec
    from konkyo.training.examples import open_examples

    for label in ("crack", "dent"):
        (tmp_path / label).mkdir()
        for number in range(4):
            (tmp_path / label / f"{number}.png").write_bytes(b"no picture")
    examples = open_examples(str(tmp_path), picture_spec(32), ("crack", "dent"))
    assert [index // 4 for index in choose(examples, Plan("t", "i", per_class=1))] == [0, 1]


def test_the_database_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KONKYO_STUDIES", str(tmp_path / "none.db"))
    assert "none.db: there is no such file" in run("list").stderr
    monkeypatch.delenv("KONKYO_STUDIES")
    assert run("list").exit_code == 2


def test_a_study_that_is_not_there(arguments: list[object], tmp_path: Path) -> None:
    ran(*arguments, "--number", 1)
    path = tmp_path / "s.db"
    for command in (
        ["close"],
        ["delete", "--yes"],
        ["invite", "--subjects", "1"],
        ["score", "--out", tmp_path / "r"],
    ):
        result = run(command[0], "x", *command[1:], "--database", path)
        assert (result.exit_code, result.stderr) == (
            1,
            "error: there is no study x; konkyo study list names those there are\n",
        )
    assert not (tmp_path / "r").exists()


def test_score_of_a_study_that_nobody_answered(arguments: list[object], tmp_path: Path) -> None:
    ran(*arguments, "--number", 2)
    with closing(Database(str(tmp_path / "s.db"))) as database:
        [study] = Store(database).summaries()
    result = ran("score", study.id, "--database", tmp_path / "s.db", "--out", tmp_path / "report")
    assert result.stdout.startswith("0 of 2 images were ranked; the report is ")
    assert json.loads((tmp_path / "report" / "score.json").read_text())["entries"][0]["place"] is None
