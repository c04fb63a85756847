"""Folders with masks and groups, small and made here."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from konkyo.training.config import TrainConfig
from konkyo.training.data import SPLITS, ImageData
from konkyo.training.errors import DataError
from konkyo.training.folder import load_folder
from konkyo.training.sources import open_data

SIDE = 8


def _load(root: Path, **settings: Any) -> ImageData:
    return load_folder(root, image_size=SIDE, **settings)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """12 tiles, each photographed twice in each class; the defect of a tile is the pixel of its number."""
    for name in ("crack", "free", "pit"):
        for tile in range(12):
            for shot in range(2):
                path = tmp_path / "images" / name / f"{tile}_{shot}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("L", (SIDE, SIDE), 10 * tile).save(path)
                if name != "free":
                    mask = np.zeros((SIDE, SIDE), np.uint8)
                    mask.flat[tile] = 255
                    target = tmp_path / "masks" / name / f"{tile}_{shot}.png"
                    target.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(mask).save(target)
    return tmp_path


def _group(root: Path, column: str = "tile", rows: Iterable[Path] | None = None) -> None:
    with (root / "groups.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "class", column])
        for path in sorted((root / "images").rglob("*.jpg")) if rows is None else rows:
            table.writerow([path.relative_to(root).as_posix(), path.parent.name, path.stem.split("_")[0]])


def _masks(data: ImageData) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    assert data.files is not None
    for split in SPLITS:
        found |= dict(zip(data.files[split], getattr(data, split).masks, strict=True))
    return found


def test_each_image_has_its_own_mask(root: Path) -> None:
    data = _load(root)
    assert data.labels == ("crack", "free", "pit")
    masks = _masks(data)
    assert len(masks) == 72
    for name, mask in masks.items():
        _, label, file = name.split("/")
        expected = [] if label == "free" else [int(file.split("_")[0])]
        assert np.flatnonzero(mask).tolist() == expected
        assert mask.max() <= 1


def test_an_image_without_a_mask_has_an_unknown_one(root: Path) -> None:
    (root / "masks" / "pit" / "3_1.png").unlink()
    masks = _masks(_load(root))
    assert (masks["images/pit/3_1.jpg"] == 255).all()
    assert sum((mask == 255).any() for mask in masks.values()) == 1


def test_without_a_folder_of_masks_there_are_none(root: Path) -> None:
    (root / "masks").rename(root / ".masks")
    data = _load(root)
    assert all(getattr(data, split).masks is None for split in SPLITS)


def test_masks_larger_than_the_memory_limit_are_mapped_too(root: Path) -> None:
    mapped = _load(root, memory_limit=0)
    assert isinstance(mapped.train.masks, np.memmap)
    expected = _masks(_load(root))
    for name, mask in _masks(mapped).items():
        assert np.array_equal(mask, expected[name])


def test_a_class_may_be_called_images(tmp_path: Path) -> None:
    for name in ("images", "sounds"):
        for number in range(5):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.new("L", (SIDE, SIDE)).save(tmp_path / name / f"{number}.png")
    assert _load(tmp_path).labels == ("images", "sounds")


def test_a_broken_mask_is_named_or_its_image_left_out(root: Path) -> None:
    (root / "masks" / "pit" / "3_1.png").write_text("nothing")
    with pytest.raises(DataError, match=r"masks/pit/3_1\.png: not an image we read"):
        _load(root)
    data = _load(root, skip_broken=True)
    assert data.skipped == ("images/pit/3_1.jpg",)
    assert len(_masks(data)) == 71


def test_a_mask_of_another_image_is_refused(root: Path) -> None:
    Image.new("L", (3 * SIDE, SIDE)).save(root / "masks" / "pit" / "3_1.png")
    with pytest.raises(DataError, match=r"masks/pit/3_1\.png: the mask of 24x8 pixels has another aspect"):
        _load(root)


class TestMasksElsewhere:
    """A folder of masks that is named, such as of an expert's maps."""

    @pytest.fixture
    def painted(self, root: Path) -> Path:
        """Of pits alone: the pixel after the tile's."""
        for path in (root / "images" / "pit").iterdir():
            mask = np.zeros((SIDE, SIDE), np.uint8)
            mask.flat[int(path.stem.split("_")[0]) + 1] = 255
            target = root.with_name("painted") / "pit" / f"{path.stem}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(target)
        return root.with_name("painted")

    def _check(self, data: ImageData) -> None:
        masks = _masks(data)
        assert len(masks) == 72
        for name, mask in masks.items():
            *_, label, file = name.split("/")
            assert np.flatnonzero(mask).tolist() == ([int(file.split("_")[0]) + 1] if label == "pit" else [])
            assert mask.max() <= 1

    def test_take_the_place_of_those_beside_the_images(self, root: Path, painted: Path) -> None:
        self._check(_load(root, masks=painted))

    def test_belong_to_a_plain_folder_too(self, root: Path, painted: Path) -> None:
        self._check(_load(root / "images", masks=painted))

    def test_belong_to_given_splits_too(self, root: Path, painted: Path) -> None:
        (root / "images").rename(root / "train")
        shutil.rmtree(root / "masks")
        self._check(_load(root, masks=painted))

    def test_an_image_that_was_not_painted_has_an_unknown_one(self, root: Path, painted: Path) -> None:
        (painted / "pit" / "3_1.png").unlink()
        masks = _masks(_load(root, masks=painted))
        assert (masks["images/pit/3_1.jpg"] == 255).all()
        assert sum((mask == 255).any() for mask in masks.values()) == 1

    def test_the_split_stays_the_same(self, root: Path, painted: Path) -> None:
        plain, masked = _load(root / "images"), _load(root / "images", masks=painted)
        assert masked.files == plain.files
        assert np.array_equal(masked.train.pixels, plain.train.pixels)

    def test_the_setting_arrives(self, root: Path, painted: Path) -> None:
        self._check(open_data(TrainConfig(arch="gcm", data=str(root), image_size=SIDE, masks=str(painted))))

    def test_there_must_be_some(self, root: Path) -> None:
        root.with_name("empty").mkdir()
        for name in ("nowhere", "empty"):
            with pytest.raises(
                DataError, match=f"{name}: expected folders named as the classes: crack, free,"
            ):
                _load(root, masks=root.with_name(name))

    @pytest.mark.parametrize("name", ["cifar10", "elpv", "surfaces"])
    def test_belong_to_folders_alone(self, name: str) -> None:
        config = TrainConfig(arch="gcm", data=name, image_size=64, masks="painted")
        with pytest.raises(DataError, match=f"masks belong to a folder of images, not to {name}"):
            open_data(config)


class TestRefusals:
    def test_masks_of_no_class(self, root: Path) -> None:
        (root / "masks" / "pit").rename(root / "masks" / "pits")
        with pytest.raises(DataError, match="masks: expected folders named as the classes: crack, free, pit"):
            _load(root)

    def test_masks_of_no_image(self, root: Path) -> None:
        for path in (root / "masks" / "pit").iterdir():
            path.rename(path.with_name(f"{path.stem}_mask.png"))
        with pytest.raises(DataError, match=r"pit: no mask of any image; one of them would be 0_0\.png"):
            _load(root)

    def test_another_folder_beside_them(self, root: Path) -> None:
        (root / "labels").mkdir()
        with pytest.raises(DataError, match=r"labels: not expected beside .*images; there may be masks"):
            _load(root)


class TestGroups:
    @pytest.mark.parametrize("fold", [None, 0, 3])
    def test_no_tile_is_in_two_splits(self, root: Path, fold: int | None) -> None:
        _group(root)
        data = _load(root, fold=fold, folds=4)
        assert data.files is not None
        tiles = [{Path(name).stem.split("_")[0] for name in data.files[split]} for split in SPLITS]
        assert sum(map(len, tiles)) == 12
        assert len(set().union(*tiles)) == 12
        assert len(tiles[2]) == 3
        assert np.bincount(data.test.labels).tolist() == [6, 6, 6]
        assert len(_masks(data)) == 72

    def test_without_a_fold_it_is_the_first(self, root: Path) -> None:
        _group(root)
        assert _load(root).files == _load(root, fold=0).files
        assert _load(root).files != _load(root, fold=1).files

    def test_a_fold_needs_no_groups(self, root: Path) -> None:
        tests = [_load(root, fold=fold, folds=3).files for fold in range(3)]
        names = [name for files in tests if files for name in files["test"]]
        assert sorted(names) == sorted(_masks(_load(root)))

    def test_the_settings_arrive(self, root: Path) -> None:
        _group(root, "group")
        settings: dict[str, Any] = {"val_share": 0.2, "seed": 3, "fold": 2, "folds": 3}
        config = TrainConfig(arch="gcm", data=str(root), image_size=SIDE, **settings)
        assert open_data(config).files == _load(root, **settings).files

    def test_a_class_on_too_few_tiles_is_named(self, root: Path) -> None:
        for path in (root / "images" / "pit").glob("*.jpg"):
            if int(path.stem.split("_")[0]) > 3:
                path.unlink()
        _group(root)
        with pytest.raises(DataError, match="pit: 4 groups are too few for 5 folds"):
            _load(root)

    def test_an_image_without_a_group_is_named(self, root: Path) -> None:
        _group(root, rows=sorted((root / "images").rglob("*.jpg"))[1:])
        with pytest.raises(DataError, match=r"groups\.csv: 1 images have no group, such as images/crack/0_0"):
            _load(root)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", "expected the columns image, the group, and perhaps class"),
            ("file,tile\n", "expected the columns"),
            ("image,class\n", "expected the columns"),
            ("image,tile,light\n", "expected the columns"),
            ("image,tile\nimages/pit/0_0.jpg,1\nimages/pit/0_0.jpg,2\n", "an image is named twice"),
            ('image,tile\n"images/pit/0_0.jpg,1\n', "cannot be read"),
        ],
    )
    def test_a_table_of_another_kind_is_refused(self, root: Path, content: str, message: str) -> None:
        (root / "groups.csv").write_text(content)
        with pytest.raises(DataError, match=rf"groups\.csv: {message}"):
            _load(root)

    @pytest.mark.parametrize("make", [lambda root: None, _group])
    def test_folders_with_given_splits_have_neither_folds_nor_groups(
        self, root: Path, make: Callable[[Path], None]
    ) -> None:
        make(root)
        (root / "images").rename(root / "train")
        shutil.rmtree(root / "masks")
        fold = None if (root / "groups.csv").exists() else 0
        with pytest.raises(DataError, match=r"train: folds and groups\.csv are for folders without given"):
            _load(root, fold=fold)


def test_two_images_that_would_share_a_mask_are_refused(root: Path) -> None:
    shutil.copy(root / "images" / "pit" / "3_0.jpg", root / "images" / "pit" / "3_0.jpeg")
    with pytest.raises(DataError, match=r"pit/3_0\.png: would be the mask of several images"):
        _load(root)
