"""Tensors of the protocol to numpy and back: little-endian, row-major, in JSON nested or flat."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic_core import to_json

from konkyo.errors import InvalidRequest

DTYPES: dict[str, np.dtype[Any]] = {
    "UINT8": np.dtype("u1"),
    "INT64": np.dtype("<i8"),
    "FP32": np.dtype("<f4"),
}
"""Datatypes of fixed size that the tensors here have; the other is ``BYTES``."""

_JSON_STEP = 64 * 1024
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor as it came.

    Attributes:
        data: lists of JSON values, or the bytes of the binary extension.
        prefixed: each element of BYTES has its length in front of it, as in all but a raw request.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: list[Any] | memoryview
    prefixed: bool = True

    def numbers(self) -> npt.NDArray[Any]:
        """The values in the tensor's shape; from the binary extension a view, not to be written to.

        Raises:
            InvalidRequest: they are not of the tensor's shape and datatype.
        """
        dtype, count = DTYPES[self.datatype], math.prod(self.shape)
        if isinstance(self.data, memoryview):
            if len(self.data) != count * dtype.itemsize:
                raise self._wrong(f"{len(self.data)} bytes; its shape takes {count * dtype.itemsize}")
            return np.frombuffer(self.data, dtype).reshape(self.shape)
        return self._to_array(self._flat(), dtype).reshape(self.shape)

    def elements(self) -> list[bytes | str]:
        """Those of a BYTES tensor: bytes from the binary extension, text from JSON.

        Raises:
            InvalidRequest: they are not of the tensor's shape, or a length reaches over the end.
        """
        if not isinstance(self.data, memoryview):
            flat = self._flat()
            if set(map(type, flat)) - {str}:
                raise self._wrong("an element is not a string")
            return flat
        if not self.prefixed:
            return [bytes(self.data)]
        found: list[bytes | str] = []
        start, end = 0, len(self.data)
        while start < end and len(found) <= math.prod(self.shape):
            if end - start < _LENGTH.size:
                raise self._wrong("it ends within the length of an element")
            (length,) = _LENGTH.unpack_from(self.data, start)
            start += _LENGTH.size
            if length > end - start:
                raise self._wrong(f"an element of {length} bytes reaches over the end")
            found.append(bytes(self.data[start : start + length]))
            start += length
        if len(found) != math.prod(self.shape):
            more = "more" if len(found) > math.prod(self.shape) else f"{len(found)}"
            raise self._wrong(f"{more} elements; its shape has {math.prod(self.shape)}")
        return found

    def _flat(self) -> list[Any]:
        """JSON data row by row: as it is, or out of lists nested as the shape says."""
        assert isinstance(self.data, list)
        flat: list[Any] = self.data
        if flat and isinstance(flat[0], list):
            level: list[Any] = [flat]
            for size in self.shape:
                if set(map(type, level)) != {list} or set(map(len, level)) != {size}:
                    raise self._wrong("the lists are neither flat nor nested as its shape")
                level = list(chain.from_iterable(level))
            flat = level
        if len(flat) != math.prod(self.shape):
            raise self._wrong(f"{len(flat)} elements; its shape has {math.prod(self.shape)}")
        return flat

    def _to_array(self, flat: list[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """JSON numbers as a type that holds them all; some clients send every number as a float."""
        kinds = set(map(type, flat))
        if not kinds <= {int, float}:
            raise self._wrong("an element is not a number")
        whole = dtype.kind in "iu"
        try:
            wide = np.array(flat, np.float64 if float in kinds or not whole else np.int64)
        except OverflowError:
            raise self._wrong("a number is out of range") from None
        if whole:
            bounds = np.iinfo(dtype)
            if wide.dtype.kind == "f":  # no float is 2^63 - 1, so the bound is the one after it
                inside = (wide >= bounds.min) & (wide < float(bounds.max) + 1) & (wide == np.floor(wide))
            else:
                inside = (wide >= bounds.min) & (wide <= bounds.max)
            if not inside.all():
                raise self._wrong(f"a number is no {self.datatype}")
            return wide.astype(dtype)
        with np.errstate(over="ignore"):
            array = wide.astype(dtype)
        if not np.isfinite(array).all():
            raise self._wrong("a number is out of range")
        return array

    def _wrong(self, what: str) -> InvalidRequest:
        return InvalidRequest(f"{self.name}: {what}")


def join_elements(elements: Sequence[bytes]) -> bytes:
    """BYTES in the binary extension: the length of each element, then the element."""
    return b"".join(part for element in elements for part in (_LENGTH.pack(len(element)), element))


def join_rows(rows: Sequence[npt.NDArray[np.float32]]) -> bytes:
    """FP32 in the binary extension."""
    return b"".join(np.ascontiguousarray(row, "<f4").data for row in rows)


def json_rows(rows: Sequence[npt.NDArray[np.float32]]) -> bytes:
    """FP32 as one flat JSON list, what is not finite as null; never much of it as Python numbers at once."""
    texts = []
    for row in rows:
        flat = row.reshape(-1)
        for start in range(0, len(flat), _JSON_STEP):
            values = flat[start : start + _JSON_STEP].tolist()
            texts.append(to_json(values, inf_nan_mode="null")[1:-1])
    return b"[" + b",".join(texts) + b"]"
