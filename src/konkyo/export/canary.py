"""The canary: a synthetic image that every copy of a bundle must answer alike.

A photograph would do, but a bundle travels, and what it was trained on may be private.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np

from konkyo.errors import BundleError
from konkyo.export.onnx import Float32, Int64
from konkyo.imaging import UInt8

_SEEDS = 100


def smooth_image(width: int, height: int, seed: int) -> UInt8:
    """A colour image with the spectrum of natural ones: amplitude falls as 1/frequency.

    Mostly light and dark, less of colour, as in photographs. The same seed gives the same image.

    Returns:
        (H, W, 3) uint8 that uses the full range.
    """
    generator = np.random.default_rng(seed)
    fy = np.fft.fftfreq(height)[:, None]
    fx = np.fft.rfftfreq(width)[None, :]
    frequency = np.maximum(np.hypot(fy, fx), 1 / max(width, height))
    spectra = np.fft.rfft2(generator.standard_normal((4, height, width))) / frequency**1.5
    light, *colours = np.fft.irfft2(spectra, s=(height, width))
    image = np.stack([light + 0.5 * colour for colour in colours], axis=-1)
    low, high = image.min(), image.max()
    return cast(UInt8, np.round((image - low) / (high - low) * 255).astype(np.uint8))


def find_canary(
    model: Callable[[UInt8, Int64], tuple[Float32, Float32]], *, width: int, height: int
) -> UInt8:
    """The first smooth image whose map for the predicted class is finite and not constant.

    Args:
        model: images and targets to logits and maps, as ``OnnxModel``.
        width: of the network's input.
        height: likewise.

    Returns:
        (H, W, 3) uint8.

    Raises:
        BundleError: there is none among the first 100 seeds, so the maps of this network show nothing.
    """
    for seed in range(_SEEDS):
        image = smooth_image(width, height, seed)
        logits, maps = model(image[None], np.array([[-1]]))
        if np.isfinite(logits).all() and np.isfinite(maps).all() and np.ptp(maps) > 0:
            return image
    raise BundleError(f"the network gives a constant or infinite map on each of {_SEEDS} images")
