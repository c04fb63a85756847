import numpy as np
import pytest
from PIL import Image

from konkyo.converters.errors import ConversionError
from konkyo.converters.labels import imagenet_labels
from konkyo.converters.photos import MOST, SHIPPED, LabelledPhotos, sample_photos
from konkyo.models.card import InputSpec

SPEC = InputSpec(width=8, height=8, crop_fraction=0.5, interpolation="nearest", mean=(0, 0, 0), std=(1, 1, 1))


def paint(path, colour):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[4:12, 12:20] = colour  # half of the sides of the square in the middle
    Image.fromarray(pixels).save(path)


def test_photos_are_cropped_and_resized_as_they_are_served(tmp_path):
    paint(tmp_path / "b.png", (0, 9, 0))
    paint(tmp_path / "below" / "a.PNG", (7, 0, 0))
    (tmp_path / "notes.txt").write_text("nothing")
    found = sample_photos(tmp_path, SPEC)
    assert found.shape == (2, 8, 8, 3)
    assert [np.unique(photo.reshape(-1, 3), axis=0).tolist() for photo in found] == [[[0, 9, 0]], [[7, 0, 0]]]


def test_of_many_photos_some_are_taken(tmp_path):
    for number in range(MOST + 1):
        paint(tmp_path / f"{number:03}.png", (number, 0, 0))
    assert sample_photos(tmp_path, SPEC)[:, 0, 0, 0].tolist() == list(range(0, MOST + 1, 2))


def test_without_a_folder_there_are_those_that_ship_and_as_many_synthetic_ones():
    number = len(list(SHIPPED.glob("*.jpg")))
    found = sample_photos(None, SPEC)
    assert len(found) == 2 * number
    assert len(np.unique(found.reshape(len(found), -1), axis=0)) == len(found)


def test_a_folder_without_photos_is_refused(tmp_path):
    with pytest.raises(ConversionError, match="there is no image here"):
        sample_photos(tmp_path, SPEC)


def test_folders_are_named_by_label_by_index_or_by_wordnet(tmp_path):
    for place, colour in (("tench", 1), ("n01443537", 2), ("2", 3), ("tench/more", 4)):
        paint(tmp_path / place / "a.png", (colour, 0, 0))
    found = LabelledPhotos(tmp_path, imagenet_labels(), SPEC)
    assert len(found) == 4
    assert dict(zip(found[0:4][:, 0, 0, 0].tolist(), found.labels.tolist(), strict=True)) == {
        1: 0, 2: 1, 3: 2, 4: 0,
    }  # fmt: skip


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(ConversionError, match="no image in a folder named by its class"):
        LabelledPhotos(tmp_path, ("good", "bad"), SPEC)
    paint(tmp_path / "n01443537" / "a.png", (1, 0, 0))
    with pytest.raises(ConversionError, match="the network has no class 'n01443537'"):
        LabelledPhotos(tmp_path, ("good", "bad"), SPEC)
