import pytest
from pydantic import ValidationError

from konkyo.models.card import ModelCard, problems

ENTRY = {"sha256": "0" * 64, "bytes": 1}
CARD = {
    "name": "parts",
    "version": "1",
    "architecture": "gcm",
    "arguments": {"clipped": True},
    "labels": ["good", "bad"],
    "input": {"width": 32, "height": 16, "mean": [0, 0, 0], "std": [1, 1, 1]},
    "explanation": {
        "method": "gcm", "map_kind": "class_weight_map", "class_specific": True, "range": [-1.5, 2],
    },
    "provenance": {
        "data": "parts", "licence": "CC0", "command": "konkyo train", "date": "2025-01-31",
        "parameters": 7, "epochs": 2, "parity": 1e-6,
    },
    "canary": {"file": "canary.png", "logits": [0.25, -1]},
    "files": {"model.onnx": ENTRY, "canary.png": ENTRY},
}  # fmt: skip


def test_a_card_survives_json():
    card = ModelCard.model_validate(CARD)
    assert card.input.resize_mode == "center_crop"
    assert card.provenance.accuracy is None
    assert ModelCard.model_validate_json(card.model_dump_json()) == card


def test_what_older_cards_do_not_say_of_their_maps():
    explanation = ModelCard.model_validate(CARD).explanation
    assert (explanation.takes_attention, explanation.scales) == (False, 1)


METHOD = {"method": "gcm", "map_kind": "class_weight_map", "class_specific": True, "needs": "graph"}


def test_older_cards_list_no_methods_and_newer_ones_the_explanation_among_others():
    assert ModelCard.model_validate(CARD).methods == ()
    other = {"method": "rise", "map_kind": "saliency_map", "class_specific": True, "needs": "predictions"}
    card = ModelCard.model_validate(CARD | {"methods": [METHOD, other]})
    assert [(item.method, item.needs) for item in card.methods] == [("gcm", "graph"), ("rise", "predictions")]
    assert ModelCard.model_validate_json(card.model_dump_json()) == card


def test_what_a_network_from_elsewhere_does_not_know():
    origin = {key: value for key, value in CARD["provenance"].items() if key not in ("epochs", "parity")}
    found = ModelCard.model_validate(CARD | {"provenance": origin}).provenance
    assert (found.epochs, found.parity) == (None, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ["good", "good"]}, "labels repeat"),
        ({"methods": [METHOD, METHOD]}, "methods repeat"),
        ({"methods": [{**METHOD, "method": "cam"}]}, "the explanation gcm is not among the methods"),
        ({"methods": [{**METHOD, "needs": "luck"}]}, "methods.0.needs: Input should be 'graph', 'weights'"),
        ({"labels": ["good"]}, "labels: Tuple should have at least 2 items"),
        ({"labels": ["good", "bad", "ugly"]}, "logits and the labels differ in number"),
        ({"canary": {"file": "other.png", "logits": [0, 1]}}, "canary other.png is not among the files"),
        ({"files": {"canary.png": ENTRY}}, "neither model.onnx nor weights.safetensors"),
        ({"files": {"../model.onnx": ENTRY}}, "files.../model.onnx.[key]: String should match"),
        ({"name": "Up Per"}, "name: String should match"),
        ({"version": "v1"}, "version: String should match"),
        ({"format": "konkyo/2"}, "format: Input should be 'konkyo/1'"),
        ({"mood": "good"}, "mood: Extra inputs are not permitted"),
        ({"input": {**CARD["input"], "width": 0}}, "input.width: Input should be greater than or equal to 1"),
        ({"explanation": {**CARD["explanation"], "scales": 3}}, "several scales cannot be class-specific"),
        (
            {"explanation": {**CARD["explanation"], "scales": 0}},
            "explanation.scales: Input should be greater",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(change, message):
    with pytest.raises(ValidationError) as caught:
        ModelCard.model_validate(CARD | change)
    assert message in problems(caught.value)
    assert "\n" not in problems(caught.value)
