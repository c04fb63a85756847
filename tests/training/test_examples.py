"""Data as evaluation reads it: from files made here, and from the packages."""

from __future__ import annotations

import csv
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from konkyo.evaluation.examples import Examples
from konkyo.imaging import decode, open_image, prepare
from konkyo.models.card import InputSpec
from konkyo.training.elpv import LABELS as GRADES
from konkyo.training.elpv import list_elpv
from konkyo.training.errors import DataError
from konkyo.training.examples import open_examples
from konkyo.training.folder import load_folder
from konkyo.training.surfaces import LABELS as SURFACES

LABELS = ("pit", "crack", "free")  # in another order than the folders'
SIDE = 8


def spec(**change: Any) -> InputSpec:
    settings = {"width": SIDE, "height": SIDE, "mean": (0, 0, 0), "std": (1, 1, 1), **change}
    return InputSpec.model_validate(settings)


def opened(
    root: Path, labels: tuple[str, ...] = LABELS, asked: InputSpec | None = None, **settings: Any
) -> Examples:
    return open_examples(root.name, asked or spec(), labels, data_root=root.parent, **settings)


def save(path: Path, pixels: np.ndarray, **settings: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **settings)


def by_name(examples: Examples) -> dict[str, Any]:
    return {name: examples.read(index) for index, name in enumerate(examples.names())}


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    """12 tiles, photographed twice in each class, 12x8 pixels; the defect of tile i is the pixel (1, i)."""
    root = tmp_path / "tiles"
    for name in ("crack", "free", "pit"):
        for tile in range(12):
            for shot in range(2):
                save(root / "images" / name / f"{tile}_{shot}.png", np.full((8, 12), 10 * tile, np.uint8))
                if name != "free":
                    mask = np.zeros((8, 12), np.uint8)
                    mask[1, tile] = 255
                    save(root / "masks" / name / f"{tile}_{shot}.png", mask)
    return root


def group(root: Path) -> None:
    with (root / "groups.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "tile"])
        for path in sorted((root / "images").rglob("*.png")):
            table.writerow([path.relative_to(root).as_posix(), f"tile {path.stem.split('_')[0]}"])


class TestClassFolders:
    def test_images_have_their_class_and_the_mask_of_their_defect(self, tiles: Path) -> None:
        """Of 12x8 pixels the middle 8x8 are seen: column i is i − 2, and 0, 1, 10, 11 are cut off."""
        examples = opened(tiles)
        found = by_name(examples)
        assert len(found) == len(examples) == 72
        assert (examples.name, examples.licence) == ("tiles", "not stated")
        assert examples.description == "all splits, 72 images, of 72 of which it is known what is marked"
        assert examples.truths() == [found[name].truth for name in examples.names()]
        for name, example in found.items():
            _, label, file = name.split("/")
            tile = int(file.split("_")[0])
            assert example.truth == LABELS.index(label)
            assert (example.pixels == 10 * tile).all()
            assert example.geometry.crop == (2, 0, 10, 8)
            if label == "free":
                assert example.marked == ()
                continue
            (thing,) = example.marked
            assert (thing.name, thing.classes) == (label, (example.truth,))
            seen = 2 <= tile < 10
            assert np.argwhere(thing.mask).tolist() == ([[1, tile - 2]] if seen else [])
            assert thing.boxes.tolist() == ([[tile - 2, 1, tile - 1, 2]] if seen else [])

    def test_squash_keeps_what_a_crop_cuts_off(self, tiles: Path) -> None:
        """12 columns become 8, each of 1.5: column 11 lies in the last, from 7 1/3 on."""
        (thing,) = by_name(opened(tiles, asked=spec(resize_mode="squash")))["images/pit/11_0.png"].marked
        assert np.argwhere(thing.mask).tolist() == [[1, 7]]
        assert thing.boxes == pytest.approx(np.array([[22 / 3, 1, 8, 2]]))

    def test_pixels_are_those_of_a_request(self, tiles: Path) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        path = tiles / "images" / "pit" / "0_0.png"
        save(path, noise)
        (tiles / "masks" / "pit" / "0_0.png").unlink()
        asked = spec(width=16, crop_fraction=0.875, interpolation="bilinear")
        example = by_name(opened(tiles, asked=asked))["images/pit/0_0.png"]
        pixels, geometry = prepare(
            decode(open_image(path.read_bytes())), (16, SIDE), crop_fraction=0.875, interpolation="bilinear"
        )
        assert np.array_equal(example.pixels, pixels)
        assert example.geometry == geometry

    def test_an_image_stored_on_its_side_has_its_mask_upright(self, tiles: Path) -> None:
        upright = np.arange(64, dtype=np.uint8).reshape(8, 8) * 3
        exif = Image.Exif()
        exif[0x0112] = 6  # to be shown, turn the stored image a quarter clockwise
        save(tiles / "images" / "pit" / "0_0.png", np.rot90(upright).copy(), exif=exif)
        mask = np.zeros((8, 8), np.uint8)
        mask[2, 5] = 1
        save(tiles / "masks" / "pit" / "0_0.png", mask)
        example = by_name(opened(tiles))["images/pit/0_0.png"]
        assert np.array_equal(example.pixels[..., 0], upright)
        assert example.pixels[example.marked[0].mask].tolist() == [[3 * (2 * 8 + 5)] * 3]

    def test_a_mask_that_is_missing_is_not_known_and_an_empty_one_is(self, tiles: Path) -> None:
        (tiles / "masks" / "pit" / "3_1.png").unlink()
        save(tiles / "masks" / "pit" / "4_1.png", np.zeros((8, 12), np.uint8))
        examples = opened(tiles)
        found = by_name(examples)
        assert found["images/pit/3_1.png"].marked is None
        assert found["images/pit/4_1.png"].marked == ()
        assert "of 71 of which it is known" in examples.description

    @pytest.mark.parametrize("kind", ["images", "masks"])
    def test_what_changes_under_its_name_changes_the_digest(self, tiles: Path, kind: str) -> None:
        before = opened(tiles).digest()
        assert opened(tiles).digest() == before
        path = tiles / kind / "pit" / "3_1.png"
        content = path.read_bytes()
        save(path, np.full((8, 12), 1, np.uint8))
        changed = opened(tiles).digest()
        assert changed != before
        path.write_bytes(content)
        assert opened(tiles).digest() == before
        examples = opened(tiles)
        path.unlink()
        assert examples.digest() != before

    def test_groups_and_classes_belong_to_the_digest(self, tiles: Path) -> None:
        before = opened(tiles, split="all").digest()
        assert opened(tiles, LABELS[::-1], split="all").digest() != before
        group(tiles)
        assert opened(tiles, split="all").digest() != before

    def test_masks_may_lie_elsewhere(self, tiles: Path) -> None:
        for path in (tiles / "masks" / "pit").iterdir():
            mask = np.zeros((8, 12), np.uint8)
            mask[7, 5] = 255
            save(tiles.with_name("painted") / "pit" / path.name, mask)
        found = by_name(opened(tiles, masks=tiles.with_name("painted")))
        assert found["images/crack/5_0.png"].marked == ()
        assert np.argwhere(found["images/pit/5_0.png"].marked[0].mask).tolist() == [[7, 3]]

    def test_without_masks_nothing_is_marked(self, tiles: Path) -> None:
        examples = opened(tiles / "images")
        assert examples.description == "all splits, 72 images"
        assert {example.marked for example in by_name(examples).values()} == {None}

    @pytest.mark.parametrize(
        ("settings", "where"),
        [
            ({"split": "test"}, "test split by seed 0, 6 images"),
            ({"split": "val", "seed": 3, "val_share": 0.2}, "val split by seed 3, 15 images"),
            ({"fold": 2, "folds": 3}, "test split of fold 2 of 3, 24 images"),
            ({"split": "train", "fold": 1}, "train split of fold 1 of 5, 51 images"),
        ],
    )
    @pytest.mark.parametrize("grouped", [False, True])
    def test_splits_are_those_of_training(
        self, tiles: Path, settings: dict[str, Any], where: str, grouped: bool
    ) -> None:
        if grouped:
            group(tiles)
        trained = {key: value for key, value in settings.items() if key != "split"}
        files = load_folder(tiles, image_size=SIDE, **trained).files
        assert files is not None
        examples = opened(tiles, **settings)
        assert examples.names() == sorted(files[settings.get("split", "test")])
        if not grouped:
            assert examples.description.startswith(where)

    def test_with_groups_the_first_fold_is_the_test(self, tiles: Path) -> None:
        group(tiles)
        examples = opened(tiles)
        files = load_folder(tiles, image_size=SIDE).files
        assert files is not None
        assert examples.names() == sorted(files["test"])
        assert examples.description.startswith("test split of fold 0 of 5, ")
        found = by_name(opened(tiles, split="all"))
        assert {example.group for example in found.values()} == {f"tile {number}" for number in range(12)}
        assert found["images/pit/7_1.png"].group == "tile 7"

    def test_a_given_test_split_is_the_test(self, tiles: Path) -> None:
        for split in ("train", "test"):
            for name in ("crack", "free", "pit"):
                for number in range(4):
                    save(
                        tiles.with_name("given") / split / name / f"{number}.png", np.zeros((8, 8), np.uint8)
                    )
        root = tiles.with_name("given")
        names = [f"test/{name}/{number}.png" for name in ("crack", "free", "pit") for number in range(4)]
        assert opened(root).names() == names
        assert opened(root).description == "test split, 12 images"
        assert len(opened(root, split="all")) == 24
        assert len(opened(root, split="val")) == 3

    def test_one_image_a_class_is_enough_for_all(self, tmp_path: Path) -> None:
        for name in LABELS:
            save(tmp_path / "few" / name / "0.png", np.zeros((8, 8), np.uint8))
        assert opened(tmp_path / "few").truths() == [1, 2, 0]

    def test_images_of_a_single_class_can_be_evaluated(self, tiles: Path) -> None:
        for kind in ("images", "masks"):
            shutil.copytree(tiles / kind / "pit", tiles.with_name("pits") / kind / "pit")
        found = by_name(opened(tiles.with_name("pits")))
        assert {example.truth for example in found.values()} == {LABELS.index("pit")}
        assert len(found) == 24
        assert all(len(example.marked or ()) == 1 for example in found.values())

    def test_a_file_says_which_class_a_folder_is(self, tiles: Path) -> None:
        path = tiles.with_name("classes.json")
        path.write_text('{"crack": 1, "free": ["whole"], "pit": "broken"}')
        examples = opened(tiles, ("broken", "split", "whole"), classes=path)
        truths = dict(zip(examples.names(), examples.truths(), strict=True))
        assert [truths[f"images/{name}/0_0.png"] for name in ("crack", "free", "pit")] == [1, 2, 0]

    def test_a_folder_that_is_no_class_is_refused(self, tiles: Path) -> None:
        with pytest.raises(DataError, match=r"'crack' is no class of the model \(near: cracks"):
            opened(tiles, ("cracks", "free", "pit"))

    @pytest.mark.parametrize("kind", ["images", "masks"])
    def test_damage_is_named_when_it_is_read(self, tiles: Path, kind: str) -> None:
        (tiles / kind / "pit" / "3_1.png").write_text("nothing")
        examples = opened(tiles)
        with pytest.raises(DataError, match=rf"{kind}/pit/3_1\.png: not an image we read"):
            examples.read(examples.names().index("images/pit/3_1.png"))

    def test_a_file_that_went_is_named_when_it_is_read(self, tiles: Path) -> None:
        examples = opened(tiles)
        (tiles / "images" / "pit" / "3_1.png").unlink()
        with pytest.raises(DataError, match=r"images/pit/3_1\.png: .*No such file"):
            examples.read(examples.names().index("images/pit/3_1.png"))

    def test_threads_read_what_one_reads(self, tiles: Path) -> None:
        examples = opened(tiles)
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(examples.read, range(len(examples))))
        for index, example in enumerate(together):
            alone = examples.read(index)
            assert example.name == alone.name == examples.names()[index]
            assert np.array_equal(example.pixels, alone.pixels)


class TestPhotographs:
    LABELS = ("tabby", "Persian", "sky", "car")
    CLASSES = '{"cat": ["tabby", "Persian"]}'

    @pytest.fixture
    def photos(self, tmp_path: Path) -> Path:
        """Two photos of 8x4: sky; in one also two cats that touch, a kite, and a car outside the crop."""
        root = tmp_path / "photos"
        segments = np.zeros((4, 8, 3), np.uint8)
        segments[0] = (7, 0, 0)
        segments[2, 2:4], segments[2, 4:7] = (1, 2, 3), (0, 1, 0)  # 1 + 2 * 256 + 3 * 65536, and 256
        segments[3, 7], segments[3, 3] = (9, 0, 0), (8, 0, 0)
        for name in ("a", "b"):
            save(root / "images" / f"{name}.jpg", np.zeros((4, 8, 3), np.uint8))
        save(root / "masks" / "a.png", segments)
        save(root / "masks" / "b.png", segments * (segments == 7))
        ids = {7: 1, 197121: 2, 256: 2, 8: 3, 9: 4}
        info = [{"id": key, "category_id": category, "iscrowd": 0} for key, category in ids.items()]
        content = {
            "images": [
                {"id": 5, "file_name": "a.jpg", "license": 1},
                {"id": 6, "file_name": "b.jpg", "license": 2},
            ],
            "annotations": [
                {"image_id": 5, "file_name": "a.png", "segments_info": info},
                {"image_id": 6, "file_name": "b.png", "segments_info": info[:1]},
            ],
            "categories": [
                {"id": number, "name": name}
                for number, name in enumerate(("sky", "cat", "kite", "car"), start=1)
            ],
            "licenses": [
                {"id": number, "name": name}
                for number, name in ((2, "Attribution License"), (1, "No Derivs"), (3, "-"))
            ],
        }
        (root / "panoptic.json").write_text(json.dumps(content))
        (tmp_path / "classes.json").write_text(self.CLASSES)
        return root

    def _open(self, root: Path, **settings: Any) -> Examples:
        asked = spec(width=4, height=4)
        return opened(root, self.LABELS, asked, classes=root.with_name("classes.json"), **settings)

    def test_things_have_their_masks_and_a_box_for_each_instance(self, photos: Path) -> None:
        examples = self._open(photos)
        found = by_name(examples)
        assert sorted(found) == ["images/a.jpg", "images/b.jpg"]
        assert examples.truths() == [None, None]
        things = {thing.name: thing for thing in found["images/a.jpg"].marked}
        assert {name: thing.classes for name, thing in things.items()} == {
            "sky": (2,),
            "cat": (0, 1),
            "car": (3,),
        }
        assert np.argwhere(things["cat"].mask).tolist() == [[2, 0], [2, 1], [2, 2], [2, 3]]
        assert things["cat"].boxes.tolist() == [[0, 2, 2, 3], [2, 2, 4, 3]]
        assert things["sky"].boxes.tolist() == [[0, 0, 4, 1]]
        assert not things["car"].mask.any()
        assert things["car"].boxes.shape == (0, 4)
        assert [thing.name for thing in found["images/b.jpg"].marked] == ["sky"]

    def test_what_they_are_is_said(self, photos: Path) -> None:
        examples = self._open(photos)
        assert (examples.name, examples.licence) == ("photos", "Attribution License; No Derivs")
        assert examples.description == (
            "2 photographs; 3 of the 4 concepts marked in them are classes of the model, "
            "the others are left out"
        )

    def test_folders_of_masks_say_the_same(self, photos: Path, tmp_path: Path) -> None:
        """Instances are connected parts there, so the cats that touch are one."""
        expected = by_name(self._open(photos))
        (photos / "panoptic.json").unlink()
        for name in ("a", "b"):
            (photos / "masks" / f"{name}.png").unlink()
        masks: dict[str, Any] = {
            "sky": (0, slice(None)),
            "cat": (2, slice(2, 7)),
            "kite": (3, 3),
            "car": (3, 7),
        }
        for name, where in masks.items():
            mask = np.zeros((4, 8), np.uint8)
            mask[where] = 255
            for photo in ("a", "b") if name == "sky" else ("a",):
                save(photos / "masks" / name / f"{photo}.png", mask)
        found = by_name(self._open(photos))
        assert found.keys() == expected.keys()
        for name, example in found.items():
            things = {thing.name: thing for thing in example.marked}
            theirs = {thing.name: thing for thing in expected[name].marked}
            assert things.keys() == theirs.keys()
            assert all(np.array_equal(things[key].mask, theirs[key].mask) for key in things)
        boxes = {thing.name: thing.boxes.tolist() for thing in found["images/a.jpg"].marked}
        assert boxes == {"sky": [[0, 0, 4, 1]], "cat": [[0, 2, 4, 3]], "car": []}

        (photos / "masks").rename(tmp_path / "elsewhere")
        elsewhere = by_name(self._open(photos, masks=tmp_path / "elsewhere"))
        assert [thing.name for thing in elsewhere["images/a.jpg"].marked] == ["car", "cat", "sky"]

    def test_a_photo_of_things_without_a_class_is_not_empty(self, photos: Path) -> None:
        """The model knows no kite; that does not say that nothing is there."""
        content = json.loads((photos / "panoptic.json").read_text())
        content["annotations"][0]["segments_info"] = content["annotations"][0]["segments_info"][3:4]
        content["categories"] = [item for item in content["categories"] if item["name"] in ("kite", "sky")]
        (photos / "panoptic.json").write_text(json.dumps(content))
        classes = photos.with_name("kites.json")
        classes.write_text('{"kite": []}')
        found = by_name(opened(photos, self.LABELS, spec(width=4, height=4), classes=classes))
        assert found["images/a.jpg"].marked is None
        assert [thing.name for thing in found["images/b.jpg"].marked] == ["sky"]

    def test_what_has_no_class_at_all_is_refused(self, photos: Path) -> None:
        with pytest.raises(DataError, match=r"none of the 4 concepts marked here is a class .* such as car"):
            opened(photos, ("airplane", "bird"))

    @pytest.mark.parametrize("settings", [{"split": "test"}, {"fold": 0}])
    def test_they_have_no_splits(self, photos: Path, settings: dict[str, Any]) -> None:
        with pytest.raises(
            DataError, match="no class folders here, so no splits; leave out --split and --fold"
        ):
            self._open(photos, **settings)
        assert len(self._open(photos, split="all")) == 2

    def test_damage_is_named(self, photos: Path) -> None:
        save(photos / "masks" / "a.png", np.zeros((4, 4, 3), np.uint8))
        with pytest.raises(DataError, match=r"masks/a\.png: the mask of 4x4 pixels has another aspect ratio"):
            self._open(photos).read(0)


@pytest.mark.parametrize("folder", ["", "images"])
def test_of_images_alone_nothing_is_known(tmp_path: Path, folder: str) -> None:
    for name in ("b", "a"):
        save(tmp_path / "flat" / folder / f"{name}.png", np.full((8, 8), 9, np.uint8))
    (tmp_path / "flat" / folder / "notes.txt").touch()
    examples = opened(tmp_path / "flat")
    found = by_name(examples)
    assert [Path(name).name for name in found] == ["a.png", "b.png"]
    assert examples.description == "2 images without classes"
    assert {(example.truth, example.marked, example.group) for example in found.values()} == {
        (None, None, None)
    }


def test_images_alone_may_be_grouped(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / f"{name}.png", np.zeros((8, 8), np.uint8))
    (tmp_path / "groups.csv").write_text("image,object\na.png,one\nb.png,two\n")
    assert [example.group for example in by_name(opened(tmp_path)).values()] == ["one", "two"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: there is no such folder"):
        opened(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["cifar10", "elpv", "surfaces"])
@pytest.mark.parametrize(
    ("settings", "message"),
    [({"fold": 1}, "has a test split of its own"), ({"masks": Path("masks")}, "masks belong to a folder")],
)
def test_data_by_name_has_neither_folds_nor_masks(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_examples(name, spec(), GRADES, **settings)


def test_elpv_is_the_split_of_training() -> None:
    root, splits = list_elpv()
    examples = open_examples("elpv", spec(), GRADES)
    assert examples.description == "test split, 525 images"
    assert "non-commercial" in examples.licence
    assert examples.ordered
    labels = {file.path.relative_to(root).as_posix(): file.label for file in splits["test"]}
    assert dict(zip(examples.names(), examples.truths(), strict=True)) == labels
    example = examples.read(7)
    with Image.open(root / example.name) as image:
        expected = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    assert np.array_equal(example.pixels, expected)
    assert example.marked is None
    assert len(open_examples("elpv", spec(), GRADES, split="all")) == 2624


def test_surfaces_are_drawn_with_their_masks() -> None:
    examples = open_examples("surfaces", spec(width=32, height=32), SURFACES)
    assert len(examples) == len(set(examples.names())) == 400
    for index in range(8):
        example = examples.read(index)
        assert example.marked is not None
        assert bool(example.marked) == (example.truth != SURFACES.index("free"))
        for thing in example.marked:
            assert thing.classes == (example.truth,)
            assert len(thing.boxes) >= 1
            left, top, right, bottom = (
                thing.boxes.min(axis=0).tolist()[:2] + thing.boxes.max(axis=0).tolist()[2:]
            )
            rows, columns = np.nonzero(thing.mask)
            assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (
                left,
                top,
                right,
                bottom,
            )
