"""The readers on files of the published structure: full size, but each pixel says where it belongs."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10

from konkyo.training.cifar import LABELS, load_cifar10
from konkyo.training.config import TrainConfig
from konkyo.training.data import Images
from konkyo.training.errors import DataError
from konkyo.training.sources import open_data

FILES = (*(f"data_batch_{i}.png" for i in range(1, 6)), "test_batch.png")


def _labels(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    labels: npt.NDArray[np.int64] = (numbers * 7 + numbers // 10) % 10
    return labels


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Red and green hold the number of the image and the column, blue the batch and the row."""
    folder = tmp_path_factory.mktemp("cifar")
    number, row, column = np.ogrid[:10_000, :32, :32]
    pixels = np.empty((10_000, 32, 32, 3), np.uint8)
    pixels[..., 0] = number % 256
    pixels[..., 1] = number // 256 + 64 * (column // 8)
    for batch, name in enumerate(FILES):
        pixels[..., 2] = 40 * batch + row
        Image.fromarray(pixels.reshape(10_000, 1024, 3)).save(folder / name, compress_level=1)
    labels = _labels(np.arange(60_000)).tolist()
    (folder / "train_lables.json").write_text(json.dumps(labels[:50_000]))
    (folder / "test_lables.json").write_text(json.dumps(labels[50_000:]))
    return folder


@pytest.fixture
def altered(package: Path, tmp_path: Path) -> Path:
    """The package again, in which a test may replace files."""
    for file in package.iterdir():
        (tmp_path / file.name).symlink_to(file)
    return tmp_path


def _numbers(images: Images) -> npt.NDArray[np.int64]:
    """Position of each image in the published order, by its pixels; every pixel is checked."""
    red, green, blue = np.moveaxis(images.pixels, -1, 0)
    assert (green // 64 == np.arange(32) // 8).all()
    assert (blue % 40 == np.arange(32)[:, None]).all()
    numbers = np.zeros(len(images), np.int64)
    for digit, worth in ((red, 1), (green % 64, 256), (blue // 40, 10_000)):
        assert (digit == digit[:, :1, :1]).all()
        numbers += worth * digit[:, 0, 0].astype(np.int64)
    return numbers


def test_every_pixel_and_label_arrives(package: Path) -> None:
    data = load_cifar10(package, val_share=0.2, seed=5)
    assert data.labels == LABELS
    assert data.size == (32, 32)
    train, val, test = map(_numbers, (data.train, data.val, data.test))
    assert test.tolist() == list(range(50_000, 60_000))
    assert len(val) == 10_000
    assert sorted([*train, *val]) == list(range(50_000))
    for images, numbers in ((data.train, train), (data.val, val), (data.test, test)):
        assert np.array_equal(images.labels, _labels(numbers))
    assert np.bincount(data.val.labels).tolist() == [1000] * 10


@pytest.mark.parametrize("inside", ["cifar10", "cifar10/package", "package"])
def test_is_found_under_the_data_root(package: Path, tmp_path: Path, inside: str) -> None:
    folder = tmp_path / inside
    folder.parent.mkdir(exist_ok=True)
    folder.symlink_to(package)
    data = open_data(TrainConfig(arch="gcm", data_root=str(tmp_path)))
    assert (len(data.train), len(data.val), len(data.test)) == (45_000, 5_000, 10_000)


def test_is_looked_for_in_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"data: no CIFAR-10 here; expected data_batch_1\.png"):
        open_data(TrainConfig(arch="gcm"))


def test_has_a_size_of_its_own() -> None:
    with pytest.raises(DataError, match="32x32"):
        open_data(TrainConfig(arch="gcm", image_size=64))


@pytest.mark.parametrize("name", ["data_batch_3.png", "test_batch.png", "train_lables.json"])
def test_a_missing_file_is_named(altered: Path, name: str) -> None:
    (altered / name).unlink()
    with pytest.raises(DataError, match=f"{name}: cannot be read"):
        load_cifar10(altered)


def test_a_truncated_batch_is_named(altered: Path) -> None:
    whole = (altered / "data_batch_1.png").read_bytes()
    (altered / "data_batch_1.png").unlink()
    (altered / "data_batch_1.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"data_batch_1\.png: cannot be read: .*truncated"):
        load_cifar10(altered)


def test_a_batch_of_another_shape_is_refused(altered: Path) -> None:
    (altered / "data_batch_1.png").unlink()
    Image.new("RGB", (1024, 999)).save(altered / "data_batch_1.png")
    with pytest.raises(DataError, match="expected 10,000 rows of 1,024 pixels, found 999 of 1024"):
        load_cifar10(altered)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[0, 1", "cannot be read"),
        ("{}", "expected a list of class indices from 0 to 9"),
        ("[0, 10]", "expected a list of class indices from 0 to 9"),
        ("[-1]", "expected a list of class indices from 0 to 9"),
        ("[1.5]", "expected a list of class indices from 0 to 9"),
        ("[[1]]", "expected a list of class indices from 0 to 9"),
        ("[]", "expected 50000 labels, found 0"),
    ],
)
def test_bad_labels_are_refused(altered: Path, content: str, message: str) -> None:
    (altered / "train_lables.json").unlink()
    (altered / "train_lables.json").write_text(content)
    with pytest.raises(DataError, match=f"train_lables.json: {message}"):
        load_cifar10(altered)


@pytest.mark.parametrize("given", ["", "cifar-10-batches-py"])
@pytest.mark.parametrize("content", [None, b"not the published bytes"])
def test_pickles_are_refused_unless_they_are_the_published_ones(
    tmp_path: Path, content: bytes | None, given: str
) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"):
        if content is not None:
            (folder / name).write_bytes(content)
    with pytest.raises(DataError, match="cifar-10-batches-py: incomplete or altered"):
        load_cifar10(tmp_path / given)


def test_torchvisions_files_hold_the_same_images(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same pixels in torchvision's layout; its digests are exchanged for those of these files."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    ours = load_cifar10(package)
    labels = _labels(np.arange(60_000)).tolist()
    digests: list[tuple[str, str]] = []
    for batch, name in enumerate(FILES):
        with Image.open(package / name) as picture:
            pixels = np.asarray(picture).reshape(10_000, 32, 32, 3)
        planes = pixels.transpose(0, 3, 1, 2).reshape(10_000, 3072)
        part = {"data": planes, "labels": labels[10_000 * batch : 10_000 * (batch + 1)]}
        digests.append(_pickle(folder / Path(name).stem, part))
    monkeypatch.setattr(CIFAR10, "train_list", [list(item) for item in digests[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [list(item) for item in digests[5:]])
    _, digest = _pickle(folder / "batches.meta", {"label_names": list(LABELS)})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": digest})

    theirs = load_cifar10(tmp_path)
    for split in ("train", "val", "test"):
        expected, found = getattr(ours, split), getattr(theirs, split)
        assert np.array_equal(found.pixels, expected.pixels)
        assert np.array_equal(found.labels, expected.labels)


def _pickle(path: Path, content: dict[str, object]) -> tuple[str, str]:
    data = pickle.dumps(content)
    path.write_bytes(data)
    return path.name, hashlib.md5(data).hexdigest()
