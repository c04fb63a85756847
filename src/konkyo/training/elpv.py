"""ELPV (Buerhop-Lutz et al., 2018): 2,624 solar cells in electroluminescence, graded by experts.

Read from the package ``elpv-dataset``: grey images of 300x300 pixels, cut from 44 modules. Experts
gave each cell a probability of being defective, which makes four ordered grades; the class index is
the grade. There are no masks, and no word on which cells come from one module, so cells of one
module may be in train and test: figures on this test split are optimistic about new modules.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from konkyo.training.data import ImageData, Int64, stratified_split
from konkyo.training.errors import DataError
from konkyo.training.reading import File, Reader

LABELS = ("functional", "possibly-defective", "likely-defective", "defective")
PROBABILITIES = (0.0, 1 / 3, 2 / 3, 1.0)
"""Of being defective, of each grade."""
LICENCE = "CC BY-NC-SA 4.0 (non-commercial)"
CITATION = (
    "Buerhop-Lutz et al., A Benchmark for Visual Identification of Defective Solar Cells in "
    "Electroluminescence Imagery, EU PVSEC 2018"
)
_KINDS = ("mono", "poly")


def load_elpv(
    *,
    image_size: int,
    val_share: float = 0.1,
    seed: int = 0,
    skip_broken: bool = False,
) -> ImageData:
    """Read ELPV with its fixed test split, ``splits/elpv-test.txt``.

    Args:
        image_size: height and width of the network's input.
        val_share: share of the other images kept for validation, stratified by grade and by kind of
            cell (monocrystalline or polycrystalline).
        seed: of that split.
        skip_broken: leave out images that cannot be read instead of refusing them all.

    Raises:
        DataError: the package is not installed, or is not the one the split was drawn for.
    """
    root, splits = list_elpv(val_share=val_share, seed=seed)
    data = Reader(image_size, skip_broken=skip_broken).read("elpv", root, LABELS, splits, LICENCE)
    return replace(data, citation=CITATION, ordered=True)


def list_elpv(*, val_share: float = 0.1, seed: int = 0) -> tuple[Path, dict[str, list[File]]]:
    """The folder of the package, and the files of each split; nothing is decoded.

    Args:
        val_share, seed: as of ``load_elpv``.

    Raises:
        DataError: as ``load_elpv``.
    """
    root = _root()
    files, strata = _list(root)
    names = [file.path.name for file in files]
    held_out = _test_names()
    if not held_out <= set(names):
        raise DataError(f"{root}: {min(held_out - set(names))} of the test split is missing")
    in_test = np.isin(names, sorted(held_out))
    rest = np.flatnonzero(~in_test)
    train, val = (rest[part] for part in stratified_split(strata[rest], [val_share], seed))
    parts = {"train": train, "val": val, "test": np.flatnonzero(in_test)}
    return root, {split: [files[position] for position in part] for split, part in parts.items()}


def _root() -> Path:
    spec = find_spec("elpv_dataset")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("elpv is a package of its own; install it by: pip install 'konkyo[data]'")
    return Path(spec.submodule_search_locations[0]) / "data"


def _list(root: Path) -> tuple[list[File], Int64]:
    """The images in the order of the table, and for each its grade and kind as one number (n,)."""
    table = root / "labels.csv"
    files: list[File] = []
    strata: list[int] = []
    try:
        for line in table.read_text(encoding="utf-8").splitlines():
            name, probability, kind = line.split()
            grade = min(range(len(LABELS)), key=lambda at: abs(PROBABILITIES[at] - float(probability)))
            if abs(PROBABILITIES[grade] - float(probability)) > 1e-6:
                raise ValueError(f"{probability} is none of the four grades")
            files.append(File(root / name, grade))
            strata.append(len(_KINDS) * grade + _KINDS.index(kind))
    except (OSError, ValueError) as error:
        raise DataError(f"{table}: cannot be read: {error}") from error
    return files, np.array(strata, dtype=np.int64)


def _test_names() -> set[str]:
    text = (resources.files("konkyo.training") / "splits" / "elpv-test.txt").read_text(encoding="utf-8")
    return {line for line in text.splitlines() if not line.startswith("#")}
