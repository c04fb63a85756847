"""Importances of neurons into words, by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from konkyo.errors import BundleError
from konkyo.models.bundle import Bundle
from konkyo.models.card import NEURONS, ModelCard
from konkyo.models.neurons import Neurons, explain_in_text, in_words, read_neurons

IMPORTANCES = np.array([0.5, -1.0, 0.0, 2.0, -0.25, 0.5], np.float32)
NAMES = Neurons.model_validate(
    {
        "layer": "layer4",
        "threshold": 0.05,
        "neurons": {
            "0": {"concept": "fur", "iou": 0.2},
            "2": {"concept": "ear", "iou": 0.3},
            "4": {"concept": "sky", "iou": 0.1},
            "5": {"concept": "fur", "iou": 0.06},
        },
    }
)


def listed(units):
    return [(unit.neuron, unit.importance, unit.rank, unit.concept, unit.iou) for unit in units]


def test_without_names_every_neuron_may_be_picked():
    found = explain_in_text(IMPORTANCES)
    assert listed(found.because) == [
        (3, 2.0, 1, None, None), (0, 0.5, 2, None, None), (5, 0.5, 3, None, None),
    ]  # fmt: skip
    assert listed(found.despite) == [(1, -1.0, 1, None, None), (4, -0.25, 2, None, None)]
    assert in_words(found) == "because of neuron 3, neuron 0, neuron 5; despite neuron 1, neuron 4"


def test_with_names_only_named_ones_are_picked_and_the_rank_tells_what_was_passed_over():
    found = explain_in_text(IMPORTANCES, NAMES)
    assert listed(found.because) == [(0, 0.5, 2, "fur", 0.2), (5, 0.5, 3, "fur", 0.06)]
    assert listed(found.despite) == [(4, -0.25, 2, "sky", 0.1)]
    assert in_words(found) == "because of fur; despite sky"


def test_at_most_so_many():
    found = explain_in_text(IMPORTANCES, top=1)
    assert [unit.neuron for unit in found.because + found.despite] == [3, 1]
    assert explain_in_text(IMPORTANCES, top=0) == explain_in_text(np.zeros(3))


def test_a_neuron_is_never_said_to_speak_for_what_it_does_not():
    found = explain_in_text(np.array([-1.0, 0.0, np.nan, np.inf, -np.inf]))
    assert found.because == ()
    assert [unit.neuron for unit in found.despite] == [0]
    assert in_words(found) == "despite neuron 0"
    assert in_words(explain_in_text(np.zeros(2))) == ""


def test_names_of_another_layer_are_refused():
    with pytest.raises(ValueError, match="neuron 5 of layer layer4 is named, but there are 5"):
        explain_in_text(IMPORTANCES[:5], NAMES)


@pytest.mark.parametrize(
    "change",
    [
        {"neurons": {"-1": {"concept": "fur", "iou": 0.2}}},
        {"neurons": {"0": {"concept": "", "iou": 0.2}}},
        {"neurons": {"0": {"concept": "fur", "iou": 1.2}}},
        {"neurons": {"0": {"concept": "fur"}}},
        {"threshold": 1},
        {"mood": "good"},
    ],
)
def test_what_is_no_list_of_names(change):
    with pytest.raises(ValidationError):
        Neurons.model_validate(NAMES.model_dump() | change)


def bundle_with(path: Path, files: dict) -> Bundle:
    return Bundle(path, ModelCard.model_construct(files=files), "sha256:0")


def test_names_in_a_bundle(tmp_path):
    assert read_neurons(bundle_with(tmp_path, {})) is None
    bundle = bundle_with(tmp_path, {NEURONS: None})
    with pytest.raises(BundleError, match=r"neurons.json: cannot be read: No such file"):
        read_neurons(bundle)
    (tmp_path / NEURONS).write_text(NAMES.model_dump_json())
    assert read_neurons(bundle) == NAMES
    (tmp_path / NEURONS).write_text(json.dumps({"layer": "layer4"}))
    with pytest.raises(BundleError, match="not names of neurons: threshold: Field required") as caught:
        read_neurons(bundle)
    assert caught.value.detail == {"file": NEURONS}
