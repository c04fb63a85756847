"""Pictures of a study: the map where the network saw it, and nothing that tells whose it is."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from konkyo.imaging import Geometry
from konkyo.study.drawing import ALPHA, Canvas, common_window, to_png

WIDE = (200, 100)  # width and height of the original
MIDDLE = Geometry(WIDE, 1, (50, 0, 150, 100), (8, 8))
WHOLE = Geometry(WIDE, 1, (0, 0, 200, 100), (16, 16))
NEARER = Geometry(WIDE, 1, (60, 10, 140, 90), (8, 8))

LOW, HIGH = (0, 0, 128), (128, 0, 0)
"""Ends of the colours jet, RGB."""


def canvas(window: tuple[float, float, float, float], side: int = 80) -> Canvas:
    return Canvas(np.zeros((64, 64, 3), np.uint8), WIDE, window, side)


class TestWhatIsShown:
    def test_what_every_network_sees(self) -> None:
        assert common_window([WHOLE, MIDDLE, NEARER]) == (60, 10, 140, 90)
        assert common_window([WHOLE]) == (0, 0, 200, 100)

    def test_nothing_in_common(self) -> None:
        left = Geometry(WIDE, 1, (0, 0, 50, 100), (8, 8))
        with pytest.raises(ValueError, match="no common part"):
            common_window([left, MIDDLE])

    @pytest.mark.parametrize(
        ("window", "size"),
        [((0, 0, 200, 100), (80, 40)), ((50, 0, 150, 100), (80, 80)), ((0, 0, 50, 100), (40, 80))],
    )
    def test_its_longer_side_and_aspect(
        self, window: tuple[float, float, float, float], size: tuple[int, int]
    ) -> None:
        assert canvas(window).size == size

    def test_the_image_upright_and_in_place(self) -> None:
        """Red on the left half of the original, blue on the right, as it was squashed to a square."""
        squashed = np.zeros((64, 64, 3), np.uint8)
        squashed[:, :32, 0] = squashed[:, 32:, 2] = 255
        picture = Canvas(squashed, WIDE, (50, 0, 150, 100), 80).picture
        assert picture.shape == (80, 80, 3)
        assert (picture[:, :38] == (255, 0, 0)).all()
        assert (picture[:, 42:] == (0, 0, 255)).all()


class TestTheMap:
    def test_it_goes_from_one_end_of_the_colours_to_the_other(self) -> None:
        """By its own smallest and largest value; on black, half of the colour is left."""
        drawn = canvas(MIDDLE.crop).draw(np.array([[3.0, 5.0]], np.float32), MIDDLE)
        half = [tuple(round(value * ALPHA) for value in end) for end in (LOW, HIGH)]
        assert tuple(drawn[40, 0].tolist()) == half[0]
        assert tuple(drawn[40, -1].tolist()) == half[1]

    def test_neither_its_scale_nor_what_is_added_to_it_shows(self) -> None:
        map_ = np.random.default_rng(0).random((4, 4), np.float32)
        one, two = (canvas(MIDDLE.crop).draw(values, MIDDLE) for values in (map_, 32 * map_ + 2))
        assert np.abs(one.astype(int) - two).max() <= 3  # where rounding falls on the other side

    def test_it_lies_where_its_network_looked(self) -> None:
        """One place of the original in two maps: of the whole, 16 x 8 cells, and of the middle, 8 x 8."""
        of_whole, of_middle = np.zeros((8, 16), np.float32), np.zeros((8, 8), np.float32)
        of_whole[3, 9] = 1  # around 118.75, 43.75
        of_middle[3, 5] = 1  # around 118.75, 43.75
        shared = common_window([WHOLE, MIDDLE])
        shown = [canvas(shared).draw(map_, seen) for map_, seen in ((of_whole, WHOLE), (of_middle, MIDDLE))]
        assert (shown[0] == shown[1]).all()
        rows, columns = np.nonzero((shown[0][..., 1:] == 0).all(axis=2) & (shown[0][..., 0] > 0))  # dark red
        assert rows.mean() + 0.5 == pytest.approx(0.8 * 43.75, abs=0.5)
        assert columns.mean() + 0.5 == pytest.approx(0.8 * (118.75 - 50), abs=0.5)

    def test_only_what_is_shown_sets_the_ends(self) -> None:
        """A peak that lies outside of what all networks see would make the rest pale."""
        map_ = np.zeros((8, 16), np.float32)
        map_[:, 6:10] = 1
        with_peak = map_.copy()
        with_peak[0, 0] = 100
        one, two = (canvas(MIDDLE.crop).draw(values, WHOLE) for values in (map_, with_peak))
        assert (one == two).all()

    def test_a_map_without_differences_is_blue(self) -> None:
        for value in (0, 7):
            drawn = canvas(MIDDLE.crop).draw(np.full((4, 4), value, np.float32), MIDDLE)
            assert (drawn == (0, 0, 64)).all()

    def test_a_map_that_is_no_numbers(self) -> None:
        with pytest.raises(ValueError, match="not finite"):
            canvas(MIDDLE.crop).draw(np.array([[0, np.nan]], np.float32), MIDDLE)


def chunks(png: bytes) -> Iterator[bytes]:
    place = 8
    while place < len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        yield png[place + 4 : place + 8]
        place += 12 + length


def test_files_hold_pixels_and_nothing_else() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    png = to_png(picture)
    assert set(chunks(png)) == {b"IHDR", b"IDAT", b"IEND"}
    back = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert back is not None
    assert (back[..., ::-1] == picture).all()
