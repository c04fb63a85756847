"""Photos with masks of concepts from a folder, in both layouts, brought to the input of a network."""

import json

import numpy as np
import pytest
from PIL import Image

from konkyo.evaluation.concepts import open_concepts
from konkyo.models.card import InputSpec

SPEC = InputSpec(width=4, height=4, interpolation="nearest", mean=(0, 0, 0), std=(1, 1, 1))
PIXELS = np.zeros((4, 8, 3), np.uint8)
PIXELS[:, 2:6] = np.arange(4 * 4 * 3).reshape(4, 4, 3)  # what the crop keeps
SKY = np.zeros((4, 8), np.uint8)
SKY[:2] = 255
DOG = np.zeros((4, 8), np.uint8)
DOG[3, 5:] = 1


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path):
    save(tmp_path / "images" / "a.png", PIXELS)
    save(tmp_path / "images" / "b.png", PIXELS)
    save(tmp_path / "masks" / "sky" / "a.png", SKY)
    save(tmp_path / "masks" / "dog" / "a.png", DOG)
    save(tmp_path / "masks" / "dog" / "b.png", np.zeros_like(DOG))
    return tmp_path


def panoptic(root, **change):
    """The same content as in ``folder``; two segments of the dog's category, one with a large number."""
    save(root / "images" / "a.png", PIXELS)
    save(root / "images" / "b.png", PIXELS)
    segments = np.zeros((4, 8, 3), np.uint8)
    segments[:2] = (7, 0, 0)
    segments[3, 5] = (1, 2, 3)  # 1 + 2 * 256 + 3 * 65536
    segments[3, 6:] = (0, 1, 0)
    save(root / "masks" / "a.png", segments)
    save(root / "masks" / "b.png", np.zeros_like(segments))
    info = [{"id": 7, "category_id": 1}, {"id": 197121, "category_id": 2}, {"id": 256, "category_id": 2}]
    content = {
        "images": [{"id": 5, "file_name": "a.png"}, {"id": 6, "file_name": "b.png"}],
        "annotations": [
            {"image_id": 5, "file_name": "a.png", "segments_info": info},
            {"image_id": 6, "file_name": "b.png", "segments_info": []},
        ],
        "categories": [{"id": 1, "name": "sky"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "cat"}],
    }
    (root / "panoptic.json").write_text(json.dumps(content | change))
    return root


def by_name(data, index, spec=SPEC):
    return {data.concepts[concept]: mask for concept, mask in data.read(index, spec).masks.items()}


def test_masks_are_cropped_as_their_images_are(folder):
    data = open_concepts(folder)
    assert (len(data), data.concepts) == (2, ("dog", "sky"))
    assert np.array_equal(data.read(0, SPEC).pixels, PIXELS[:, 2:6])
    masks = by_name(data, 0)
    assert masks.keys() == {"dog", "sky"}
    assert np.array_equal(masks["sky"], SKY[:, 2:6] > 0)
    assert np.array_equal(masks["dog"], DOG[:, 2:6] > 0)
    assert by_name(data, 1) == {}


def test_a_concept_outside_the_crop_is_not_there(folder):
    spec = SPEC.model_copy(update={"crop_fraction": 0.5})  # rows 1 and 2 alone
    assert by_name(open_concepts(folder), 0, spec).keys() == {"sky"}


def test_masks_keep_their_place_when_resized(folder):
    spec = SPEC.model_copy(update={"resize_mode": "squash", "width": 16, "height": 8})
    assert np.array_equal(by_name(open_concepts(folder), 0, spec)["dog"], np.kron(DOG, np.ones((2, 2))) > 0)


def test_masks_may_be_smaller_than_their_images(folder):
    save(folder / "masks" / "sky" / "a.png", SKY[::2, ::2])
    assert np.array_equal(by_name(open_concepts(folder), 0)["sky"], SKY[:, 2:6] > 0)


@pytest.mark.parametrize("values", [DOG.astype(np.uint16), DOG > 0, np.repeat(DOG[..., None], 3, axis=2)])
def test_what_is_not_black_is_inside(folder, values):
    save(folder / "masks" / "dog" / "a.png", values)
    assert np.array_equal(by_name(open_concepts(folder), 0)["dog"], DOG[:, 2:6] > 0)


def test_panoptic_is_the_same(folder, tmp_path):
    data, other = open_concepts(folder), open_concepts(panoptic(tmp_path / "panoptic"))
    assert other.concepts == data.concepts
    for index in range(2):
        expected = by_name(data, index)
        found = by_name(other, index)
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_what_is_wrong_is_named(folder, tmp_path):
    with pytest.raises(ValueError, match="images: no images here"):
        open_concepts(tmp_path / "nowhere")
    save(tmp_path / "bare" / "images" / "a.png", PIXELS)
    with pytest.raises(ValueError, match=r"bare: no masks; expected masks/CONCEPT/NAME.png"):
        open_concepts(tmp_path / "bare")
    save(folder / "masks" / "sky" / "b.png", SKY[:, :4])
    with pytest.raises(ValueError, match=r"sky/b.png: the mask of 4x4 pixels has another aspect ratio"):
        open_concepts(folder).read(1, SPEC)
    (folder / "images" / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"images/a.png: the image is empty"):
        open_concepts(folder).read(0, SPEC)
    save(folder / "masks" / "sky" / "c.png", SKY)
    with pytest.raises(ValueError, match=r"sky/c.png: there is no image c"):
        open_concepts(folder)


def test_what_is_wrong_with_a_panoptic_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"panoptic.json: has no annotation of a.png"):
        open_concepts(panoptic(tmp_path, annotations=[]))
    with pytest.raises(ValueError, match=r"panoptic.json: not a panoptic file: KeyError"):
        open_concepts(panoptic(tmp_path, images=[]))
    (tmp_path / "panoptic.json").write_text("{")
    with pytest.raises(ValueError, match=r"panoptic.json: not a panoptic file: JSONDecodeError"):
        open_concepts(tmp_path)
