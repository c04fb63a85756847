"""Synthetic images of surfaces with one defect each, and exact masks of it.

Not photographs: a data set for examples, tests and first experiments with masks, drawn within
seconds. A surface is grained noise, more or less stretched along one direction as brushed metal is,
under slanted light. On it lies a pit (a dark dent), a scratch (a thin bent line) or a stain (a pale
brown patch), from a few pixels to half of the image, anywhere.

Shape legend: n images, H = W = size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from konkyo.training.data import ImageData, Images, Int64, UInt8, stratified_split

LABELS = ("free", "pit", "scratch", "stain")
NAME = "surfaces (synthetic)"
LICENCE = "Apache-2.0"
TEST_SHARE = 0.2

SMALLEST, LARGEST = 4, 0.5
"""Pixels of the smallest defect, and share of the image of the largest."""

_CHUNK = 2**20
"""Pixels drawn at once."""

Bool = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]


def generate_surfaces(
    count: int,
    size: int = 64,
    seed: int = 0,
    *,
    free: bool = True,
    val_share: float = 0.1,
    split_seed: int = 0,
) -> ImageData:
    """Draw a data set with masks, its classes equally frequent.

    Args:
        count: images of all splits together, at least 8 a class.
        size: height and width in pixels, at least 8.
        seed: of the images and of the test split.
        free: also draw images without a defect, as a class of their own.
        val_share: share of the images kept for validation.
        split_seed: of the validation split.

    Raises:
        ValueError: the images are too small.
        DataError: there are too few images to split.
    """
    if size < 8:
        raise ValueError(f"surfaces have sides of at least 8 pixels, not {size}")
    kinds = LABELS if free else LABELS[1:]
    labels = np.arange(count, dtype=np.int64) % len(kinds)
    generator = np.random.default_rng(seed)
    offset = LABELS.index(kinds[0])
    chunk = max(1, _CHUNK // size**2)
    drawn = [
        draw_surfaces(labels[start : start + chunk] + offset, size, generator)
        for start in range(0, count, chunk)
    ]
    pixels, masks = (np.concatenate([getattr(part, name) for part in drawn]) for name in ("pixels", "masks"))
    images = Images(pixels, labels, masks)
    rest, test = stratified_split(labels, [TEST_SHARE], seed)
    train, val = stratified_split(labels[rest], [val_share / (1 - TEST_SHARE)], split_seed)
    return ImageData(
        NAME, kinds, images.take(rest[train]), images.take(rest[val]), images.take(test), LICENCE
    )


@dataclass(frozen=True)
class Surfaces:
    """Drawn images.

    Attributes:
        clean: (n, H, W, 3) uint8, the surfaces without a defect.
        pixels: (n, H, W, 3) uint8, the same with it.
        masks: (n, H, W) uint8, 1 where the two differ.
    """

    clean: UInt8
    pixels: UInt8
    masks: UInt8


def draw_surfaces(labels: Int64, size: int, generator: np.random.Generator) -> Surfaces:
    """Draw one image a label, a position in ``LABELS``."""
    clean = _textures(len(labels), size, generator)
    masks = np.zeros(clean.shape[:3], dtype=np.uint8)
    change = np.zeros(clean.shape)
    for label, draw in ((1, _pits), (2, _scratches), (3, _stains)):
        where = np.flatnonzero(labels == label)
        while len(where):  # draw again what came out too small or too large
            inside, colour = draw(len(where), size, generator)
            area = inside.sum(axis=(1, 2))
            fits = (area >= SMALLEST) & (area <= LARGEST * size**2)
            masks[where[fits]] = inside[fits]
            change[where[fits]] = colour[fits]
            where = where[~fits]
    # Textures keep so far from black and white that nothing is clipped: every pixel inside changes.
    pixels = np.where(masks[..., None] == 1, clean + change, clean).round().astype(np.uint8)
    return Surfaces(clean, pixels, masks)


def _textures(count: int, size: int, generator: np.random.Generator) -> UInt8:
    """Surfaces (n, H, W, 3) with values from 80 to 190."""
    down, right = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
    angle, stretch, grain = (
        generator.uniform(low, high, (count, 1, 1)) for low, high in ((0, np.pi), (0, 2.5), (0.5, 1.5))
    )
    along = right * np.cos(angle) + down * np.sin(angle)
    across = down * np.cos(angle) - right * np.sin(angle)
    frequency = np.hypot(along * np.exp(stretch), across) + 1 / size
    noise = generator.standard_normal((count, size, size), dtype=np.float32)
    field = np.fft.irfft2(np.fft.rfft2(noise) * frequency**-grain, s=(size, size))
    field -= field.mean(axis=(1, 2), keepdims=True)
    field /= field.std(axis=(1, 2), keepdims=True)
    slant = np.linspace(-1, 1, size)
    light = generator.uniform(-8, 8, (2, count, 1, 1))
    field = field * generator.uniform(3, 10, (count, 1, 1)) + light[0] * slant[:, None] + light[1] * slant
    base = generator.uniform(115, 155, (count, 1, 1, 1)) + generator.uniform(-6, 6, (count, 1, 1, 3))
    textures: UInt8 = (field[..., None] + base).round().clip(80, 190).astype(np.uint8)
    return textures


def _pits(count: int, size: int, generator: np.random.Generator) -> tuple[Bool, Float64]:
    """Dark dents, deepest in the middle."""
    rho = _blobs(count, size, (1.1, size / 7), 0.1, generator)
    depth = generator.uniform(25, 40, (count, 1, 1)) * (1 + 0.75 * (1 - rho**2))
    return rho <= 1, np.repeat(-depth[..., None], 3, axis=3)


def _scratches(count: int, size: int, generator: np.random.Generator) -> tuple[Bool, Float64]:
    """Thin lines, bent as a parabola, brighter or darker than the surface."""
    along, across = _frames(count, size, generator)
    length = _between(4, 1.2 * size, count, generator)
    width = generator.uniform(1, 1.5 + size / 40, (count, 1, 1))
    bend = generator.uniform(-0.25, 0.25, (count, 1, 1))
    reach = 2 * along / length
    inside = (np.abs(reach) <= 1) & (np.abs(across - bend * length * reach**2) <= width / 2)
    sign = generator.choice([-1, 1], (count, 1, 1, 1))
    strength = generator.uniform(30, 55, (count, 1, 1, 1)) * sign
    return inside, np.broadcast_to(strength, (*inside.shape, 3))


def _stains(count: int, size: int, generator: np.random.Generator) -> tuple[Bool, Float64]:
    """Pale brown patches with an uneven border."""
    rho = _blobs(count, size, (1.5, 0.45 * size), 0.2, generator)
    strength = generator.uniform(0.8, 1.5, (count, 1, 1)) * (0.7 + 0.3 * rho)
    return rho <= 1, -strength[..., None] * np.array([10, 16, 26])


def _blobs(
    count: int, size: int, radii: tuple[float, float], unevenness: float, generator: np.random.Generator
) -> Float64:
    """Distance from the centre of an uneven ellipse (n, H, W), 1 on its border."""
    along, across = _frames(count, size, generator)
    angle = np.arctan2(across, along)
    border = np.ones_like(angle)
    for waves in (2, 3, 4):
        phase = generator.uniform(0, 2 * np.pi, (count, 1, 1))
        border += generator.uniform(0, unevenness, (count, 1, 1)) * np.cos(waves * angle + phase)
    return np.hypot(along, across) / (border * _between(*radii, count, generator))


def _frames(count: int, size: int, generator: np.random.Generator) -> tuple[Float64, Float64]:
    """Pixel coordinates (n, H, W) from a point of the image each, along and across a direction each."""
    y, x = np.mgrid[:size, :size] + 0.5
    centre_y, centre_x = generator.uniform(0, size, (2, count, 1, 1))
    angle = generator.uniform(0, np.pi, (count, 1, 1))
    right, down = x - centre_x, y - centre_y
    return right * np.cos(angle) + down * np.sin(angle), down * np.cos(angle) - right * np.sin(angle)


def _between(low: float, high: float, count: int, generator: np.random.Generator) -> Float64:
    """Lengths (n, 1, 1), every order of magnitude equally often."""
    return np.exp(generator.uniform(np.log(low), np.log(high), (count, 1, 1)))
