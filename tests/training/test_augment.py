from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from konkyo.training.augment import crop_and_flip, vary_light


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _augment(images: Tensor, **settings: Any) -> Tensor:
    return crop_and_flip(images, None, **settings)[0]


def _possible(image: np.ndarray, padding: int, *, flip: bool) -> dict[tuple[int, int, bool], np.ndarray]:
    """Every shift and mirror image, by NumPy's own reflection."""
    height, width, _ = image.shape
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)), mode="reflect")
    shifts = range(2 * padding + 1)
    found = {(y, x, False): padded[y : y + height, x : x + width] for y in shifts for x in shifts}
    if flip:
        found |= {(y, x, True): crop[:, ::-1] for (y, x, _), crop in found.items()}
    return found


def test_reflection_by_hand() -> None:
    image = torch.tensor([[0, 1, 2], [3, 4, 5], [6, 7, 8]], dtype=torch.uint8).reshape(1, 3, 3, 1)
    by_shift = {
        (0, 0): [[4, 3, 4], [1, 0, 1], [4, 3, 4]],
        (0, 1): [[3, 4, 5], [0, 1, 2], [3, 4, 5]],
        (0, 2): [[4, 5, 4], [1, 2, 1], [4, 5, 4]],
        (1, 0): [[1, 0, 1], [4, 3, 4], [7, 6, 7]],
        (1, 1): [[0, 1, 2], [3, 4, 5], [6, 7, 8]],
        (1, 2): [[1, 2, 1], [4, 5, 4], [7, 8, 7]],
        (2, 0): [[4, 3, 4], [7, 6, 7], [4, 3, 4]],
        (2, 1): [[3, 4, 5], [6, 7, 8], [3, 4, 5]],
        (2, 2): [[4, 5, 4], [7, 8, 7], [4, 5, 4]],
    }
    seen = set()
    for seed in range(60):
        dy, dx = torch.randint(0, 3, (2, 1), generator=_seeded(seed)).flatten().tolist()
        output = _augment(image, padding=1, flip=False, generator=_seeded(seed))
        assert output[0, :, :, 0].tolist() == by_shift[dy, dx]
        seen.add((dy, dx))
    assert seen == by_shift.keys()


def test_nothing_asked_is_nothing_done() -> None:
    images = torch.randint(0, 256, (5, 4, 6, 3), dtype=torch.uint8, generator=_seeded())
    output = _augment(images, padding=0, flip=False, generator=_seeded())
    assert output.dtype == torch.uint8
    assert torch.equal(output, images)


def test_mirrors_about_half_and_only_left_to_right() -> None:
    image = torch.arange(6, dtype=torch.uint8).reshape(1, 2, 3, 1)
    output = _augment(image.expand(400, -1, -1, -1), padding=0, flip=True, generator=_seeded())
    mirrored = (output == image.flip(2)).flatten(1).all(dim=1)
    same = (output == image).flatten(1).all(dim=1)
    assert (mirrored ^ same).all()
    assert 160 < int(mirrored.sum()) < 240


@given(
    height=st.integers(2, 7),
    width=st.integers(2, 7),
    share=st.floats(0, 0.999),
    flip=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_every_output_is_a_shift_or_mirror_of_its_own_image(
    height: int, width: int, share: float, flip: bool, seed: int
) -> None:
    padding = int(share * min(height, width))
    images = np.random.default_rng(seed).integers(0, 256, (3, height, width, 3), dtype=np.uint8)
    output = _augment(torch.from_numpy(images), padding=padding, flip=flip, generator=_seeded(seed))
    for image, found in zip(images, output.numpy(), strict=True):
        assert any(np.array_equal(found, crop) for crop in _possible(image, padding, flip=flip).values())


def test_every_shift_is_drawn_about_as_often() -> None:
    image = np.arange(4 * 4, dtype=np.uint8).reshape(4, 4, 1)
    batch = torch.from_numpy(image).expand(1800, -1, -1, -1)
    output = _augment(batch, padding=1, flip=True, generator=_seeded()).numpy()
    for crop in _possible(image, 1, flip=True).values():
        assert 60 < sum(np.array_equal(found, crop) for found in output) < 140  # 100 expected


def test_the_generator_alone_decides() -> None:
    images = torch.randint(0, 256, (8, 6, 6, 3), dtype=torch.uint8, generator=_seeded(1))
    torch.manual_seed(5)
    first = _augment(images, padding=2, flip=True, generator=_seeded(7))
    torch.manual_seed(6)
    again = _augment(images, padding=2, flip=True, generator=_seeded(7))
    other = _augment(images, padding=2, flip=True, generator=_seeded(8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_keeps_the_type(dtype: torch.dtype) -> None:
    images = torch.zeros(2, 4, 4, 1, dtype=dtype)
    assert _augment(images, padding=1, flip=True, generator=_seeded()).dtype == dtype


def test_without_masks_there_are_none() -> None:
    images = torch.zeros(2, 4, 4, 3, dtype=torch.uint8)
    assert crop_and_flip(images, None, padding=1, flip=True, generator=_seeded())[1] is None


@given(
    height=st.integers(2, 7),
    width=st.integers(2, 7),
    share=st.floats(0, 0.999),
    flip=st.booleans(),
    flip_vertical=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_masks_move_as_their_images(
    height: int, width: int, share: float, flip: bool, flip_vertical: bool, seed: int
) -> None:
    """Each mask holds the number of its pixel, and so does the image."""
    masks = torch.arange(5 * height * width, dtype=torch.int16).reshape(5, height, width)
    images = masks[..., None].repeat(1, 1, 1, 3).float()
    found, moved = crop_and_flip(
        images,
        masks,
        padding=int(share * min(height, width)),
        flip=flip,
        flip_vertical=flip_vertical,
        generator=_seeded(seed),
    )
    assert moved is not None
    assert moved.dtype == torch.int16
    assert torch.equal(found, moved[..., None].repeat(1, 1, 1, 3).float())


def test_turned_upside_down_about_half_and_independently_of_left_and_right() -> None:
    image = torch.arange(6, dtype=torch.uint8).reshape(1, 2, 3, 1)
    batch = image.expand(800, -1, -1, -1)
    output = _augment(batch, padding=0, flip=True, flip_vertical=True, generator=_seeded())
    kinds = (image, image.flip(2), image.flip(1), image.flip(1, 2))
    counts = [int((output == kind).flatten(1).all(dim=1).sum()) for kind in kinds]
    assert sum(counts) == 800
    assert all(140 < count < 260 for count in counts)


@pytest.mark.parametrize("flip", [False, True])
def test_turning_upside_down_leaves_the_other_draws_as_they_are(flip: bool) -> None:
    images = torch.randint(0, 256, (50, 6, 5, 3), dtype=torch.uint8, generator=_seeded(1))
    images = torch.cat([images, images.flip(1)], dim=1)  # upside down it is the same
    without, turned = (
        _augment(images, padding=0, flip=flip, flip_vertical=vertical, generator=_seeded(2))
        for vertical in (False, True)
    )
    assert torch.equal(without, turned)


def test_the_draws_of_earlier_runs_stay() -> None:
    """Shifts first, then mirrors: the order on which the runs that were made rest."""
    generator = _seeded(11)
    dy, dx = torch.randint(0, 3, (2, 4), generator=generator)
    mirrored = torch.rand(4, generator=generator) < 0.5
    images = torch.randint(0, 256, (4, 5, 6, 3), dtype=torch.uint8, generator=_seeded(1))
    output = _augment(images, padding=1, flip=True, generator=_seeded(11))
    for item in range(4):
        crops = _possible(images[item].numpy(), 1, flip=True)
        assert np.array_equal(output[item], crops[int(dy[item]), int(dx[item]), bool(mirrored[item])])


class TestLight:
    def _images(self, count: int = 4) -> Tensor:
        return torch.randint(0, 256, (count, 3, 5, 3), dtype=torch.uint8, generator=_seeded(1))

    def test_by_hand(self) -> None:
        """Contrast around 128 first, then brightness, each drawn for each image."""
        images = torch.tensor([0, 100, 128, 228, 255], dtype=torch.uint8).expand(2, 1, 1, 5)
        draws = torch.rand(2, 2, generator=_seeded(5)).tolist()  # contrast of both, brightness of both
        output = vary_light(images, amount=0.4, generator=_seeded(5))
        for item in range(2):
            contrast, brightness = (0.4 * (2 * draw[item] - 1) for draw in draws)
            expected = [
                min(max(round((1 + contrast) * offset + 128 + 128 * brightness), 0), 255)
                for offset in (-128, -28, 0, 100, 127)
            ]
            assert output[item].flatten().tolist() == expected
        assert not torch.equal(output[0], output[1])

    def test_without_an_amount_nothing_is_drawn(self) -> None:
        images, generator = self._images(), _seeded(3)
        assert torch.equal(vary_light(images, amount=0.0, generator=generator), images)
        assert torch.equal(generator.get_state(), _seeded(3).get_state())

    def test_the_generator_alone_decides(self) -> None:
        images = self._images()
        first, again, other = (vary_light(images, amount=0.3, generator=_seeded(seed)) for seed in (7, 7, 8))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_both_reach_the_amount_and_no_further(self) -> None:
        """At 128 contrast changes nothing; the difference of two greys is the contrast alone."""
        images = torch.tensor([78, 128, 178], dtype=torch.uint8).expand(2000, 1, 1, 3)
        low, middle, high = vary_light(images, amount=0.25, generator=_seeded()).flatten(1).int().unbind(1)
        assert (int(middle.min()), int(middle.max())) == (96, 160)  # 128 (1 -+ 0.25)
        spread = high - low
        assert 74 <= int(spread.min()) <= 76  # 100 (1 - 0.25), each end rounded
        assert 124 <= int(spread.max()) <= 126
        assert abs(float(middle.float().mean()) - 128) < 2
        together = torch.corrcoef(torch.stack([middle, spread]).float())[0, 1]
        assert abs(float(together)) < 0.1  # drawn independently

    @given(amount=st.floats(0, 0.999), seed=st.integers(0, 2**32))
    def test_brighter_stays_brighter(self, amount: float, seed: int) -> None:
        """The type holds, and no value turns past another, nor around at an end."""
        ramp = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 256, 1).expand(3, -1, -1, -1)
        output = vary_light(ramp, amount=amount, generator=_seeded(seed))
        assert output.dtype == torch.uint8
        assert output.shape == ramp.shape
        assert (output.int().diff(dim=2) >= 0).all()
