"""The Open Inference Protocol as a caller speaks it, written after its text and not after the service."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt

HEADER = "Inference-Header-Content-Length"
DATATYPES = {"UINT8": np.dtype("<u1"), "INT64": np.dtype("<i8"), "FP32": np.dtype("<f4")}


def infer_path(model: str, version: str | None = None) -> str:
    return f"/v2/models/{model}{f'/versions/{version}' if version else ''}/infer"


def as_json(
    name: str, array: npt.NDArray[Any], datatype: str | None = None, *, flat: bool = False
) -> dict[str, Any]:
    """An input with its values in the JSON."""
    data = array.reshape(-1).tolist() if flat else array.tolist()
    datatype = datatype or next(name for name, dtype in DATATYPES.items() if dtype == array.dtype)
    return {"name": name, "shape": list(array.shape), "datatype": datatype, "data": data}


def files_as_json(texts: list[str]) -> dict[str, Any]:
    return {"name": "image_bytes", "shape": [len(texts)], "datatype": "BYTES", "data": texts}


def elements(parts: list[bytes]) -> bytes:
    """Each with its length in front."""
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)


@dataclass
class Binary:
    """A request whose tensors follow its JSON."""

    inputs: list[dict[str, Any]] = field(default_factory=list)
    tensors: bytes = b""

    def add(self, name: str, array: npt.NDArray[Any]) -> Binary:
        datatype = next(known for known, dtype in DATATYPES.items() if dtype == array.dtype)
        return self._add(name, list(array.shape), datatype, array.astype(DATATYPES[datatype]).tobytes())

    def add_files(self, parts: list[bytes]) -> Binary:
        return self._add("image_bytes", [len(parts)], "BYTES", elements(parts))

    def request(self, **others: Any) -> dict[str, Any]:
        """For httpx."""
        text = json.dumps({"inputs": self.inputs, **others}).encode()
        return {"content": text + self.tensors, "headers": {HEADER: str(len(text))}}

    def _add(self, name: str, shape: list[int], datatype: str, data: bytes) -> Binary:
        self.inputs.append(
            {
                "name": name,
                "shape": shape,
                "datatype": datatype,
                "parameters": {"binary_data_size": len(data)},
            }
        )
        self.tensors += data
        return self


def outputs_of(response: httpx.Response) -> dict[str, Any]:
    """Tensors of an answer by name: arrays of numbers, or lists of the elements of BYTES."""
    assert response.status_code == 200, response.text
    length = response.headers.get(HEADER)
    text = response.content if length is None else response.content[: int(length)]
    rest = b"" if length is None else response.content[int(length) :]
    found: dict[str, Any] = {}
    for output in json.loads(text)["outputs"]:
        shape, size = output["shape"], output.get("parameters", {}).get("binary_data_size")
        assert ("data" in output) == (size is None)
        data, rest = (output["data"], rest) if size is None else (rest[:size], rest[size:])
        if output["datatype"] == "BYTES":
            found[output["name"]] = data if size is None else _split(data)
            assert len(found[output["name"]]) == np.prod(shape)
        else:
            dtype = DATATYPES[output["datatype"]]
            array = np.array(data, dtype) if size is None else np.frombuffer(data, dtype)
            found[output["name"]] = array.reshape(shape)
    assert rest == b""
    return found


def _split(data: bytes) -> list[bytes]:
    found = []
    while data:
        (length,) = struct.unpack("<I", data[:4])
        found.append(data[4 : 4 + length])
        data = data[4 + length :]
    return found
