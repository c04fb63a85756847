"""The dashboard as a file; that its queries find something is tested with a real Prometheus."""

from __future__ import annotations

import json

from scraping import DASHBOARD, expressions, names, panels
from test_rules import known

CONTENT = json.loads(DASHBOARD.read_text())


def test_ids_are_unique() -> None:
    ids = [panel["id"] for panel in CONTENT["panels"]]
    assert len(set(ids)) == len(ids)
    titles = [(panel["title"], panel["type"]) for panel in panels()]
    assert len(set(titles)) == len(titles)


def test_no_panel_lies_on_another_or_beside_the_grid() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in CONTENT["panels"]:
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24, panel["title"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_every_panel_says_what_it_shows_and_in_which_unit() -> None:
    for panel in panels():
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references), panel["title"]


def test_the_source_of_the_data_is_a_variable() -> None:
    variables = {variable["name"]: variable for variable in CONTENT["templating"]["list"]}
    assert list(variables) == ["datasource", "job", "instance", "model"]
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    source = {"type": "prometheus", "uid": "${datasource}"}
    for panel in panels():
        assert panel["datasource"] == source
        assert [target["datasource"] for target in panel["targets"]] == [source] * len(panel["targets"])


def test_every_query_is_of_the_chosen_job_and_of_what_there_is() -> None:
    for title, expression in expressions():
        asked = names(expression)
        assert asked, title
        assert asked <= known(), title
        assert expression.count('job="$job"') >= len(asked), title
