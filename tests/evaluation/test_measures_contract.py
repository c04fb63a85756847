"""What every registered measure keeps to, on a real network: a new one is tested by existing."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch
from toys import Given, make_example, mark

from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.examples import Batch, Example
from konkyo.evaluation.measures import measures
from konkyo.evaluation.measures.base import Better, Mean, Measure, Record, Statistic, Unsuited, Wants
from konkyo.evaluation.sources import find_source
from konkyo.evaluation.wanted import maps_of, targets_of
from konkyo.models.bundle import read_bundle
from konkyo.service.settings import ZOO

DOCUMENT = Path(__file__).parents[2] / "docs" / "evaluation.md"
SIDE = 32
CLOSE = 1e-4
"""Batches of other sizes are summed in other orders."""

by_measure = pytest.mark.parametrize("name", measures())
by_measure_of_maps = pytest.mark.parametrize(
    "name", [name for name, kind in measures().items() if kind.wants != "nothing"]
)


@cache
def candidate() -> Candidate:
    """A network whose own maps are of classes, with a graph for ONNX Runtime beside its weights."""
    return Candidate.load(read_bundle(ZOO / "gcm-cifar10" / "1"))


@cache
def examples() -> tuple[Example, ...]:
    """Blobs on noise: two things, one, one that is out of sight, nothing, and nobody looked."""
    generator = np.random.default_rng(0)

    def picture(*things: tuple[slice, slice]) -> npt.NDArray[np.uint8]:
        pixels = generator.integers(60, 130, (SIDE, SIDE, 3), np.uint8)
        for thing in things:
            pixels[thing] = (220, 200, 40)
        return pixels

    def mask(*things: tuple[slice, slice]) -> npt.NDArray[np.bool_]:
        inside = np.zeros((SIDE, SIDE), bool)
        for thing in things:
            inside[thing] = True
        return inside

    left, right = (slice(8, 18), slice(3, 12)), (slice(14, 30), slice(18, 31))
    both = (mark(mask(left), 3, name="cat"), mark(mask(right), 5, 7, name="dog"))
    hidden = (mark(mask(), 3, name="cat"),)
    return (
        make_example(picture(left, right), 3, both, "both", group="a"),
        make_example(picture(right), 5, both[1:], "dog", group="a"),
        make_example(picture(), 3, hidden, "hidden"),
        make_example(picture(), 0, (), "nothing"),
        make_example(picture(left), None, None, "unknown"),
    )


def batch_of(*chosen: Example) -> Batch:
    pixels = torch.from_numpy(np.stack([example.pixels for example in chosen]))
    return Batch(chosen, pixels, candidate().logits(pixels))


def make(name: str, source: str = "gcm") -> Measure:
    kind = measures()[name]
    found = None if kind.wants == "nothing" else find_source(source, candidate())
    return kind(candidate(), found, kind.parameters())


def records_of(measure: Measure, *chosen: Example) -> list[Record]:
    batch, wants = batch_of(*chosen), measure.wants
    targets = targets_of(wants, batch)
    if measure.source is None:
        return list(measure.records(batch, targets, torch.zeros(len(chosen), 0, 1, 1)))
    maps = maps_of(measure.source, candidate(), batch, {wants: targets})[wants]
    return list(measure.records(batch, targets, maps))


@cache
def of_all(name: str) -> tuple[Record, ...]:
    return tuple(records_of(make(name), *examples()))


def columns_of(records: tuple[Record, ...]) -> dict[str, npt.NDArray[np.float64]]:
    return {
        column: np.array([record.values[column] for record in records], np.float64)
        for column in records[0].values
    }


@by_measure
def test_says_what_it_is(name: str) -> None:
    kind = measures()[name]
    assert re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", name)
    assert kind.title[0].isupper()
    assert kind.title[-1] != "."
    assert len(kind.reference) > 10
    assert kind.wants in get_args(Wants)
    assert all(field.description for field in kind.parameters.model_fields.values())


@by_measure
def test_has_a_section_in_the_document(name: str) -> None:
    sections = re.split(r"^### ", DOCUMENT.read_text(encoding="utf-8"), flags=re.M)
    section = next((part for part in sections if f"`{name}`" in part.partition("\n")[0]), "")
    assert len(section) > 200, f"docs/evaluation.md needs a section ### `{name}`: what it is"
    fields = measures()[name].parameters.model_fields
    assert [field for field in fields if not re.search(rf"`(--)?{field}[`=]", section)] == []


def test_the_measure_in_the_document_works() -> None:
    """On two images, by two methods, as it is written there."""
    [code] = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.M | re.S)
    names = {
        "register": lambda kind: kind,
        "Measure": Measure,
        "Record": Record,
        "Mean": Mean,
        "Statistic": Statistic,
    }
    exec(code, names)
    kind: type[Measure] = names["Mass"]  # type: ignore[assignment]
    for method in ("centre", "gradcam"):
        source = find_source(method, candidate())
        found = records_of(kind(candidate(), source, kind.parameters()), *examples()[:2])
        assert [record.position for record in found] == [0, 1]
        assert all(record.values["mass"] > 0 for record in found)


@by_measure
def test_records_have_one_shape_and_are_plain(name: str) -> None:
    found = of_all(name)
    assert found, "none of five images"
    assert len({tuple(record.values) for record in found}) == 1
    for record in found:
        assert 0 <= record.position < len(examples())
        for column, value in record.values.items():
            for number in value if isinstance(value, (list, tuple, np.ndarray)) else [value]:
                assert isinstance(number, (float, int)), f"{column}: {type(number)}"
                assert not math.isinf(number), column
    json.dumps([dict(record.values) for record in found])
    assert all(values.dtype == np.float64 for values in columns_of(found).values())  # curves of one length


@by_measure
def test_statistics_are_figures(name: str) -> None:
    measure, columns = make(name), columns_of(of_all(name))
    statistics = measure.statistics()
    assert statistics
    assert len({item.name for item in statistics}) == len(statistics)
    for item in statistics:
        assert re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", item.name)
        assert item.better in get_args(Better)
        assert item.title
        value = item.of(columns)
        assert isinstance(value, float)
        assert not math.isinf(value), item.name
    assert any(not math.isnan(item.of(columns)) for item in statistics)


@by_measure
def test_statistics_bear_a_single_record_and_none_known(name: str) -> None:
    """As a resample may be; warnings are errors here."""
    measure, all_of_them = make(name), columns_of(of_all(name))
    open_ = {column for column, values in all_of_them.items() if np.isnan(values).any()}
    for record in of_all(name):
        one = columns_of((record,))
        unknown = {
            column: np.full_like(values, math.nan) if column in open_ else values
            for column, values in one.items()
        }
        for item in measure.statistics():
            assert isinstance(item.of(one), float)
            assert isinstance(item.of(unknown), float)


@by_measure
def test_curves_matrices_and_notes_are_of_its_columns(name: str) -> None:
    measure, columns = make(name), columns_of(of_all(name))
    for curve in measure.curves():
        assert columns[curve.column].shape[1:] == (len(curve.x),)
    for matrix in measure.matrices():
        assert matrix.of(columns).shape == (len(matrix.rows), len(matrix.columns))
    assert all(isinstance(note, str) and note for note in measure.notes(columns))
    json.dumps(dict(measure.settled()))


@by_measure
def test_worst_cases_are_by_a_mean_with_a_direction(name: str) -> None:
    worst = measures()[name].worst
    if worst is not None:
        found = {item.name: item for item in make(name).statistics()}[worst]
        assert isinstance(found.of, Mean)
        assert found.better != "neither"
        assert columns_of(of_all(name))[found.of.column].ndim == 1


@by_measure
def test_records_do_not_depend_on_the_batch(name: str) -> None:
    """But for the last bits, and for what a measure of batches is there to find."""
    measure, whole = make(name), of_all(name)
    for position, example in enumerate(examples()):
        alone = records_of(measure, example)
        together = [record for record in whole if record.position == position]
        assert [record.about for record in alone] == [record.about for record in together]
        for one, other in zip(alone, together, strict=True):
            assert_close(one.values, other.values)


def assert_close(one: Mapping[str, object], other: Mapping[str, object]) -> None:
    for column, value in one.items():
        np.testing.assert_allclose(value, other[column], rtol=CLOSE, atol=CLOSE, err_msg=column)


@by_measure
def test_is_the_same_again_and_leaves_the_generator_alone(name: str) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    again = records_of(make(name), *examples())
    assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(again, of_all(name), strict=True):
        assert_close(one.values, other.values)


@by_measure
@pytest.mark.parametrize("unknown", [None, ()], ids=["nobody looked", "nothing there"])
def test_says_nothing_where_nothing_is_known(name: str, unknown: tuple[()] | None) -> None:
    """No truth, and no mask: no crash, and no figure out of nothing."""
    measure = make(name)
    strangers = [make_example(example.pixels, None, unknown, example.name) for example in examples()[:2]]
    found = tuple(records_of(measure, *strangers))
    if measure.wants in ("marked", "truth"):
        assert found == ()
    elif found:
        assert all(isinstance(item.of(columns_of(found)), float) for item in measure.statistics())


@by_measure_of_maps
@pytest.mark.parametrize("source", ["centre", "random", "gradcam", "contribution"])
def test_takes_or_refuses_every_kind_of_source(name: str, source: str) -> None:
    refused = ""
    try:
        measure = make(name, source)
    except Unsuited as reason:
        refused = str(reason)
    if refused:
        assert 10 < len(refused) < 200
        assert not refused.endswith(".")
        return
    columns = columns_of(tuple(records_of(measure, *examples()[:2])))
    assert all(isinstance(item.of(columns), float) for item in measure.statistics())


@by_measure_of_maps
@pytest.mark.parametrize("level", [0.0, math.nan], ids=["flat", "not finite"])
def test_bears_maps_that_say_nothing(name: str, level: float) -> None:
    kind = measures()[name]
    measure = kind(candidate(), Given(torch.full((4, 4), level)), kind.parameters())
    for record in records_of(measure, *examples()[:2]):
        for value in record.values.values():
            assert not np.isinf(np.asarray(value, np.float64)).any()
