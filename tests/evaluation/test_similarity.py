from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from quantus.functions.similarity_func import correlation_spearman
from scipy.stats import spearmanr

from konkyo.evaluation.similarity import flat, largest_difference, rank_correlation

# Few different values, so that many are equal.
PAIRS = arrays(np.float32, (2, 3, 4), elements=st.integers(-2, 2).map(float))


def one(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(1, 1, -1)


@given(PAIRS)
def test_is_scipys_with_ties_and_where_that_has_none_neither(pair: np.ndarray) -> None:
    first, second = torch.from_numpy(pair[0])[None], torch.from_numpy(pair[1])[None]
    [found] = rank_correlation(first, second)
    if np.ptp(pair[0]) == 0 or np.ptp(pair[1]) == 0:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(spearmanr(pair[0].ravel(), pair[1].ravel()).statistic, abs=1e-12)
        assert found == pytest.approx(correlation_spearman(pair[0].ravel(), pair[1].ravel()), abs=1e-12)


def test_only_the_order_counts_and_its_reverse_is_minus_one() -> None:
    rising = one(1, 2, 3, 4)
    assert rank_correlation(rising, one(-9, 0, 0.1, 1e6)) == pytest.approx([1])
    assert rank_correlation(rising, one(4, 3, 2, -1)) == pytest.approx([-1])
    # Ranks 1, 2.5, 2.5, 4 against 1 to 4: 4.5 / sqrt(5 * 4.5).
    assert rank_correlation(rising, one(0, 1, 1, 2)) == pytest.approx([4.5 / math.sqrt(22.5)])


def test_pairs_of_a_batch_do_not_mix() -> None:
    first, second = torch.rand(5, 3, 3), torch.rand(5, 3, 3)
    alone = [rank_correlation(first[i, None], second[i, None])[0] for i in range(5)]
    assert rank_correlation(first, second).tolist() == pytest.approx(alone)


@pytest.mark.parametrize(
    "values",
    [(0.0, 0.0), (7.0, 7.0), (1.0, 1.0 + 1e-7), (0.0, math.nan), (0.0, math.inf), (-math.inf, 0.0)],
)
def test_what_is_constant_but_for_rounding_or_not_finite_has_no_order(values: tuple[float, ...]) -> None:
    assert flat(one(*values)).tolist() == [True]
    assert np.isnan(rank_correlation(one(*values), one(1, 2))).all()
    assert np.isnan(rank_correlation(one(1, 2), one(*values))).all()
    assert np.isnan(largest_difference(one(*values), one(1, 2))).all()
    assert np.isnan(largest_difference(one(1, 2), one(*values))).all()


def test_a_small_map_is_not_a_flat_one() -> None:
    assert flat(one(0, 1e-30)).tolist() == [False]
    assert flat(one(1, 1 + 1e-4)).tolist() == [False]


def test_differences_are_shares_of_the_larger_range() -> None:
    assert largest_difference(one(0, 2, 4), one(0, 1, 4)) == pytest.approx([1 / 4])
    assert largest_difference(one(0, 0.1), one(0, 10)) == pytest.approx([9.9 / 10])
    assert largest_difference(one(1, 2), one(1, 2)).tolist() == [0]
