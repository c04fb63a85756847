"""Which images show the same object, from a table beside them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from konkyo.training.errors import DataError

GROUPS = "groups.csv"
_IMAGE, _CLASS = "image", "class"


def read_groups(root: Path, files: Sequence[Path]) -> tuple[str, ...] | None:
    """The groups of a folder's images.

    The table ``ROOT/groups.csv`` has a column ``image``, the path relative to ROOT, and one other
    besides ``class``: the group. Rows of images that are not asked for do not matter.

    Args:
        root: the folder.
        files: paths of the images (n), in it.

    Returns:
        The group of each image, or None where there is no such table.

    Raises:
        DataError: the table cannot be read, has other columns, names an image twice, or lacks one.
    """
    table = root / GROUPS
    if not table.exists():
        return None
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = [name for name in reader.fieldnames or () if name not in (_IMAGE, _CLASS)]
            if _IMAGE not in (reader.fieldnames or ()) or len(columns) != 1:
                raise DataError(f"{table}: expected the columns image, the group, and perhaps class")
            rows = [(row[_IMAGE], row[columns[0]]) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: cannot be read: {error}") from error
    by_image = dict(rows)
    if len(by_image) < len(rows):
        raise DataError(f"{table}: an image is named twice")
    names = [path.relative_to(root).as_posix() for path in files]
    lacking = [name for name in names if not by_image.get(name)]
    if lacking:
        raise DataError(f"{table}: {len(lacking)} images have no group, such as {lacking[0]}")
    return tuple(by_image[name] for name in names)
