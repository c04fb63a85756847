from __future__ import annotations

import numpy as np
import pytest

from konkyo.training.config import TrainConfig
from konkyo.training.data import SPLITS, ImageData
from konkyo.training.errors import DataError
from konkyo.training.sources import SURFACES, open_data
from konkyo.training.surfaces import LABELS, draw_surfaces, generate_surfaces


def _all(data: ImageData, name: str) -> np.ndarray:
    return np.concatenate([getattr(getattr(data, split), name) for split in SPLITS])


@pytest.mark.parametrize("size", [8, 33, 64])
def test_the_mask_is_exactly_where_the_defect_changes_the_surface(size: int) -> None:
    drawn = draw_surfaces(np.arange(200) % 4, size, np.random.default_rng(0))
    changed = drawn.pixels != drawn.clean
    assert np.array_equal(changed.any(axis=3), drawn.masks == 1)
    assert np.array_equal(changed.all(axis=3), drawn.masks == 1)


def test_the_surface_does_not_depend_on_the_defect() -> None:
    """The same draws with another class give the same surface, so no texture tells the class."""
    first, other = (draw_surfaces(np.full(20, label), 32, np.random.default_rng(5)).clean for label in (0, 3))
    assert np.array_equal(first, other)


def test_pits_and_stains_darken_and_scratches_go_one_way() -> None:
    drawn = draw_surfaces(np.repeat([1, 2, 3], 50), 48, np.random.default_rng(1))
    for position, (clean, pixels, mask) in enumerate(
        zip(drawn.clean, drawn.pixels, drawn.masks == 1, strict=True)
    ):
        change = pixels[mask].astype(int) - clean[mask]
        if position // 50 == 1:
            assert (np.abs(change) >= 29).all()
            assert np.ptp(np.sign(change)) == 0
        else:
            assert (change < 0).all()
        if position // 50 == 2:
            assert (change[:, 2] < change[:, 0]).all()  # brown: blue loses most


def test_defects_are_from_a_few_pixels_to_half_of_the_image() -> None:
    data = generate_surfaces(800, 64)
    labels, area = _all(data, "labels"), _all(data, "masks").sum(axis=(1, 2), dtype=int)
    assert (area[labels == 0] == 0).all()
    assert area[labels > 0].min() == 4
    assert area.max() <= 64 * 64 / 2
    assert area.max() > 0.4 * 64 * 64
    for label in (1, 2, 3):
        low, high = np.percentile(area[labels == label], [10, 90])
        assert high > 8 * low


def test_defects_are_everywhere() -> None:
    assert (_all(generate_surfaces(2000, 16), "masks").mean(axis=0) > 0.01).all()


@pytest.mark.parametrize(("free", "labels"), [(True, LABELS), (False, ("pit", "scratch", "stain"))])
def test_classes_are_equally_frequent_in_every_split(free: bool, labels: tuple[str, ...]) -> None:
    data = generate_surfaces(120 * len(labels), 16, free=free)
    assert data.labels == labels
    for split, count in (("train", 84), ("val", 12), ("test", 24)):
        assert np.bincount(getattr(data, split).labels).tolist() == [count] * len(labels)
    has_defect = _all(data, "masks").max(axis=(1, 2)) == 1
    assert np.array_equal(has_defect, _all(data, "labels") >= free)


def test_the_seed_decides() -> None:
    first, again, other = (generate_surfaces(80, 16, seed) for seed in (1, 1, 2))
    for name in ("pixels", "labels", "masks"):
        assert np.array_equal(_all(first, name), _all(again, name))
    assert not np.array_equal(_all(first, "pixels"), _all(other, "pixels"))


def test_the_split_seed_moves_the_validation_and_never_the_test() -> None:
    first, other = (generate_surfaces(160, 16, split_seed=seed) for seed in (1, 2))
    assert np.array_equal(first.test.pixels, other.test.pixels)
    assert not np.array_equal(first.val.pixels, other.val.pixels)


def test_no_two_images_are_the_same() -> None:
    pixels = _all(generate_surfaces(600, 64), "pixels").reshape(600, -1)
    assert len(np.unique(pixels, axis=0)) == 600


def test_images_too_small_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 8 pixels, not 7"):
        generate_surfaces(80, 7)


def test_are_opened_by_name() -> None:
    data = open_data(TrainConfig(arch="gcm", data="surfaces", image_size=16, val_share=0.2, seed=3))
    expected = generate_surfaces(SURFACES, 16, val_share=0.2, split_seed=3)
    assert (data.name, data.licence) == ("surfaces (synthetic)", "Apache-2.0")
    for name in ("pixels", "labels", "masks"):
        assert np.array_equal(_all(data, name), _all(expected, name))


def test_have_64_pixels_and_no_folds() -> None:
    assert open_data(TrainConfig(arch="gcm", data="surfaces")).size == (64, 64)
    with pytest.raises(DataError, match="surfaces has a test split of its own; leave out --fold"):
        open_data(TrainConfig(arch="gcm", data="surfaces", fold=1))
