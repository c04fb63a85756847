from __future__ import annotations

import pytest

from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.measures import measures
from konkyo.evaluation.planning import choose, method_names, plan, require_methods
from konkyo.models.bundle import read_bundle
from konkyo.service.settings import ZOO


@pytest.fixture(scope="module")
def gcm() -> Candidate:
    return Candidate.load(read_bundle(ZOO / "gcm-cifar10" / "1"))


@pytest.fixture(scope="module")
def scales() -> Candidate:
    return Candidate.load(read_bundle(ZOO / "multiscale-abn-magnetic-tile" / "1"))


def test_all_measures_unless_asked_otherwise() -> None:
    assert [choice.kind.name for choice in choose(None)] == list(measures())
    assert [choice.kind.name for choice in choose(["seeds", "energy"])] == ["seeds", "energy"]


def test_parameters_and_limits_reach_their_measure() -> None:
    settings = ["pointing.tolerance=0", "occlusion_correlation.fill=black"]
    choices = choose(["pointing", "occlusion_correlation"], settings, ["pointing=7"])
    assert [choice.limit for choice in choices] == [7, None]
    assert choices[0].parameters.model_dump() == {"tolerance": 0}
    assert choices[1].parameters.model_dump()["fill"] == "black"


def test_ordered_reaches_those_who_want_to_know() -> None:
    told = {
        choice.kind.name
        for choice in choose(None, ordered=True)
        if getattr(choice.parameters, "ordered", False)
    }
    assert told == {name for name, kind in measures().items() if "ordered" in kind.parameters.model_fields}


@pytest.mark.parametrize(
    ("names", "settings", "limits", "said"),
    [
        (["pointig"], [], [], "there is no measure 'pointig'; there are: .*pointing"),
        (None, ["pointing"], [], "--set pointing: expected MEASURE.NAME=VALUE"),
        (None, ["pointing.tolerance"], [], "--set pointing.tolerance: expected"),
        (None, ["tolerance=3"], [], "--set tolerance=3: expected"),
        (None, ["pointing.tolernce=3"], [], "pointing: tolernce: .*; its parameters: tolerance"),
        (None, ["pointing.tolerance=-1"], [], "pointing: tolerance: .*greater"),
        (None, ["pointing.tolerance=far"], [], "pointing: tolerance: .*number"),
        (None, ["energy.tolerance=3"], [], "energy: tolerance: .*; its parameters: none"),
        (["energy"], ["pointing.tolerance=3"], [], "pointing is set, but not among the measures: energy"),
        (["energy"], [], ["pointing=3"], "pointing is set, but not among"),
        (None, [], ["energy"], "--limit energy: expected MEASURE=N"),
        (None, [], ["energy=0"], "--limit energy=0: expected MEASURE=N"),
        (None, [], ["enrgy=2"], "there is no measure 'enrgy'"),
    ],
)
def test_what_is_wrong_is_said(
    names: list[str] | None, settings: list[str], limits: list[str], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        choose(names, settings, limits)


def test_methods_unless_asked_otherwise(gcm: Candidate, scales: Candidate) -> None:
    assert method_names(gcm) == ["gcm", "gradcam", "contribution", "random", "centre", "edges"]
    assert method_names(scales) == ["attention", "gradcam", "random", "centre", "edges"]


def test_a_method_of_one_model_is_enough(gcm: Candidate, scales: Candidate) -> None:
    require_methods(["contribution", "attention:3", "edges"], [gcm, scales])
    with pytest.raises(ValueError, match="gcm-cifar10/1 has no method 'attention:4'"):
        require_methods(["attention:4"], [gcm, scales])
    with pytest.raises(ValueError, match="the maps of attention have the scales 1 to 3"):
        require_methods(["attention:4"], [scales])
    with pytest.raises(ValueError, match=r"no method 'gradcm'; there are: gcm, .*gradcam"):
        require_methods(["gradcm"], [gcm, scales])


def test_a_plan_lists_what_does_not_suit_with_its_reason(gcm: Candidate, scales: Candidate) -> None:
    choices = choose(["classification", "pointing", "decline"])
    tasks = {
        (task.choice.kind.name, task.name): task for task in plan(scales, choices, ["gcm", "attention:1"])
    }
    assert list(tasks) == [
        ("classification", None),
        *(("pointing", name) for name in ("gcm", "attention:1")),
        *(("decline", name) for name in ("gcm", "attention:1")),
    ]
    assert tasks["classification", None].measure is not None
    assert tasks["classification", None].source is None
    taken = tasks["pointing", "attention:1"]
    assert taken.unsuited is None
    assert taken.settings == {"tolerance": 15.0}
    assert "has no method 'gcm'" in str(tasks["pointing", "gcm"].unsuited)
    assert "same for every class" in str(tasks["decline", "attention:1"].unsuited)
    assert all(task.unsuited is None for task in plan(gcm, choices, ["gcm"]))
