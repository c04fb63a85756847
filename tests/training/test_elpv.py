"""The reader on the real package, and on packages of its layout that are not it."""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from elpv_dataset import utils  # type: ignore[import-untyped]
from PIL import Image

from konkyo.training.config import TrainConfig
from konkyo.training.data import SPLITS, ImageData, stratified_split
from konkyo.training.elpv import LABELS, PROBABILITIES, load_elpv
from konkyo.training.errors import DataError
from konkyo.training.sources import open_data

PACKAGE = Path(utils.__file__).parent / "data"


@pytest.fixture(scope="module")
def data() -> ImageData:
    return load_elpv(image_size=16, val_share=0.1, seed=0)


@pytest.fixture(scope="module")
def table() -> dict[str, tuple[float, str]]:
    """Probability and kind of cell of each image, as the package's table has them."""
    rows = (line.split() for line in (PACKAGE / "labels.csv").read_text().splitlines())
    return {name: (float(probability), kind) for name, probability, kind in rows}


def _written_down() -> list[str]:
    text = (resources.files("konkyo.training") / "splits" / "elpv-test.txt").read_text()
    return [line for line in text.splitlines() if not line.startswith("#")]


def _strata(names: tuple[str, ...] | list[str], table: dict[str, tuple[float, str]]) -> np.ndarray:
    """Images of each of the four grades, mono and poly."""
    counts = np.zeros((4, 2), np.int64)
    for name in names:
        probability, kind = table[name]
        counts[round(probability * 3), kind == "poly"] += 1
    return counts


def test_every_cell_is_in_one_split_with_its_grade(
    data: ImageData, table: dict[str, tuple[float, str]]
) -> None:
    assert data.files is not None
    assert sorted(name for split in SPLITS for name in data.files[split]) == sorted(table)
    assert data.labels == LABELS
    for split in SPLITS:
        images = getattr(data, split)
        assert images.masks is None
        for name, label in zip(data.files[split], images.labels, strict=True):
            assert PROBABILITIES[label] == pytest.approx(table[name][0], abs=1e-4)
    labels = np.concatenate([getattr(data, split).labels for split in SPLITS])
    assert np.bincount(labels).tolist() == [1508, 295, 106, 715]


def test_pixels_are_the_files(data: ImageData) -> None:
    assert data.files is not None
    with Image.open(PACKAGE / data.files["test"][7]) as image:
        expected = np.asarray(image.convert("RGB").resize((16, 16), Image.Resampling.BICUBIC))
    assert np.array_equal(data.test.pixels[7], expected)


def test_the_test_split_is_the_one_written_down(data: ImageData) -> None:
    names = _written_down()
    assert names == sorted(set(names))
    assert data.files is not None
    assert sorted(data.files["test"]) == [f"images/{name}" for name in names]


def test_the_splits_are_stratified_by_grade_and_kind(
    data: ImageData, table: dict[str, tuple[float, str]]
) -> None:
    total = _strata(list(table), table)
    assert data.files is not None
    assert (np.abs(_strata(data.files["test"], table) - 0.2 * total) <= 0.5).all()
    assert (np.abs(_strata(data.files["val"], table) - 0.08 * total) <= 1).all()


def test_the_test_split_was_drawn_as_its_header_says(table: dict[str, tuple[float, str]]) -> None:
    strata = np.array([2 * round(grade * 3) + (kind == "poly") for grade, kind in table.values()])
    _, test = stratified_split(strata, [0.2], seed=2018)
    names = list(table)
    assert sorted(Path(names[position]).name for position in test) == _written_down()


def test_settings_reach_the_reader(data: ImageData) -> None:
    """The seed and the share move the validation, and never the test."""
    config = TrainConfig(arch="gcm", data="elpv", image_size=8, val_share=0.2, seed=1)
    opened = open_data(config)
    assert (opened.name, opened.licence) == ("elpv", "CC BY-NC-SA 4.0 (non-commercial)")
    assert opened.size == (8, 8)
    assert opened.files is not None
    assert data.files is not None
    assert opened.files["test"] == data.files["test"]
    assert len(opened.files["val"]) == pytest.approx(2 * len(data.files["val"]), abs=4)
    assert not set(data.files["val"]) <= set(opened.files["val"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [({}, "elpv needs --image-size"), ({"image_size": 16, "fold": 0}, "elpv has a test split of its own")],
)
def test_settings_that_do_not_suit_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_data(TrainConfig(arch="gcm", data="elpv", **settings))  # type: ignore[arg-type]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "elpv_dataset", None)
    with pytest.raises(DataError, match=r"pip install 'konkyo\[data\]'"):
        load_elpv(image_size=16)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("images/cell0001.png 1.0 mono\n", r"cell\d+.png of the test split is missing"),
        ("images/cell0001.png 1.0 thin\n", "labels.csv: cannot be read"),
        ("images/cell0001.png 0.5 mono\n", "labels.csv: cannot be read: 0.5 is none of the four grades"),
        ("images/cell0001.png,1.0,mono\n", "labels.csv: cannot be read"),
        (None, "labels.csv: cannot be read"),
    ],
)
def test_another_package_of_the_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str | None, message: str
) -> None:
    (tmp_path / "elpv_dataset" / "data").mkdir(parents=True)
    (tmp_path / "elpv_dataset" / "__init__.py").touch()
    if table is not None:
        (tmp_path / "elpv_dataset" / "data" / "labels.csv").write_text(table)
    monkeypatch.delitem(sys.modules, "elpv_dataset", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError, match=message):
        load_elpv(image_size=16)
