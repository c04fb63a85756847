"""Names of neurons, and the textual explanation made of them. Torch-free.

A unit of the layer a network is explained at often stands for something: fur, sky, a wheel. Which
units do, and for what, is measured once (``konkyo dissect``, ``evaluation/dissection.py``) and kept in
the bundle as ``neurons.json``. An explanation in words is then the names of the units a class rests
on most, and of those that speak against it most, by Grad-CAM's weights, which are the importances
of the units (Selvaraju et al., IJCV 2020, section on textual explanations).

Shape legend: C feature channels, the units of the layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, StringConstraints, ValidationError

from konkyo.errors import BundleError
from konkyo.models.bundle import Bundle
from konkyo.models.card import NEURONS, problems

TOP = 5
"""Neurons named for a class, and against it, as in the paper."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class NamedNeuron(_Part):
    """What a unit stands for, and how well: the IoU of where it is active with where the concept is."""

    concept: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    iou: float = Field(ge=0, le=1)


class Neurons(_Part):
    """``neurons.json``: the units of a layer that have a name, by index.

    Attributes:
        layer: path of the module whose output channels are the units.
        threshold: IoU over which a unit got its name.
        neurons: the named units; the others stand for nothing that was looked for.

    Raises:
        ValidationError: a field is missing, unknown, or of the wrong type or range.
    """

    layer: str
    threshold: float = Field(ge=0, lt=1)
    neurons: dict[NonNegativeInt, NamedNeuron]


class NeuronImportance(_Part):
    """One unit in an explanation.

    Attributes:
        neuron: index of the unit.
        importance: Grad-CAM's weight alpha, positive where the unit speaks for the class.
        rank: place among all units that speak for the class, or against it, named or not; 1 is the first.
        concept, iou: its name, and how well it fits; None where the units have no names.
    """

    neuron: int
    importance: float
    rank: int
    concept: str | None = None
    iou: float | None = None


class TextExplanation(_Part):
    """Why a class: the units that speak for it, and those that speak against it; most important first."""

    because: tuple[NeuronImportance, ...]
    despite: tuple[NeuronImportance, ...]


def read_neurons(bundle: Bundle) -> Neurons | None:
    """The names in a bundle; None if it has none.

    Raises:
        BundleError: its ``neurons.json`` cannot be read, or is not of this format.
    """
    path = bundle.file(NEURONS)
    if path is None:
        return None
    try:
        return Neurons.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}", file=NEURONS) from None
    except ValidationError as error:
        raise BundleError(f"{path}: not names of neurons: {problems(error)}", file=NEURONS) from None


def explain_in_text(
    importances: npt.NDArray[np.floating], names: Neurons | None = None, top: int = TOP
) -> TextExplanation:
    """Pick the units that speak most for a class, and most against it.

    With names, only units that have one are picked, since the others say nothing to a person; ``rank``
    tells how many were passed over. A unit of importance 0 speaks neither for nor against, and one
    that is not finite cannot be ranked.

    Args:
        importances: (C,), the map of kind ``neuron_importance`` of one target.
        names: of the units.
        top: at most so many each.

    Raises:
        ValueError: there is a name of a unit there is not: the names are of another layer.

    Example:
        >>> found = explain_in_text(np.array([0.5, -1.0, 2.0]), top=1)
        >>> found.because[0].neuron, found.despite[0].neuron
        (2, 1)
    """
    if names is not None and names.neurons and max(names.neurons) >= len(importances):
        raise ValueError(
            f"neuron {max(names.neurons)} of layer {names.layer} is named, but there are {len(importances)}"
        )
    return TextExplanation(
        because=tuple(islice(_ranked(importances, 1, names), top)),
        despite=tuple(islice(_ranked(importances, -1, names), top)),
    )


def in_words(explanation: TextExplanation) -> str:
    """An explanation as a phrase, each concept once: ``because of fur, ear; despite sky``.

    A unit without a name is called by its index; empty where nothing speaks for or against the class.
    """
    because, despite = (
        ", ".join(dict.fromkeys(unit.concept or f"neuron {unit.neuron}" for unit in units))
        for units in (explanation.because, explanation.despite)
    )
    found = (f"because of {because}" if because else "", f"despite {despite}" if despite else "")
    return "; ".join(filter(None, found))


def _ranked(
    importances: npt.NDArray[np.floating], sign: int, names: Neurons | None
) -> Iterator[NeuronImportance]:
    """The units of one sign, the most important first; of equal ones the first in the layer."""
    signed = sign * np.where(np.isfinite(importances), importances, 0)
    order = np.argsort(-signed, kind="stable")
    for rank, unit in enumerate(order[: np.count_nonzero(signed > 0)].tolist(), start=1):
        named = None if names is None else names.neurons.get(unit)
        if names is None or named is not None:
            yield NeuronImportance(
                neuron=unit,
                importance=float(importances[unit]),
                rank=rank,
                concept=named.concept if named else None,
                iou=named.iou if named else None,
            )
