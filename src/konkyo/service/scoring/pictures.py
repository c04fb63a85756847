"""Maps and overlays of an answer as files, in the place of the base64 of a request's."""

from __future__ import annotations

import base64
import errno
import io
from pathlib import Path
from typing import Any

import numpy as np

from konkyo.errors import ImageError
from konkyo.service.scoring.part import write_file

_NAMING = (errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST)
"""What is wrong with a name and not with the disk."""


def write_pictures(out: Path, name: str, explanation: dict[str, Any]) -> dict[str, Any]:
    """The explanation with the paths of files, relative to ``out``, where it had base64.

    ``maps/NAME.png`` holds the map (``.npy``: float32 (h, w), raw) and ``overlays/NAME.png`` the overlay; of
    several maps the second is ``NAME.1.png``. The network's numbers are not touched.

    Args:
        out: folder of the results.
        name: of the image.
        explanation: as in the body of an answer.

    Raises:
        ImageError: the name cannot be that of a file there.
        OSError: the files cannot be written.
    """
    maps = explanation.get("maps", [explanation])
    written = [
        {key: _write(out, key, _numbered(name, number), value) for key, value in entry.items()}
        for number, entry in enumerate(maps)
    ]
    if "maps" not in explanation:
        return written[0]
    return {**explanation, **written[0], "maps": written}


def _numbered(name: str, number: int) -> str:
    return f"{name}.{number}" if number else name


def _write(out: Path, key: str, name: str, value: Any) -> Any:
    if key not in ("map", "overlay") or value is None:
        return value
    entry = {field: content for field, content in value.items() if field != "data"}
    data, suffix = base64.b64decode(value["data"]), "png"
    if value.get("encoding") == "float32":
        data, suffix = _npy(data, (value["height"], value["width"])), "npy"
        entry["encoding"] = "npy"
    path = f"{key}s/{name}.{suffix}"
    try:
        write_file(out / path, data)
    except OSError as error:
        if error.errno not in _NAMING:
            raise
        raise ImageError(f"its name cannot be that of a {key}: {error.strerror}") from None
    return {**entry, "path": path}


def _npy(data: bytes, shape: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    np.save(file, np.frombuffer(data, "<f4").reshape(shape))
    return file.getvalue()
