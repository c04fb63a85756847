from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from konkyo.evaluation.bootstrap import (
    Interval,
    Resampling,
    Units,
    difference_interval,
    interval,
    mean_band,
)
from konkyo.evaluation.measures.base import Columns, Mean

FAST = Resampling(resamples=100)


def of_mean(columns: Columns) -> float:
    """The mean, but not known to be one, so that it is taken of each resample."""
    return float(np.nanmean(columns["x"]))


def apart(number: int) -> Units:
    return Units(range(number))


@pytest.mark.parametrize("of", [Mean("x"), of_mean], ids=["mean", "any figure"])
def test_as_scipy(of: Mean) -> None:
    values = np.random.default_rng(1).exponential(size=37)
    theirs = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=500,
        confidence_level=0.9,
        method="percentile",
        rng=np.random.default_rng(5),
    ).confidence_interval
    ours = interval(of, {"x": values}, apart(37), Resampling(500, 0.9, 5))
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_groups_as_scipy_of_their_means() -> None:
    """Groups of one size: drawing them is drawing their means."""
    values = np.random.default_rng(2).normal(size=(20, 3))
    theirs = stats.bootstrap(
        (values.mean(axis=1),),
        np.mean,
        n_resamples=300,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    units = Units(np.repeat(np.arange(20), 3).tolist())
    for of in (Mean("x"), of_mean):
        ours = interval(of, {"x": values.ravel()}, units, Resampling(300))
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_dependent_records_widen_it() -> None:
    """Each image ten times says no more than each image once."""
    values = np.random.default_rng(3).normal(size=50)
    tenfold = np.repeat(values, 10)
    once = interval(Mean("x"), {"x": values}, apart(50), Resampling())
    grouped = interval(Mean("x"), {"x": tenfold}, Units(np.repeat(np.arange(50), 10).tolist()), Resampling())
    naive = interval(Mean("x"), {"x": tenfold}, apart(500), Resampling())
    assert once is not None
    assert naive is not None
    np.testing.assert_allclose(grouped, once, rtol=1e-12)
    assert naive.high - naive.low < 0.4 * (once.high - once.low)


def test_holds_the_truth_as_often_as_it_says() -> None:
    """Of 400 samples of 40 from a normal distribution; 0.90 +- 3 standard errors is 0.855 to 0.945."""
    generator = np.random.default_rng(4)
    held = 0
    for _ in range(400):
        ends = interval(Mean("x"), {"x": generator.normal(size=40)}, apart(40), Resampling(200, 0.9))
        assert ends is not None
        held += ends.low <= 0 <= ends.high
    assert 0.855 <= held / 400 <= 0.945


def test_units_give_their_records_as_often_as_they_are_drawn() -> None:
    units = Units(["b", "a", "b", "c"])
    assert len(units) == 3
    assert units.of.tolist() == [0, 1, 0, 2]
    assert units.records(np.array([0, 2, 0])).tolist() == [0, 2, 3, 0, 2]


@pytest.mark.parametrize("of", [Mean("x"), of_mean], ids=["mean", "any figure"])
def test_no_interval_of_one_image(of: Mean) -> None:
    assert interval(of, {"x": np.array([1.0, 2.0])}, Units("aa"), FAST) is None


def test_no_interval_of_one_known_image() -> None:
    values = np.array([math.nan, 2.0, math.nan])
    assert interval(Mean("x"), {"x": values}, apart(3), FAST) is None
    assert interval(Mean("x"), {"x": values[::2]}, apart(2), FAST) is None


@pytest.mark.parametrize("of", [Mean("x"), of_mean], ids=["mean", "any figure"])
def test_no_width_where_all_are_equal(of: Mean) -> None:
    ends = interval(of, {"x": np.full(9, 0.5)}, apart(9), FAST)
    assert ends == Interval(0.5, 0.5)


def test_what_is_not_known_does_not_count() -> None:
    values = np.array([0.0, math.nan, 1.0, math.nan, 1.0])
    known = values[~np.isnan(values)]
    assert interval(Mean("x"), {"x": values}, apart(5), FAST) == interval(
        Mean("x"), {"x": known}, apart(3), FAST
    )


def test_resamples_without_a_figure_do_not_count() -> None:
    def ratio(columns: Columns) -> float:
        positives = columns["x"].sum()
        return float(columns["y"].sum() / positives) if positives else math.nan

    columns = {"x": np.array([1.0, 0.0, 0.0]), "y": np.array([0.5, 0.0, 0.0])}
    assert interval(ratio, columns, apart(3), FAST) == Interval(0.5, 0.5)


@given(
    st.lists(st.floats(-1e3, 1e3) | st.just(math.nan), min_size=2, max_size=30),
    st.integers(1, 5),
    st.integers(0, 3),
)
def test_lies_within_the_values_and_is_the_same_again(values: list[float], groups: int, seed: int) -> None:
    columns = {"x": np.array(values)}
    units = Units([place % groups for place in range(len(values))])
    found = interval(Mean("x"), columns, units, Resampling(100, seed=seed))
    assert found == interval(Mean("x"), columns, units, Resampling(100, seed=seed))
    if found is not None:
        assert np.nanmin(values) - 1e-9 <= found.low <= found.high <= np.nanmax(values) + 1e-9


@pytest.mark.parametrize("of", [Mean("x"), of_mean], ids=["mean", "any figure"])
def test_a_difference_is_of_the_same_draws(of: Mean) -> None:
    """As scipy's of the differences of the single images."""
    one, two = np.random.default_rng(7).normal(size=(2, 30))
    theirs = stats.bootstrap(
        (one - two,), np.mean, n_resamples=300, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    ours = difference_interval(of, {"x": one}, of, {"x": two}, apart(30), Resampling(300))
    np.testing.assert_allclose(ours, theirs, rtol=1e-10)


@pytest.mark.parametrize("of", [Mean("x"), of_mean], ids=["mean", "any figure"])
def test_what_makes_an_image_hard_for_both_does_not_widen_a_difference(of: Mean) -> None:
    hard = np.random.default_rng(8).normal(size=40)
    better, worse = {"x": hard + 0.125}, {"x": hard}
    own = [interval(of, columns, apart(40), FAST) for columns in (better, worse)]
    assert own[0] is not None
    assert own[1] is not None
    assert own[0].low < own[1].high, "they overlap"
    found = difference_interval(of, better, of, worse, apart(40), FAST)
    np.testing.assert_allclose(found, (0.125, 0.125), rtol=1e-9)


def test_a_difference_without_records_that_are_known_has_no_interval() -> None:
    known, unknown = {"x": np.array([1.0, 2.0])}, {"x": np.full(2, math.nan)}
    assert difference_interval(Mean("x"), known, Mean("x"), unknown, apart(2), FAST) is None
    assert difference_interval(Mean("x"), known, Mean("x"), known, Units("aa"), FAST) is None


def test_equals_are_told_apart_as_seldom_as_it_says() -> None:
    """Of 400 pairs of samples of 40; 0.10 +- 3 standard errors is 0.055 to 0.145."""
    generator = np.random.default_rng(9)
    apart_from_0 = 0
    for _ in range(400):
        hard = generator.normal(scale=5, size=40)
        one, two = ({"x": hard + generator.normal(size=40)} for _ in range(2))
        ends = difference_interval(Mean("x"), one, Mean("x"), two, apart(40), Resampling(200, 0.9))
        assert ends is not None
        apart_from_0 += not ends.low <= 0 <= ends.high
    assert 0.055 <= apart_from_0 / 400 <= 0.145


def test_curves_are_taken_point_by_point() -> None:
    curves: npt.NDArray[np.float64] = np.random.default_rng(6).normal(size=(25, 4))
    curves[::2, 3] = math.nan
    curves[1:, 2] = math.nan
    low, high = mean_band(curves, apart(25), Resampling(200))
    assert low.shape == high.shape == (4,)
    for point in (0, 1):
        found = interval(Mean("x"), {"x": curves[:, point]}, apart(25), Resampling(200))
        np.testing.assert_allclose((low[point], high[point]), found, rtol=1e-12)
    assert np.isnan([low[2], high[2]]).all()  # a single image
    assert np.nanmin(curves[:, 3]) < low[3] < high[3] < np.nanmax(curves[:, 3])
