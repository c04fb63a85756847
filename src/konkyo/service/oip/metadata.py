"""What a model takes and gives, in the words of the protocol."""

from __future__ import annotations

from typing import Any

from konkyo.models.card import ModelCard
from konkyo.service.model import Model

PLATFORMS = {"onnx": "onnxruntime_onnx", "torch": "pytorch"}
"""Names of the protocol for what runs a model, by engine; others go by their own."""

VARIES = -1


def metadata(model: Model, versions: list[str]) -> dict[str, Any]:
    """Name, versions, platform, and the tensors that go in and out.

    Raises:
        NotReady: the model is not loaded.
    """
    card = model.bundle.card
    engine = model.engine.name
    return {
        "name": model.name,
        "versions": versions,
        "platform": PLATFORMS.get(engine, engine),
        "inputs": _inputs(card, takes_attention=any(method.takes_attention for method in model.methods)),
        "outputs": [
            _tensor("logits", "FP32", VARIES, len(card.labels)),
            _tensor("probabilities", "FP32", VARIES, len(card.labels)),
            _tensor("label", "BYTES", VARIES),
            _tensor("map", "FP32", VARIES, VARIES, VARIES, VARIES),
            _tensor("overlay", "BYTES", VARIES),
        ],
    }


def _inputs(card: ModelCard, *, takes_attention: bool) -> list[dict[str, Any]]:
    optional = {"parameters": {"optional": True}}
    inputs = [
        _tensor("image", "UINT8", VARIES, card.input.height, card.input.width, 3),
        _tensor("image_bytes", "BYTES", VARIES),
        {**_tensor("targets", "INT64", VARIES, VARIES), **optional},
    ]
    if takes_attention:
        inputs.append({**_tensor("attention", "FP32", VARIES, VARIES, VARIES), **optional})
    return inputs


def _tensor(name: str, datatype: str, *shape: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape)}
