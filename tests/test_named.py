"""What is found by name."""

from __future__ import annotations

import pytest

from konkyo.named import Named


def test_items_are_found_sorted_and_a_name_is_taken_once() -> None:
    planets: Named[int] = Named("konkyo.perturbation", "planet")
    planets.add("mars", 4)
    planets.add("earth", 3)
    assert list(planets.all().items()) == [("earth", 3), ("mars", 4)]
    with pytest.raises(ValueError, match="planet 'mars' is registered twice"):
        planets.add("mars", 5)
    assert planets.all()["mars"] == 4
