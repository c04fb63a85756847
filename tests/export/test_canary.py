import numpy as np
import pytest

from konkyo.errors import BundleError
from konkyo.export.canary import find_canary, smooth_image
from konkyo.export.onnx import OnnxModel


@pytest.mark.parametrize(("width", "height"), [(32, 32), (24, 16), (15, 33), (224, 224)])
def test_an_image_is_smooth_colourful_and_uses_the_full_range(width, height):
    image = smooth_image(width, height, 0)
    assert image.shape == (height, width, 3)
    assert image.dtype == np.uint8
    assert (image.min(), image.max()) == (0, 255)
    values = image.astype(float)
    # Neighbours of white noise differ by 1.13 standard deviations on average.
    assert np.abs(np.diff(values, axis=1)).mean() < 0.5 * values.std()
    assert np.abs(values[..., 0] - values[..., 1]).mean() > 3


def test_the_seed_decides():
    assert np.array_equal(smooth_image(32, 32, 3), smooth_image(32, 32, 3))
    assert not np.array_equal(smooth_image(32, 32, 3), smooth_image(32, 32, 4))


def test_a_network_with_a_map_takes_the_first_image(graph):
    assert np.array_equal(find_canary(OnnxModel(graph), width=24, height=16), smooth_image(24, 16, 0))


def answer(peak):
    """Logits and a map that is flat but for one value."""
    maps = np.zeros((1, 1, 2, 2), dtype=np.float32)
    maps[0, 0, 0, 0] = peak
    return np.zeros((1, 2), dtype=np.float32), maps


def test_flat_and_infinite_maps_are_passed_over():
    peaks = iter([0, np.inf, np.nan, 1])
    found = find_canary(lambda image, targets: answer(next(peaks)), width=8, height=8)
    assert np.array_equal(found, smooth_image(8, 8, 3))


def test_a_network_without_maps_is_refused():
    with pytest.raises(BundleError, match="constant or infinite map on each of 100 images"):
        find_canary(lambda image, targets: answer(0), width=8, height=8)
