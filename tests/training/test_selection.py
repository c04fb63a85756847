from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from konkyo.training.errors import TrainingError
from konkyo.training.selection import by_confidence, by_map_error, select


def test_by_confidence_the_least_confident_come_first() -> None:
    probabilities = np.array([[0.9, 0.05, 0.05], [0.3, 0.4, 0.3], [0.2, 0.2, 0.6], [0.5, 0.4, 0.1]])
    assert by_confidence(probabilities).tolist() == [1, 3, 2, 0]


def test_images_of_equal_confidence_keep_their_order() -> None:
    probabilities = np.array([[0.75, 0.25], [0.25, 0.75], [0.5, 0.5], [0.75, 0.25]] * 10)
    ties = by_confidence(probabilities)
    assert ties[:10].tolist() == list(range(2, 40, 4))
    assert ties[10:].tolist() == [i for i in range(40) if i % 4 != 2]


def test_by_map_error_the_farthest_map_comes_first_and_equal_ones_keep_their_order() -> None:
    assert by_map_error(np.array([0.0, 0.13, 1.0, 0.25, 1.0])).tolist() == [2, 4, 3, 1, 0]


@pytest.mark.parametrize(
    ("n", "share", "count"),
    [
        (10, 0.1, 1),
        (10, 0.11, 2),
        (10, 1.0, 10),
        (3, 0.5, 2),
        (100, 0.07, 7),
        (100, 0.55, 55),
        (10, 1e-12, 1),
    ],
)
def test_select_takes_the_first_ceil_of_the_share(n: int, share: float, count: int) -> None:
    order = np.arange(n)[::-1]
    assert select(order, share).tolist() == list(range(n - 1, n - 1 - count, -1))


@given(n=st.integers(1, 2000), percent=st.integers(1, 100))
def test_whole_percents_are_exact(n: int, percent: int) -> None:
    assert len(select(np.arange(n), percent / 100)) == -(-percent * n // 100)


def test_of_no_images_none_is_selected() -> None:
    assert select(np.arange(0), 0.5).tolist() == []


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(TrainingError, match=r"lies in \(0, 1\]"):
        select(np.arange(3), share)
