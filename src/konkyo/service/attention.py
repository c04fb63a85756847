"""The edited attention map a caller brings, as an array: from a PNG, or from rows of numbers."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic_core import from_json

from konkyo.errors import InvalidParameter, KonkyoError
from konkyo.imaging import decode, open_image
from konkyo.service.engines.base import Float32

MAX_SIDE = 1024
"""Cells a side; finer than any map there is."""

OPAQUE = 128
"""Alpha from which a pixel of a PNG counts as given."""

_NO_LINES = str.maketrans("", "", "\r\n")


def read_attention(value: Any) -> Float32:
    """Read an edit of the map.

    Args:
        value: base64 of an 8-bit PNG, white for 1 and black for 0, colours by the mean of their
            channels, and with an alpha channel transparent for the network's own value; or rows of
            numbers of equal length, as lists or as JSON, from 0 to 1, and negative for the network's own
            value.

    Returns:
        (h', w') float32, from 0 to 1, and −1 for the network's own value.

    Raises:
        InvalidParameter: it is none of that, or larger than ``MAX_SIDE``.
    """
    if not isinstance(value, str):
        return _from_rows(value)
    if value.lstrip().startswith("["):
        try:
            return _from_rows(from_json(value, allow_inf_nan=False, cache_strings="none"))
        except ValueError as error:
            raise _invalid(f"malformed JSON: {error}") from None
    try:
        return _from_png(base64.b64decode(value.translate(_NO_LINES), validate=True))
    except (binascii.Error, ValueError):
        raise _invalid("neither base64 of a PNG nor rows of numbers") from None


def check_cells(cells: npt.NDArray[np.floating[Any]]) -> Float32:
    """Cells of any shape, from 0 to 1, and −1 for the network's own value.

    Raises:
        InvalidParameter: one is above 1 or not finite.
    """
    if not np.isfinite(cells).all() or cells.max() > 1:
        raise _invalid("a cell is above 1 or not finite; 0 to 1, or negative for the network's own value")
    return np.where(cells < 0, -1, cells).astype(np.float32)


def _from_png(data: bytes) -> Float32:
    try:
        image = open_image(data, max_pixels=MAX_SIDE**2)
        _check_size(*image.size)
        if image.format != "PNG" or image.mode.startswith("I"):
            raise _invalid("the picture is not an 8-bit PNG")
        decode(image)  # refuses what is damaged; takes the data, and gives no alpha channel
        image = open_image(data)
    except InvalidParameter:
        raise
    except KonkyoError as error:  # its code would speak of the image
        raise _invalid(error.message) from None
    pixels = np.asarray(image.convert("RGBA"))
    level = pixels[..., :3].mean(axis=2, dtype=np.float32) / 255
    return np.where(pixels[..., 3] < OPAQUE, np.float32(-1), level)


def _from_rows(rows: Any) -> Float32:
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise _invalid("neither base64 of a PNG nor rows of numbers")
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        raise _invalid("the rows differ in length")
    _check_size(max(widths, default=0), len(rows))
    if not all(set(map(type, row)) <= {int, float} for row in rows):
        raise _invalid("a cell is not a number")
    try:
        cells = np.array(rows, np.float64)
    except OverflowError:
        cells = np.full((1, 1), np.inf)
    return check_cells(cells)


def _check_size(width: int, height: int) -> None:
    if not 1 <= width <= MAX_SIDE or not 1 <= height <= MAX_SIDE:
        raise _invalid(f"{width}x{height} cells; 1 to {MAX_SIDE} a side are read")


def _invalid(message: str) -> InvalidParameter:
    return InvalidParameter(f"attention: {message}", parameter="attention")
