"""Levels against the definition, on values that are all there at once."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from konkyo.evaluation.top import Top


def level(values, count, parts=1):
    top = Top(count)
    for part in torch.tensor(values).float()[None].tensor_split(parts, dim=1):
        top.add(part)
    return top.levels().item()


def test_the_level_by_hand():
    values = [3.0, 1.0, 2.0, 5.0, 4.0, 0.0]
    assert level(values, 0) == np.float32(5 - 5e-6)  # of the range of 5, one millionth is for rounding
    assert level(values, 2) == np.float32(3 - 5e-6)


def test_a_unit_at_its_lowest_is_not_active_there():
    assert level([0.0, 0.0, 0.0, 2.0], 2) == np.float32(2e-6)
    assert level([-1.0, -1.0, -1.0], 1) == np.inf


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(0, 59), st.integers(1, 12)
)  # fmt: skip
def test_at_most_so_many_lie_over_it_whatever_the_parts(values, count, parts):
    count, parts = min(count, len(values) - 1), min(parts, len(values))
    found = level(values, count, parts)
    assert found == level(values, count)
    values = np.array(values)
    if values.min() == values.max():
        assert found == np.inf
        return
    expected = np.sort(values)[::-1][count]
    assert (values > expected).sum() <= count
    rises = values[values > values.min()]
    assert np.array_equal(values >= found, values >= max(expected, rises.min()))
