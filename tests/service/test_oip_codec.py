"""Tensors of the Open Inference Protocol: every value comes back as it was."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tensors import DATATYPES, elements

from konkyo.errors import InvalidRequest
from konkyo.service.body import read_json
from konkyo.service.oip.request import read_request
from konkyo.service.oip.tensors import Tensor, join_elements, join_rows, json_rows

SHAPES = arrays.array_shapes(max_dims=4, max_side=4)


def values(datatype: str) -> st.SearchStrategy[Any]:
    return arrays.arrays(
        DATATYPES[datatype],
        SHAPES,
        elements={"allow_nan": False, "allow_infinity": False} if datatype == "FP32" else None,
    )


@pytest.mark.parametrize("datatype", DATATYPES)
@given(data=st.data())
def test_numbers_come_back_in_every_form(datatype: str, data: st.DataObject) -> None:
    array = data.draw(values(datatype))
    shape = array.shape
    for sent in (memoryview(array.tobytes()), array.tolist(), array.reshape(-1).tolist()):
        through = sent if isinstance(sent, memoryview) else read_json(json.dumps(sent).encode())
        found = Tensor("x", datatype, shape, through).numbers()
        assert found.dtype == DATATYPES[datatype]
        np.testing.assert_array_equal(found, array, strict=True)


def test_bytes_are_looked_at_where_they_lie() -> None:
    data = np.arange(12, dtype=np.float32).tobytes()
    found = Tensor("x", "FP32", (3, 4), memoryview(data)).numbers()
    assert np.shares_memory(found, np.frombuffer(data, np.uint8))
    assert not found.flags.writeable


@given(st.lists(st.binary(max_size=9), min_size=1, max_size=5))
def test_elements_come_back(parts: list[bytes]) -> None:
    data = join_elements(parts)
    assert data == elements(parts)
    assert Tensor("x", "BYTES", (len(parts),), memoryview(data)).elements() == parts
    for shape in ((len(parts) + 1,), (len(parts) - 1,)):
        with pytest.raises(InvalidRequest, match="elements; its shape has"):
            Tensor("x", "BYTES", shape, memoryview(data)).elements()


@given(st.integers(-(2**70), 2**70) | st.floats(allow_nan=False), st.sampled_from(["UINT8", "INT64"]))
def test_a_number_is_taken_whole_or_refused(number: float, datatype: str) -> None:
    bounds = np.iinfo(DATATYPES[datatype])
    tensor = Tensor("x", datatype, (1,), [number])
    if number == number // 1 and bounds.min <= number <= bounds.max:
        assert tensor.numbers().tolist() == [int(number)]
    else:
        with pytest.raises(InvalidRequest, match="a number is"):
            tensor.numbers()


@pytest.mark.parametrize(
    ("number", "taken"), [(2**63 - 1, True), (2**63, False), (-(2**63), True), (2.0**63, False)]
)
def test_the_ends_of_64_bits(number: float, taken: bool) -> None:
    tensor = Tensor("x", "INT64", (1,), [number])
    if taken:
        assert tensor.numbers().tolist() == [number]
    else:
        with pytest.raises(InvalidRequest, match="a number is"):
            tensor.numbers()


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 200_000])
def test_long_rows_are_written_whole(size: int) -> None:
    rows = [np.random.default_rng(seed).normal(size=(2, size)).astype(np.float32) for seed in (0, 1)]
    assert np.array_equal(np.array(json.loads(json_rows(rows)), np.float32), np.concatenate(rows, axis=None))
    assert join_rows(rows) == b"".join(row.tobytes() for row in rows)


def test_rows_are_written_as_they_are_seen() -> None:
    row = np.arange(12, dtype=">f4").reshape(3, 4)[:, ::2]
    assert json.loads(json_rows([row])) == [0, 2, 4, 6, 8, 10]
    assert np.frombuffer(join_rows([row]), "<f4").tolist() == [0, 2, 4, 6, 8, 10]
    assert json.loads(json_rows([np.array([[np.nan, -np.inf, 0.1]], np.float32)])) == [
        None, None, pytest.approx(0.1),
    ]  # fmt: skip


def test_the_json_ends_where_the_header_says() -> None:
    tensor = {"name": "x", "shape": [2], "datatype": "UINT8", "parameters": {"binary_data_size": 2}}
    text = json.dumps({"inputs": [tensor]}).encode()
    asked = read_request(text + b"ab", str(len(text)))
    assert bytes(asked.inputs["x"].data) == b"ab"
    assert [(output.name, output.binary) for output in asked.outputs] == [
        ("logits", False), ("probabilities", False), ("label", False), ("map", False),
    ]  # fmt: skip
    with pytest.raises(InvalidRequest, match="malformed JSON"):
        read_request(text + b"ab", str(len(text) + 1))
    with pytest.raises(InvalidRequest, match="malformed JSON"):
        read_request(text + b"ab", str(len(text) - 1))
