from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from konkyo.errors import EmptyBody, UnsupportedImage
from konkyo.imaging import Decoded, Geometry, ResizeMode, prepare
from konkyo.training.errors import DataError
from konkyo.training.masks import read_mask


def _geometry(width: int, height: int, side: int, mode: ResizeMode = "center_crop") -> Geometry:
    decoded = Decoded(Image.new("RGB", (width, height)), 1, "PNG")
    return prepare(decoded, (side, side), mode=mode)[1]


@pytest.fixture(scope="session")
def mask_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("masks") / "mask.png"


def _read(path: Path, mask: npt.NDArray[Any], geometry: Geometry) -> npt.NDArray[np.uint8]:
    Image.fromarray(mask).save(path)
    return read_mask(path, geometry)


def test_the_same_size_is_kept(mask_path: Path) -> None:
    mask = np.random.default_rng(0).integers(0, 2, (8, 8), dtype=np.uint8)
    read = _read(mask_path, mask, _geometry(8, 8, 8))
    assert read.dtype == np.uint8
    assert np.array_equal(read, mask)


def test_a_single_pixel_stays_whatever_the_reduction(mask_path: Path) -> None:
    mask = np.zeros((96, 96), np.uint8)
    mask[50, 30] = 1
    read = _read(mask_path, mask, _geometry(96, 96, 8))
    assert np.argwhere(read).tolist() == [[4, 2]]


def test_every_pixel_that_covers_a_part_is_inside(mask_path: Path) -> None:
    """6 pixels become 4, each covering 1.5: pixel 1 of the mask lies on the first two."""
    mask = np.zeros((6, 6), np.uint8)
    mask[1, 3] = 255
    read = _read(mask_path, mask, _geometry(6, 6, 4))
    assert np.argwhere(read).tolist() == [[0, 2], [1, 2]]


def test_the_crop_is_the_images(mask_path: Path) -> None:
    """Of 12x4 pixels the middle 4x4 are seen."""
    mask = np.zeros((4, 12), np.uint8)
    mask[1, [3, 4, 7, 8]] = 1
    read = _read(mask_path, mask, _geometry(12, 4, 4))
    assert np.argwhere(read).tolist() == [[1, 0], [1, 3]]


def test_squash_keeps_all_of_it(mask_path: Path) -> None:
    mask = np.zeros((4, 12), np.uint8)
    mask[2, [0, 11]] = 1
    read = _read(mask_path, mask, _geometry(12, 4, 4, "squash"))
    assert np.argwhere(read).tolist() == [[2, 0], [2, 3]]


@pytest.mark.parametrize("factor", [2, 3])
def test_a_larger_mask_of_the_same_aspect_says_the_same(mask_path: Path, factor: int) -> None:
    mask = np.random.default_rng(1).integers(0, 2, (6, 9), dtype=np.uint8)
    geometry = _geometry(9, 6, 6)
    small = _read(mask_path, mask, geometry)
    large = _read(mask_path, mask.repeat(factor, 0).repeat(factor, 1), geometry)
    assert np.array_equal(small, mask[:, 1:8][:, [0, 1, 2, 3, 4, 5]] | small)
    assert np.array_equal(large, small)


@given(
    width=st.integers(1, 20), height=st.integers(1, 20), side=st.integers(1, 12),
    squash=st.booleans(), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_inside_is_what_overlaps_the_defect(
    mask_path: Path, width: int, height: int, side: int, squash: bool, seed: int
) -> None:
    """Against the overlap of rectangles, one pair of pixels at a time, in exact arithmetic."""
    mask = (np.random.default_rng(seed).random((height, width)) < 0.1).astype(np.uint8)
    read = _read(mask_path, mask, _geometry(width, height, side, "squash" if squash else "center_crop"))
    seen_width, seen_height = (width, height) if squash else (min(width, height),) * 2
    expected = np.zeros((side, side), np.uint8)
    for y, x in np.argwhere(mask).tolist():
        for i in range(side):
            for j in range(side):
                # In units of 1 / (2 side) pixels all edges are integers.
                left = (width - seen_width) * side + 2 * j * seen_width
                top = (height - seen_height) * side + 2 * i * seen_height
                across = left < 2 * side * (x + 1) and left + 2 * seen_width > 2 * side * x
                down = top < 2 * side * (y + 1) and top + 2 * seen_height > 2 * side * y
                expected[i, j] |= across and down
    assert np.array_equal(read, expected)


class TestFormats:
    """Whatever is not black is inside."""

    mask = np.array([[0, 1, 0], [0, 0, 2], [128, 0, 255]])

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_grey(self, mask_path: Path, dtype: type) -> None:
        read = _read(mask_path, self.mask.astype(dtype), _geometry(3, 3, 3))
        assert np.array_equal(read, self.mask > 0)

    def test_one_bit(self, mask_path: Path) -> None:
        assert np.array_equal(_read(mask_path, self.mask > 0, _geometry(3, 3, 3)), self.mask > 0)

    def test_any_colour(self, mask_path: Path) -> None:
        colours = np.zeros((3, 3, 3), np.uint8)
        colours[0, 1, 2] = colours[2, 0, 0] = 1
        read = _read(mask_path, colours, _geometry(3, 3, 3))
        assert np.argwhere(read).tolist() == [[0, 1], [2, 0]]

    def test_a_palette(self, mask_path: Path) -> None:
        image = Image.fromarray(np.array([[1, 0], [2, 1]], np.uint8), "L").convert("P")
        image.putpalette([255, 0, 0, 0, 0, 0, 0, 0, 1])
        image.save(mask_path)
        assert read_mask(mask_path, _geometry(2, 2, 2)).tolist() == [[0, 1], [1, 0]]

    def test_black_that_is_transparent(self, mask_path: Path) -> None:
        rgba = np.zeros((2, 2, 4), np.uint8)
        rgba[0, 1] = 255
        assert _read(mask_path, rgba, _geometry(2, 2, 2)).tolist() == [[0, 1], [0, 0]]


class TestRefusals:
    @pytest.mark.parametrize(("width", "height"), [(9, 6), (6, 10), (3, 2)])
    def test_another_aspect_ratio(self, mask_path: Path, width: int, height: int) -> None:
        with pytest.raises(DataError, match=f"mask of {width}x{height} pixels has .* image of 20x40"):
            _read(mask_path, np.zeros((height, width), np.uint8), _geometry(20, 40, 8))

    def test_half_of_odd_sides_is_the_same_aspect_ratio(self, mask_path: Path) -> None:
        assert not _read(mask_path, np.zeros((20, 10), np.uint8), _geometry(21, 41, 8)).any()

    def test_damage(self, tmp_path: Path) -> None:
        path = tmp_path / "mask.png"
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[:2000])
        with pytest.raises(DataError, match="the mask is damaged"):
            read_mask(path, _geometry(64, 64, 8))

    def test_not_an_image(self, tmp_path: Path) -> None:
        path = tmp_path / "mask.png"
        path.write_bytes(b"")
        with pytest.raises(EmptyBody):
            read_mask(path, _geometry(64, 64, 8))
        path.write_text("no image")
        with pytest.raises(UnsupportedImage):
            read_mask(path, _geometry(64, 64, 8))
