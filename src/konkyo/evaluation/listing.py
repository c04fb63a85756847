"""The measures and methods there are, in words, for ``konkyo measures``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from pydantic_core import to_jsonable_python

from konkyo.evaluation.measures import measures
from konkyo.evaluation.sources import source_names
from konkyo.models.card import ModelCard

WANTS = {
    "nothing": "of the model",
    "predicted": "of the map of the predicted class",
    "truth": "of the map of the true class",
    "marked": "of the map of each thing that is marked",
    "top5": "of the maps of the five likeliest classes",
    "all": "of the maps of all classes",
}


def lines(cards: Iterable[ModelCard]) -> Iterator[str]:
    """A line for each measure and parameter, and the methods of models."""
    for name, kind in measures().items():
        yield f"{name}: {kind.title}, {WANTS[kind.wants]} ({kind.reference})"
        for parameter, field in kind.parameters.model_fields.items():
            default = json.dumps(to_jsonable_python(field.get_default(call_default_factory=True)))
            yield f"    {name}.{parameter}={default}: {field.description}"
    for card in cards:
        yield f"methods of {card.name}/{card.version}: {', '.join(source_names(card))}"
