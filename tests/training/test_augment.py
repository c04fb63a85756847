from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from konkyo.training.augment import crop_and_flip


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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
        output = crop_and_flip(image, padding=1, flip=False, generator=_seeded(seed))
        assert output[0, :, :, 0].tolist() == by_shift[dy, dx]
        seen.add((dy, dx))
    assert seen == by_shift.keys()


def test_nothing_asked_is_nothing_done() -> None:
    images = torch.randint(0, 256, (5, 4, 6, 3), dtype=torch.uint8, generator=_seeded())
    output = crop_and_flip(images, padding=0, flip=False, generator=_seeded())
    assert output.dtype == torch.uint8
    assert torch.equal(output, images)


def test_mirrors_about_half_and_only_left_to_right() -> None:
    image = torch.arange(6, dtype=torch.uint8).reshape(1, 2, 3, 1)
    output = crop_and_flip(image.expand(400, -1, -1, -1), padding=0, flip=True, generator=_seeded())
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
    output = crop_and_flip(torch.from_numpy(images), padding=padding, flip=flip, generator=_seeded(seed))
    for image, found in zip(images, output.numpy(), strict=True):
        assert any(np.array_equal(found, crop) for crop in _possible(image, padding, flip=flip).values())


def test_every_shift_is_drawn_about_as_often() -> None:
    image = np.arange(4 * 4, dtype=np.uint8).reshape(4, 4, 1)
    batch = torch.from_numpy(image).expand(1800, -1, -1, -1)
    output = crop_and_flip(batch, padding=1, flip=True, generator=_seeded()).numpy()
    for crop in _possible(image, 1, flip=True).values():
        assert 60 < sum(np.array_equal(found, crop) for found in output) < 140  # 100 expected


def test_the_generator_alone_decides() -> None:
    images = torch.randint(0, 256, (8, 6, 6, 3), dtype=torch.uint8, generator=_seeded(1))
    torch.manual_seed(5)
    first = crop_and_flip(images, padding=2, flip=True, generator=_seeded(7))
    torch.manual_seed(6)
    again = crop_and_flip(images, padding=2, flip=True, generator=_seeded(7))
    other = crop_and_flip(images, padding=2, flip=True, generator=_seeded(8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_keeps_the_type(dtype: torch.dtype) -> None:
    images = torch.zeros(2, 4, 4, 1, dtype=dtype)
    assert crop_and_flip(images, padding=1, flip=True, generator=_seeded()).dtype == dtype
