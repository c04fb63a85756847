"""Units against concepts: networks of which it is known what each unit stands for, and counts by hand."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from konkyo.evaluation.concepts import open_concepts
from konkyo.evaluation.dissection import dissect
from konkyo.models.card import InputSpec
from konkyo.models.classifier import Classifier
from konkyo.models.cut import Hook


class Colours(nn.Module):
    """Its units are the colours of the image, at the grid that ``features`` makes of it."""

    def __init__(self, features: nn.Module | None = None) -> None:
        super().__init__()
        self.features = features or nn.Identity()

    def hook(self, layer: str | None = None) -> Hook:
        return Hook(self, layer or "features")

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.features(image).mean(dim=(2, 3))


def spec(side, **change):
    return InputSpec(
        width=side, height=side, interpolation="nearest", mean=(0, 0, 0), std=(1, 1, 1), **change
    )


def write(root, images, masks):
    """Images (n, H, W, 3) and masks {concept: (n, H, W)} as a folder of concepts."""
    for folder in ("images", *(f"masks/{concept}" for concept in masks)):
        (root / folder).mkdir(parents=True)
    for index, pixels in enumerate(images):
        Image.fromarray(pixels).save(root / "images" / f"{index}.png")
        for concept, each in masks.items():
            if each[index].any():
                Image.fromarray(each[index]).save(root / "masks" / concept / f"{index}.png")
    return open_concepts(root)


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """A red and a green square in each of 12 images of 48x32 pixels; noise in the blue channel."""
    generator = np.random.default_rng(0)
    images = np.zeros((12, 32, 48, 3), np.uint8)
    images[..., 2] = generator.integers(0, 256, images.shape[:3])
    for index, image in enumerate(images):
        x = 4 * index % 40
        image[3:13, x : x + 8, 0] = 255
        if index % 3:
            image[17:29, 40 - x : 48 - x, 1] = 255
    masks = {"red": images[..., 0] > 0, "green": images[..., 1] > 0, "middle": np.zeros((12, 32, 48), bool)}
    masks["middle"][:, 12:20] = True
    return write(tmp_path_factory.mktemp("squares"), images, masks)


@pytest.mark.parametrize("change", [{}, {"crop_fraction": 0.5}, {"resize_mode": "squash"}])
@pytest.mark.parametrize("batch_size", [5, 16])
def test_a_unit_that_is_a_concept_has_its_name_and_noise_has_none(squares, change, batch_size):
    found = dissect(Classifier(Colours()), squares, spec(32, **change), batch_size=batch_size)
    assert found.layer == "features"
    assert found.concepts == ("green", "middle", "red")
    assert found.iou[0, 2] == 1
    assert found.iou[1, 0] == 1
    assert found.iou[0, 0] == 0
    names = found.names()
    assert {unit: (name.concept, name.iou) for unit, name in names.neurons.items()} == {
        0: ("red", 1.0), 1: ("green", 1.0),
    }  # fmt: skip
    assert (names.layer, names.threshold) == ("features", 0.05)
    assert found.names(0.999).neurons == names.neurons
    assert found.names(0).neurons.keys() == {0, 1, 2}


def test_with_the_masks_of_other_images_the_squares_are_elsewhere(squares):
    found = dissect(Classifier(Colours()), squares, spec(32))
    images = [squares.read(index, spec(32)) for index in range(12)]
    red = [image.masks.get(2, np.zeros((32, 32), bool)) for image in images]
    shared = sum((red[index - 1] & red[index]).sum() for index in range(12))
    total = sum(mask.sum() for mask in red)
    assert found.chance[0, 2] == pytest.approx(shared / (2 * total - shared), abs=1e-12)
    assert 0 < found.chance[0, 2] < 0.5
    assert found.by_chance(0.05) == (found.chance.max(axis=1) > 0.05).sum()
    assert found.by_chance(0.9) == 0


def test_overlap_by_hand(tmp_path):
    pixels = np.zeros((1, 4, 4, 3), np.uint8)
    pixels[0, :, :, 0] = np.arange(16).reshape(4, 4)
    mask = np.zeros((1, 4, 4), bool)
    mask[0, 3, 1:] = True  # 13, 14, 15
    mask[0, 0, 0] = True  # 0
    found = dissect(Classifier(Colours()), write(tmp_path, pixels, {"corner": mask}), spec(4), quantile=0.25)
    # 4 of 16 values may lie over the level, which is 11: 5 pixels, 3 of them in the mask of 4.
    assert found.iou[0] == 3 / (5 + 4 - 3)
    assert found.iou[1] == 0  # a unit that never rises


def test_enlarged_by_hand(tmp_path):
    pixels = np.zeros((1, 4, 4, 3), np.uint8)
    pixels[0, :, 2:, 0] = 255
    mask = pixels[..., 0] > 0
    data = write(tmp_path, pixels, {"right": mask})
    network = Classifier(Colours(nn.AvgPool2d(2)))
    # Each row is 0, 1 on the grid and 0, 1/4, 3/4, 1 enlarged. With no value over the level it is 1.
    assert dissect(network, data, spec(4)).iou[0] == 4 / 8
    # With half of them over it, it is 0, the lowest, and the unit is active where it rises from there.
    assert dissect(network, data, spec(4), quantile=0.5).iou[0] == 8 / 12


def test_what_is_refused(squares):
    with pytest.raises(ValueError, match="a quantile lies between 0 and 1, not at 1"):
        dissect(Classifier(Colours()), squares, spec(32), quantile=1)
    with pytest.raises(TypeError, match="Conv2d does not say at which layer"):
        dissect(Classifier(nn.Conv2d(3, 3, 1)), squares, spec(32))
