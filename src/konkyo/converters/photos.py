"""Photographs to check an imported network on: any folder of them, and labelled ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

import konkyo
from konkyo.converters.errors import ConversionError
from konkyo.converters.labels import wordnet_numbers
from konkyo.export.canary import smooth_image
from konkyo.imaging import UInt8, decode, open_image, prepare
from konkyo.models.card import InputSpec

SHIPPED = Path(konkyo.__file__).parent / "service" / "web" / "samples"
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
MOST = 32
"""Photos that runtimes are compared on; more take longer and tell nothing new."""


def load_photo(path: Path, spec: InputSpec) -> UInt8:
    """A photo as the network is served it, (H, W, 3).

    Raises:
        OSError: the file cannot be read.
        ImageError: it is no image.
    """
    pixels, _ = prepare(
        decode(open_image(path.read_bytes())),
        (spec.width, spec.height),
        mode=spec.resize_mode,
        crop_fraction=spec.crop_fraction,
        interpolation=spec.interpolation,
    )
    return pixels


def sample_photos(folder: Path | None, spec: InputSpec) -> UInt8:
    """Photos (n, H, W, 3) of a folder and those below it, at most 32.

    Default: those that ship, and as many synthetic images with the spectrum of photos.

    Raises:
        ConversionError: there is no image in the folder.
        ImageError: one is damaged.
    """
    paths = sorted(SHIPPED.glob("*.jpg")) if folder is None else list(_images(folder))
    if not paths:
        raise ConversionError(f"{folder}: there is no image here")
    step = -(-len(paths) // MOST)
    photos = [load_photo(path, spec) for path in paths[::step]]
    if folder is None:
        photos += [smooth_image(spec.width, spec.height, 100 + seed) for seed in range(len(photos))]
    return np.stack(photos)


class LabelledPhotos:
    """Photos in a folder of class folders, decoded when they are asked for.

    Args:
        folder: its folders are named by class, by index, or for ImageNet by WordNet's number.
        labels: names of the classes.
        spec: how photos are brought to the input.

    Raises:
        ConversionError: a folder is of no class, or there is no image.

    Attributes:
        labels: class index of each photo.
    """

    def __init__(self, folder: Path, labels: Sequence[str], spec: InputSpec) -> None:
        known = known_classes(labels)
        self._spec = spec
        self._paths: list[Path] = []
        classes: list[int] = []
        for place in sorted(path for path in folder.glob("*") if path.is_dir()):
            if place.name not in known:
                raise ConversionError(f"{place}: the network has no class {place.name!r}")
            found = list(_images(place))
            self._paths += found
            classes += [known[place.name]] * len(found)
        if not self._paths:
            raise ConversionError(f"{folder}: there is no image in a folder named by its class")
        self.labels: npt.NDArray[np.int64] = np.array(classes)

    def __len__(self) -> int:
        """Their number."""
        return len(self._paths)

    def __getitem__(self, index: slice) -> UInt8:
        """(n, H, W, 3)."""
        return np.stack([load_photo(path, self._spec) for path in self._paths[index]])


def known_classes(labels: Sequence[str]) -> Mapping[str, int]:
    """Class indices by what a folder may be called: class, index, or for ImageNet WordNet's number."""
    known = {str(index): index for index in range(len(labels))}
    if len(labels) == 1000:
        known |= {number: index for index, number in enumerate(wordnet_numbers())}
    return known | {label: index for index, label in enumerate(labels)}


def _images(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES)
