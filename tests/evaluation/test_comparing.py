from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from konkyo.evaluation.bootstrap import Resampling
from konkyo.evaluation.comparing import Entry, Measured, best, best_baseline, best_map, compare
from konkyo.evaluation.measures.base import Better, Mean, Statistic
from konkyo.evaluation.results import DifferenceResult
from konkyo.evaluation.table import Table, side_by_side
from made_results import MODEL, figure, measured

NAMES = tuple(f"{place}.png" for place in range(20))
HARD = np.random.default_rng(0).normal(size=20)


def table(values: Sequence[float], examples: Sequence[str] = NAMES, abouts: Sequence[str] = ()) -> Table:
    return Table(
        examples=examples,
        abouts=abouts or [""] * len(examples),
        targets=[None] * len(examples),
        keys=[("image", name) for name in examples],
        columns={"x": np.array(values, np.float64)},
        seconds=0,
    )


def of(
    source: str,
    values: Sequence[float],
    candidate: str = MODEL,
    better: Better = "higher",
    of: Table | None = None,
) -> Measured:
    value = float(np.nanmean(values))
    found = measured("pointing", source, figure("f", value, better=better), candidate=candidate)
    return Measured(found, {"f": Statistic("f", Mean("x"), better, "f")}, of or table(values))


def differences(*items: Measured) -> Mapping[tuple[str, str | None], tuple[DifferenceResult, ...]]:
    found = compare(items, Resampling(200))
    return {(item.candidate, item.source): item.figures[0].differences for item in found}


def test_a_map_is_held_against_the_best_baseline_of_its_model_and_the_best_map_of_all() -> None:
    items = (
        of("gradcam", HARD + 1),
        of("cam", HARD + 3),
        of("random", HARD - 1),
        of("centre", HARD),
        of("cam", HARD + 2, candidate="other/1"),
        of("centre", HARD + 5, candidate="other/1"),
    )
    found = differences(*items)
    assert list(found) == [(item.result.candidate, item.result.source) for item in items], "their order"
    told = {
        name: [(to.candidate, to.source, round(to.value or 0, 9)) for to in those]
        for name, those in found.items()
    }
    assert told == {
        (MODEL, "gradcam"): [(MODEL, "centre", 1.0), (MODEL, "cam", -2.0)],
        (MODEL, "cam"): [(MODEL, "centre", 3.0)],
        (MODEL, "random"): [],
        (MODEL, "centre"): [],
        ("other/1", "cam"): [("other/1", "centre", -3.0), (MODEL, "cam", -1.0)],
        ("other/1", "centre"): [],
    }
    for to in (to for those in found.values() for to in those):
        assert (to.low, to.high) == pytest.approx((to.value, to.value)), (
            "they differ by as much in every image"
        )


def test_the_best_is_the_smallest_where_lower_is_better() -> None:
    found = differences(
        of("cam", HARD + 1, better="lower"),
        of("gradcam", HARD, better="lower"),
        of("edges", HARD + 2, better="lower"),
    )
    assert [to.source for to in found[MODEL, "cam"]] == ["edges", "gradcam"]


def test_only_what_both_have_is_compared() -> None:
    """The other has no record of the first image, where the difference is largest."""
    found = differences(
        of("cam", [100, *np.ones(19)]), of("centre", [0.0] * 19, of=table([0.0] * 19, NAMES[:0:-1]))
    )
    [to] = found[MODEL, "cam"]
    assert (to.value, to.low, to.high) == (1, 1, 1)


def test_nothing_in_common_is_no_difference() -> None:
    [to] = differences(of("cam", [1, 2]), of("centre", [1], of=table([1], ["elsewhere.png"])))[MODEL, "cam"]
    assert (to.value, to.low, to.high) == (None, None, None)


def test_records_are_of_the_same_thing_in_the_same_image() -> None:
    one = table([0] * 5, ["a", "a", "b", "c", "c"], ["cat", "dog", "cat", "cat", "cat"])
    other = table([0] * 4, ["c", "c", "a", "d"], ["cat", "cat", "dog", "cat"])
    here, there = side_by_side(one, other)
    assert (here.tolist(), there.tolist()) == ([1, 3, 4], [2, 0, 1])


def entry(value: float | None, source: str = "cam", better: Better = "higher") -> Entry:
    of = figure("f", value, better=better)
    return Entry(measured("pointing", source, of), of)


def test_the_best_is_the_largest_or_the_smallest_and_none_where_neither_is_better() -> None:
    values = (0.2, None, 0.7, 0.1)
    assert best([entry(value) for value in values]) == entry(0.7)
    assert best([entry(value, better="lower") for value in values]) == entry(0.1, better="lower")
    assert best([entry(value, better="neither") for value in values]) is None
    assert best([entry(None)]) is None


def test_baselines_are_no_maps() -> None:
    known = [entry(0.2), entry(0.9, "centre"), entry(0.3, "random")]
    assert best_map(known) == known[0]
    assert best_baseline(known, MODEL) == known[1]
    assert best_baseline(known, "other/1") is None
