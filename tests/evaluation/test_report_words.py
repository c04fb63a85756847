"""Numbers, axes and verdicts of the report, by hand."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from konkyo.evaluation.comparing import Entry
from konkyo.evaluation.measures import measures
from konkyo.evaluation.report.charts import DOTS_EDGE, DOTS_WIDTH, Line, axis, chart, dots
from konkyo.evaluation.report.glance import glance
from konkyo.evaluation.report.numbers import brief, decimals, interval, listed, number, setting
from konkyo.evaluation.report.shades import LARGEST, shades
from konkyo.evaluation.report.verdicts import Verdict, standing
from konkyo.evaluation.report.verdicts import verdict as verdict_of
from konkyo.evaluation.report.words import QUESTIONS, WORDS, Question
from konkyo.evaluation.results import DifferenceResult, MatrixResult, MeasureResult
from made_results import MODEL, differing, figure, measured, realistic, results

STANDINGS = [
    pytest.param((0.01, 0.2), "higher", "better", id="above"),
    pytest.param((0.01, 0.2), "lower", "worse", id="above where lower is better"),
    pytest.param((-0.2, -0.01), "higher", "worse", id="below"),
    pytest.param((-0.2, -0.01), "lower", "better", id="below where lower is better"),
    pytest.param((-0.01, 0.2), "higher", "open", id="across"),
    pytest.param((0.0, 0.2), "higher", "open", id="touch"),
    pytest.param((None, None), "higher", "open", id="no interval"),
]


@pytest.mark.parametrize(("ends", "better", "expected"), STANDINGS)
def test_figures_are_told_apart_where_the_interval_of_their_difference_leaves_out_0(
    ends: tuple[float | None, float | None], better: Any, expected: str
) -> None:
    low, high = ends
    to = DifferenceResult(candidate=MODEL, source="centre", value=0.1, low=low, high=high)
    elsewhere = to.model_copy(update={"candidate": "other/1", "low": 5.0, "high": 6.0})
    one = figure("f", 0.5, 0.1, 0.9, better=better).model_copy(update={"differences": (elsewhere, to)})
    other = measured("pointing", "centre", figure("f", 0.4, 0.1, 0.9, better=better))
    assert standing(one, Entry(other, other.figures[0])) == expected
    unknown = measured("pointing", "edges", figure("f", 0.4, better=better))
    assert standing(one, Entry(unknown, unknown.figures[0])) == "open"


@pytest.mark.parametrize(
    ("value", "places", "expected"),
    [(0.5, 2, "0.50"), (-0.125, 3, "−0.125"), (-0.0001, 2, "0.00"), (12345.6, 1, "12,345.6"), (None, 2, "–")],  # noqa: RUF001
)
def test_numbers(value: float | None, places: int, expected: str) -> None:
    assert number(value, places) == expected


def test_decimals_follow_the_width_of_the_intervals() -> None:
    assert decimals([figure("f", 0.5, 0.4, 0.6)]) == 2
    assert decimals([figure("f", 0.5, 0.1, 0.9)]) == 2
    assert decimals([figure("f", 0.5, 0.499, 0.501)]) == 3
    assert decimals([figure("f", 30.0, 20.0, 40.0)]) == 0
    assert decimals([figure("f", 1.0, 1.0, 1.0)]) == 3
    assert interval(figure("f", 0.5, 0.4, 0.6), 2) == "0.40 to 0.60"
    assert interval(figure("f", 0.5)) == ""


def test_words_of_lists_and_settings() -> None:
    assert [listed("a"), listed("ab"), listed("abc")] == ["a", "a and b", "a, b and c"]
    assert [setting(value) for value in (True, None, [1, 2], 15.0, {"b": 1, "a": 2}, [])] == [
        "yes", "none", "1, 2", "15.0", '{"a": 2, "b": 1}', "none",
    ]  # fmt: skip
    assert [brief(value) for value in (314.856, 17.04, -2.5, 0.1234)] == ["315", "17.0", "−2.50", "0.123"]  # noqa: RUF001


finite = st.floats(-1e6, 1e6).map(lambda value: round(value, 4))


@given(st.lists(finite, min_size=1))
def test_an_axis_holds_its_values_and_zero(values: list[float]) -> None:
    ticks = axis(values).ticks
    assert ticks[0] <= min(0, *values) <= max(0, *values) <= ticks[-1]
    assert len({f"{later - earlier:.6g}" for earlier, later in itertools.pairwise(ticks)}) == 1
    assert len(set(axis(values).texts())) == len(ticks)


def test_shares_have_one_axis() -> None:
    assert axis([0.71, 0.8]).texts() == ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
    assert axis([-0.8, 0.9]).ticks[0] == -1
    assert axis([None]).ticks[-1] == 1


def test_dots_lie_in_proportion() -> None:
    drawn = dots(figure("f", 0.5, 0.25, 0.75), axis([1]), figure("f", 0.0, 0.0, 1.0))
    assert drawn is not None
    assert drawn.value == DOTS_WIDTH / 2
    assert drawn.bar == (35.5, 96.5)
    assert drawn.beat == DOTS_EDGE
    assert drawn.beat_bar == (DOTS_EDGE, DOTS_WIDTH - 2 * DOTS_EDGE)
    assert dots(figure("f", None), axis([1]), None) is None


def test_a_curve_is_broken_where_it_has_no_value_and_its_band_where_it_has_no_interval() -> None:
    line = Line("a", 0, False, (0, 0.5, 1), (0, None, 1), (0, 0.4, 0.9), (0, None, 1))
    drawn = chart([line], (axis([1]), axis([1])), ("Rise", "share", "score"), diagonal=True)
    assert drawn.paths[0].path == "M46 222h.1M390 10h.1"
    assert drawn.paths[0].bands == ["M46 222L46 222Z", "M390 31.2L390 10Z"]
    assert drawn.diagonal == "M46 222L390 10"
    assert drawn.says == "Rise: score over share. a: 0.00 at 0.00, 1.00 at 1.00."


def compared(**outcomes: tuple[float, float]) -> list[MeasureResult]:
    """By each measure a map with an interval, against a baseline at 0.4 to 0.5."""
    found = []
    for measure, (low, high) in outcomes.items():
        found.append(measured(measure, "gradcam", figure("f", (low + high) / 2, low, high)))
        found.append(measured(measure, "centre", figure("f", 0.45, 0.4, 0.5)))
    return found


def verdict(taken: list[MeasureResult], source: str, question: Question) -> Verdict:
    return verdict_of(differing(taken), MODEL, source, question)


ABOVE, ACROSS, BELOW = (0.6, 0.7), (0.45, 0.7), (0.1, 0.2)


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [
        ({"pointing": ABOVE, "energy": ABOVE}, "yes"),
        ({"pointing": ABOVE, "energy": ACROSS}, "part"),
        ({"pointing": ABOVE, "energy": BELOW}, "part"),
        ({"pointing": ACROSS, "energy": BELOW}, "open"),
        ({"pointing": BELOW}, "no"),
        ({"occlusion_correlation": ABOVE}, "unknown"),
        ({"expert_map": ABOVE}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_a_verdict_needs_every_measure_of_its_question(outcomes: Any, state: str) -> None:
    assert verdict(compared(**outcomes), "gradcam", "place").state == state


def test_what_every_map_must_pass_is_no_merit() -> None:
    def shuffled(share: float) -> MeasureResult:
        alike = figure("correlation_all", 0.1, 0.05, 0.15, better="lower")
        return measured("randomization", "gradcam", alike, figure("unchanged_all", share, better="lower"))

    assert verdict([shuffled(0.1)], "gradcam", "decision").state == "unknown"
    beaten = compared(occlusion_correlation=ABOVE)
    found = verdict([shuffled(0.1), *beaten], "gradcam", "decision")
    assert (found.state, [item.outcome for item in found.comparisons]) == ("yes", ["passes", "better"])
    assert verdict([shuffled(0.6), *beaten], "gradcam", "decision").state == "no"
    lead = glance(results(shuffled(0.6), *beaten)).leads[0]
    assert (lead.map, lead.trusted, lead.text) == (
        "gradcam", False, "better than a map that never asks the model in 1 of 1 measure of the decision",
    )  # fmt: skip


def test_a_measure_may_be_judged_by_another_than_its_first_figure() -> None:
    def both(source: str, first: float, score: float) -> MeasureResult:
        figures = [
            figure(name, v, v - 0.05, v + 0.05) for name, v in (("insertion", first), ("score", score))
        ]
        return measured("insertion_deletion", source, *figures)

    taken = [both("gradcam", 0.9, 0.2), both("centre", 0.1, 0.5)]
    assert verdict(taken, "gradcam", "decision").state == "no"


def test_too_few_images_decide_nothing() -> None:
    few = measured("pointing", "gradcam", figure("f", 0.9, 0.85, 0.95, images=12))
    baseline = measured("pointing", "centre", figure("f", 0.1, 0.05, 0.15, images=12))
    assert verdict([few, baseline], "gradcam", "place").state == "few"
    with_more = [few, baseline, *compared(energy=ABOVE)]
    found = verdict(with_more, "gradcam", "place")
    assert (found.state, [item.measure for item in found.of("few")]) == ("yes", ["pointing"])
    lead = glance(results(few, baseline)).leads[0]
    assert lead.map is None
    assert lead.text.startswith("These images are too few to tell")


def test_the_best_baseline_of_the_same_model_must_be_beaten() -> None:
    weak = measured("pointing", "random", figure("f", 0.1, 0.05, 0.15))
    other = measured("pointing", "edges", figure("f", 0.9, 0.85, 0.95), candidate="other/1")
    both = [*compared(pointing=ACROSS), weak, other]
    assert verdict(both, "gradcam", "place").state == "open"


def test_the_lead_names_the_map_that_beats_most() -> None:
    lead = glance(realistic()).leads[0]
    assert (lead.map, lead.trusted) == ("attention", True)
    assert lead.text == (
        "better than a map that never asks the model in 3 of 4 measures of place "
        "and 2 of 2 measures of the decision"
    )
    assert [(seen.title, seen.value, seen.interval) for seen in lead.answers] == [
        ("accuracy", "0.91", "0.87 to 0.94")
    ]


def test_maps_that_beat_nothing_are_not_recommended() -> None:
    lead = glance(results(*compared(pointing=BELOW))).leads[0]
    assert (lead.map, lead.text) == (
        None, "Each of its maps is worse than one that never asks the model: do not rely on them.",
    )  # fmt: skip
    alone = measured("pointing", "gradcam", figure("f", 0.9, 0.8, 1.0))
    assert "not compared" in glance(results(alone)).leads[0].text


@pytest.mark.parametrize("name", measures())
def test_every_measure_has_words(name: str) -> None:
    words = WORDS[name]
    assert words.question in QUESTIONS
    for sentences in (words.definition, words.says, words.silent):
        assert sentences[0].isupper() or sentences[0].isdigit()
        assert sentences.endswith(".")
    assert not words.short.endswith(".")


def test_words_are_of_measures_that_exist() -> None:
    assert set(WORDS) == set(measures())


def test_a_small_matrix_is_a_table_and_a_large_one_its_largest_confusions() -> None:
    names = tuple("abc")
    matrix = MatrixResult(
        name="m", title="M", row_title="true", column_title="answer", rows=names, columns=names,
        values=((8, 2, 0), (0, 0, 0), (5, 5, 0)),
    )  # fmt: skip
    small = shades(matrix, MODEL)
    assert [[cell.step for cell in row.cells] for row in small.rows] == [[8, 2, 0], [0, 0, 0], [5, 5, 0]]
    many = tuple(map(str, range(LARGEST + 1)))
    values = [[0.0] * len(many) for _ in many]
    values[3][4], values[5][6], values[0][0] = 7, 9, math.inf
    large = shades(matrix.model_copy(update={"rows": many, "columns": many, "values": values}), MODEL)
    assert large.rows == []
    assert [tuple(pair) for pair in large.pairs] == [("5", "6", "9"), ("3", "4", "7")]
