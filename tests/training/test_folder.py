from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from konkyo.training.config import TrainConfig
from konkyo.training.data import ImageData
from konkyo.training.errors import DataError
from konkyo.training.folder import load_folder
from konkyo.training.sources import open_data

SIDE = 8


def _save(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (SIDE, SIDE), (value, value // 2, 255 - value)).save(path)


def _fill(root: Path, classes: Sequence[str], count: int) -> None:
    """Images whose red is 20 times the class plus the number of the image."""
    for label, name in enumerate(classes):
        for number in range(count):
            _save(root / name / f"{number:02}.png", 20 * label + number)


def _load(root: Path, **settings: object) -> ImageData:
    return load_folder(root, **{"image_size": SIDE, **settings})  # type: ignore[arg-type]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three classes of 20 images each."""
    _fill(tmp_path / "birds", ("wren", "crow", "auk"), 20)
    return tmp_path / "birds"


def _reds(data: ImageData, split: str) -> list[int]:
    """Red of each image of the split, after a check that the image is the one its file names."""
    images = getattr(data, split)
    assert data.files is not None
    reds: list[int] = images.pixels[:, 0, 0, 0].tolist()
    for red, label, name, pixels in zip(reds, images.labels, data.files[split], images.pixels, strict=True):
        assert name.split("/")[-2] == data.labels[label]
        assert red % 20 == int(Path(name).stem)
        assert (pixels == (red, red // 2, 255 - red)).all()
    return reds


def test_a_flat_folder_is_split_by_class(root: Path) -> None:
    data = _load(root)
    assert data.name == "birds"
    assert data.labels == ("auk", "crow", "wren")
    assert [np.bincount(part.labels).tolist() for part in (data.train, data.val, data.test)] == [
        [16] * 3,
        [2] * 3,
        [2] * 3,
    ]
    reds = [_reds(data, split) for split in ("train", "val", "test")]
    assert sorted(chain(*reds)) == list(range(60))


def test_the_seed_fixes_the_split(root: Path) -> None:
    assert _load(root, seed=1).files == _load(root, seed=1).files
    assert _load(root, seed=1).files != _load(root, seed=2).files


def test_val_share_is_kept(root: Path) -> None:
    assert np.bincount(_load(root, val_share=0.3).val.labels).tolist() == [6] * 3


def test_given_splits_are_kept(tmp_path: Path) -> None:
    for split, count in (("train", 5), ("val", 2), ("test", 3)):
        _fill(tmp_path / split, ("a", "b"), count)
    data = _load(tmp_path)
    assert data.labels == ("a", "b")
    assert data.files == {
        split: tuple(f"{split}/{name}/{number:02}.png" for name in "ab" for number in range(count))
        for split, count in (("train", 5), ("val", 2), ("test", 3))
    }
    assert _reds(data, "test") == [0, 1, 2, 20, 21, 22]


@pytest.mark.parametrize("given", [(), ("val",), ("test",)])
def test_missing_splits_are_taken_from_train(tmp_path: Path, given: Sequence[str]) -> None:
    _fill(tmp_path / "train", ("a", "b"), 20)
    for split in given:
        _fill(tmp_path / split, ("a", "b"), 3)
    data = _load(tmp_path)
    assert data.files is not None
    for split in ("val", "test"):
        folder, count = (split, 6) if split in given else ("train", 4)
        assert {name.split("/")[0] for name in data.files[split]} == {folder}
        assert len(data.files[split]) == count
    assert len(data.train) == 40 - 4 * (2 - len(given))
    assert len(set(chain(*data.files.values()))) == 40 + 6 * len(given)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    _fill(tmp_path, ("bus", "train"), 5)
    assert _load(tmp_path).labels == ("bus", "train")


def test_other_files_are_ignored(root: Path) -> None:
    _save(root / "auk" / ".hidden.png")
    _save(root / ".thumbnails" / "0.png")
    (root / "auk" / "notes.txt").write_text("not an image")
    (root / "auk" / "folder.png").mkdir()
    (root / "labels.csv").write_text("neither")
    data = _load(root)
    assert len(data.train) + len(data.val) + len(data.test) == 60
    assert data.skipped == ()


@pytest.mark.parametrize("ending", ["jpg", "JPEG", "PNG", "webp", "bmp", "tif", "TIFF"])
def test_formats_are_known_by_their_ending(root: Path, ending: str) -> None:
    _save(root / "auk" / f"more.{ending}")
    data = _load(root)
    assert len(data.train) + len(data.val) + len(data.test) == 61


def test_more_than_the_memory_limit_is_mapped_from_a_file(root: Path) -> None:
    mapped, held = _load(root, memory_limit=0), _load(root)
    assert isinstance(mapped.train.pixels, np.memmap)
    assert not isinstance(held.train.pixels, np.memmap)
    assert mapped.files == held.files
    for split in ("train", "val", "test"):
        assert np.array_equal(getattr(mapped, split).pixels, getattr(held, split).pixels)
        assert np.array_equal(getattr(mapped, split).labels, getattr(held, split).labels)
    assert not isinstance(mapped.train.take(np.array([0])).pixels, np.memmap)


def test_more_than_the_disk_holds_is_refused(root: Path) -> None:
    with pytest.raises(DataError, match=r"GiB of pixels do not fit .* set TMPDIR"):
        _load(root, image_size=2**20, memory_limit=0)


def _only(root: Path, path: str) -> np.ndarray:
    """Pixels of one file, whichever split it is in."""
    data = _load(root)
    assert data.files is not None
    for split, names in data.files.items():
        if path in names:
            pixels: np.ndarray = getattr(data, split).pixels[names.index(path)]
            return pixels
    raise AssertionError(path)


def test_exif_orientation_is_applied(root: Path) -> None:
    upright = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown, turn the stored image a quarter clockwise
    Image.fromarray(np.rot90(upright)).save(root / "auk" / "turned.png", exif=exif)
    assert np.array_equal(_only(root, "auk/turned.png"), upright)


def test_grey_becomes_three_equal_channels(root: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
    Image.fromarray(grey).save(root / "auk" / "grey.png")
    assert np.array_equal(_only(root, "auk/grey.png"), np.stack([grey] * 3, axis=-1))


def test_sixteen_bits_are_scaled_to_eight(root: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), dtype=np.uint16)
    Image.fromarray(grey * 257).save(root / "auk" / "deep.png")
    assert np.array_equal(_only(root, "auk/deep.png"), np.stack([grey] * 3, axis=-1))


def test_resize_mode_says_what_becomes_of_the_sides(root: Path) -> None:
    wide = np.zeros((SIDE, 2 * SIDE, 3), np.uint8)
    wide[:, SIDE // 2 : SIDE // 2 + SIDE] = 255  # the centre crop is white
    for name in ("auk", "crow", "wren"):
        for path in (root / name).iterdir():
            Image.fromarray(wide).save(path)
    assert (_load(root).train.pixels == 255).all()
    squashed = _load(root, resize_mode="squash").train.pixels
    assert (squashed[:, :, [0, -1]] < 20).all()
    assert (squashed[:, :, 3:5] > 235).all()


class TestBrokenImages:
    @pytest.fixture
    def broken(self, root: Path) -> Path:
        """One truncated, one empty and one that is text."""
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        whole = root / "auk" / "truncated.png"
        Image.fromarray(noise).save(whole)
        whole.write_bytes(whole.read_bytes()[:2000])
        (root / "crow" / "empty.png").write_bytes(b"")
        (root / "wren" / "text.jpg").write_text("this is no JPEG")
        return root

    @pytest.mark.parametrize(
        ("kept", "reason"),
        [
            ("auk/truncated.png", "truncated or damaged"),
            ("crow/empty.png", "0 bytes"),
            ("wren/text.jpg", "not an image we read"),
        ],
    )
    def test_are_named_with_the_reason(self, broken: Path, kept: str, reason: str) -> None:
        for name in {"auk/truncated.png", "crow/empty.png", "wren/text.jpg"} - {kept}:
            (broken / name).unlink()
        with pytest.raises(DataError, match=f"{kept}: .*{reason}"):
            _load(broken)

    def test_are_skipped_and_listed_on_request(self, broken: Path) -> None:
        data = _load(broken, skip_broken=True)
        assert sorted(data.skipped) == ["auk/truncated.png", "crow/empty.png", "wren/text.jpg"]
        assert sorted(chain(*(_reds(data, split) for split in ("train", "val", "test")))) == list(range(60))

    def test_a_split_left_without_a_class_is_refused(self, tmp_path: Path) -> None:
        for split in ("train", "val", "test"):
            _fill(tmp_path / split, ("a", "b"), 3)
        for path in (tmp_path / "test" / "b").iterdir():
            path.write_bytes(b"")
        with pytest.raises(DataError, match="test has no readable image of class b"):
            _load(tmp_path, skip_broken=True)


class TestRefusals:
    def test_missing_path(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="nowhere: there is no such folder"):
            _load(tmp_path / "nowhere")

    def test_a_file_instead_of_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(DataError, match="file: not a folder"):
            _load(tmp_path / "file")

    def test_empty_folder(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=f"{re.escape(str(tmp_path))}: no class folders here"):
            _load(tmp_path)

    def test_one_class(self, tmp_path: Path) -> None:
        _fill(tmp_path, ("only",), 5)
        with pytest.raises(DataError, match="at least 2 classes, found only only"):
            _load(tmp_path)

    def test_a_class_without_images(self, root: Path) -> None:
        (root / "dodo").mkdir()
        with pytest.raises(DataError, match="dodo: no images in this class folder"):
            _load(root)

    @pytest.mark.parametrize(("layout", "count", "needed"), [("", 2, 3), ("train", 2, 3)])
    def test_a_class_too_small(self, tmp_path: Path, layout: str, count: int, needed: int) -> None:
        _fill(tmp_path / layout, ("a", "b"), 5)
        _fill(tmp_path / layout, ("c",), count)
        with pytest.raises(DataError, match=f"c: {count} images are too few to split; at least {needed} are"):
            _load(tmp_path)

    @pytest.mark.parametrize("split", ["val", "test"])
    def test_classes_that_differ(self, tmp_path: Path, split: str) -> None:
        _fill(tmp_path / "train", ("a", "b", "c"), 5)
        _fill(tmp_path / split, ("a", "c", "d"), 5)
        with pytest.raises(DataError, match=f"{split}: its classes are not those of train; differing: b, d"):
            _load(tmp_path)

    def test_a_split_of_another_name(self, tmp_path: Path) -> None:
        _fill(tmp_path / "train", ("a", "b"), 5)
        _fill(tmp_path / "validation", ("a", "b"), 5)
        with pytest.raises(DataError, match="validation: not expected beside"):
            _load(tmp_path)

    def test_no_image_size(self, root: Path) -> None:
        with pytest.raises(DataError, match="needs --image-size"):
            open_data(TrainConfig(arch="gcm", data=str(root)))


def test_settings_reach_the_reader(root: Path) -> None:
    (root / "auk" / "empty.png").write_bytes(b"")
    config = TrainConfig(
        arch="gcm",
        data="birds",
        data_root=str(root.parent),
        image_size=16,
        val_share=0.3,
        seed=4,
        skip_broken=True,
        resize_mode="squash",
    )
    opened = open_data(config)
    expected = load_folder(root, image_size=16, val_share=0.3, seed=4, skip_broken=True, resize_mode="squash")
    assert opened.size == (16, 16)
    assert opened.files == expected.files
    assert opened.skipped == ("auk/empty.png",)
    assert np.array_equal(opened.train.pixels, expected.train.pixels)
