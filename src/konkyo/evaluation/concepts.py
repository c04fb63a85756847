"""Photos with masks of what is in them: a folder for network dissection.

Two layouts are read::

    ROOT/images/NAME.jpg       with ROOT/masks/CONCEPT/NAME.png: what is not black is the concept; an image
                               without a mask of a concept does not show it
    ROOT/images/NAME.jpg       with ROOT/panoptic.json and ROOT/masks/NAME.png, as COCO publishes them: a
                               pixel's segment is R + 256 G + 65536 B (Kirillov et al., CVPR 2019)

Masks come to the network's input by the geometry of their images, nearest pixel, so that a concept
keeps its area.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from konkyo.errors import KonkyoError
from konkyo.evaluation.marking import require_aspect
from konkyo.imaging import Decoded, UInt8, decode, open_image, prepare
from konkyo.models.card import InputSpec

PANOPTIC = "panoptic.json"

Bool = npt.NDArray[np.bool_]
Segments = npt.NDArray[np.int64]


class ConceptImage(NamedTuple):
    """A photo at the network's input.

    Attributes:
        pixels: (H, W, 3) uint8.
        masks: (H, W) of each concept it shows, by the concept's position.
    """

    pixels: UInt8
    masks: dict[int, Bool]


class MaskFile(NamedTuple):
    """A mask.

    Attributes:
        path: of the file.
        shows: one concept, or the concept of each segment by its number.
        crowds: segments of many things that nobody told apart.
    """

    path: Path
    shows: int | Mapping[int, int]
    crowds: frozenset[int] = frozenset()


@dataclass(frozen=True)
class ConceptImages:
    """A folder of photos with masks; nothing is decoded before it is asked for.

    Attributes:
        concepts: names, sorted.
        images: files, sorted.
        masks: those of each image.
        licence: of the images, where the folder tells.
    """

    concepts: tuple[str, ...]
    images: tuple[Path, ...]
    masks: tuple[tuple[MaskFile, ...], ...]
    licence: str = "not stated"

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int, spec: InputSpec) -> ConceptImage:
        """One photo with its masks, cropped and resized as ``spec`` says, which is as it would be served.

        Raises:
            ValueError: a file is missing or damaged, or a mask has another aspect ratio than its image.
        """
        path = self.images[index]
        size = (spec.width, spec.height)
        cropped = partial(prepare, size=size, mode=spec.resize_mode, crop_fraction=spec.crop_fraction)
        masks: dict[int, Bool] = {}
        try:
            decoded = _open(path)
            pixels, _ = cropped(decoded, interpolation=spec.interpolation)
            for path, shows, _ in self.masks[index]:
                mask = _open(path, mask=True)
                require_aspect(mask.image.size, decoded.image.size)
                values, _ = cropped(mask, interpolation="nearest")
                masks |= {
                    concept: inside for concept, inside in _inside(values, shows).items() if inside.any()
                }
        except (KonkyoError, ValueError, OSError) as error:
            raise ValueError(f"{path}: {error}") from error
        return ConceptImage(pixels, masks)


def open_concepts(root: Path, masks: Path | None = None) -> ConceptImages:
    """List the photos and masks of a folder.

    Args:
        root: the folder.
        masks: the folder of the masks; default: ``ROOT/masks``.

    Raises:
        ValueError: the folder has none of the layouts, or files of it are missing.
    """
    images = {path.stem: path for path in _files(root / "images")}
    if not images:
        raise ValueError(f"{root / 'images'}: no images here")
    listed = _panoptic if (root / PANOPTIC).is_file() else _folders
    found = listed(root, masks or root / "masks", images)
    if not found.concepts:
        raise ValueError(f"{root}: no masks; expected masks/CONCEPT/NAME.png, or {PANOPTIC}")
    return found


def open_segments(path: Path) -> Segments:
    """The number of the segment of each pixel of a panoptic mask (h, w).

    Raises:
        KonkyoError: it is not an image we read.
        OSError: it cannot be read.
    """
    return _numbers(np.asarray(_open(path, mask=True).image))


def _folders(root: Path, masks_root: Path, images: Mapping[str, Path]) -> ConceptImages:
    folders = sorted(path for path in masks_root.glob("*") if path.is_dir())
    masks: dict[str, list[MaskFile]] = {name: [] for name in images}
    for concept, folder in enumerate(folders):
        for path in _files(folder):
            if path.stem not in masks:
                raise ValueError(f"{path}: there is no image {path.stem} in {root / 'images'}")
            masks[path.stem].append(MaskFile(path, concept))
    return ConceptImages(
        tuple(folder.name for folder in folders), tuple(images.values()), tuple(map(tuple, masks.values()))
    )


def _panoptic(root: Path, masks_root: Path, images: Mapping[str, Path]) -> ConceptImages:
    try:
        content = json.loads((root / PANOPTIC).read_bytes())
        names = {item["id"]: str(item["name"]) for item in content["categories"]}
        files = {item["id"]: Path(item["file_name"]).stem for item in content["images"]}
        segments = {
            files[item["image_id"]]: (
                masks_root / Path(item["file_name"]).name,
                {segment["id"]: names[segment["category_id"]] for segment in item["segments_info"]},
                frozenset(segment["id"] for segment in item["segments_info"] if segment.get("iscrowd")),
            )
            for item in content["annotations"]
        }
        licence = _licence(content)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{root / PANOPTIC}: not a panoptic file: {error!r}") from None
    if missing := sorted(images.keys() - segments.keys()):
        raise ValueError(f"{root / PANOPTIC}: has no annotation of {images[missing[0]].name}")
    concepts = sorted({name for stem in images for name in segments[stem][1].values()})
    place = {name: position for position, name in enumerate(concepts)}
    masks = (
        (MaskFile(path, {key: place[name] for key, name in shown.items()}, crowds),)
        for path, shown, crowds in (segments[stem] for stem in images)
    )
    return ConceptImages(tuple(concepts), tuple(images.values()), tuple(masks), licence)


def _licence(content: Mapping[str, Any]) -> str:
    """The names of the licences that images of a panoptic file have."""
    names = {item["id"]: str(item["name"]) for item in content.get("licenses", ())}
    found = {item["license"] for item in content["images"] if "license" in item}
    return "; ".join(sorted(names[key] for key in found & names.keys())) or "not stated"


def _files(folder: Path) -> list[Path]:
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in found if path.is_file() and not path.name.startswith("."))


def _open(path: Path, *, mask: bool = False) -> Decoded:
    image = open_image(path.read_bytes())
    if mask and image.mode.startswith("I"):  # 16 bits, of which 8 would round 1 to 0
        image = Image.fromarray((np.asarray(image) > 0).astype(np.uint8) * 255)
    return decode(image)


def _inside(values: UInt8, shows: int | Mapping[int, int]) -> dict[int, Bool]:
    """Pixels (H, W, 3) of a mask -> (H, W) of each concept it shows."""
    if isinstance(shows, int):
        return {shows: values.max(axis=2) > 0}
    segments = _numbers(values)
    return {
        concept: np.isin(segments, [key for key, value in shows.items() if value == concept])
        for concept in set(shows.values())
    }


def _numbers(values: UInt8) -> Segments:
    return np.asarray(values.astype(np.int64) @ np.array([1, 256, 65536]))
