"""Images whose answers are known without a server: decoded and classified here, one at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chaos import files
from konkyo.imaging import decode, open_image
from konkyo.models.bundle import Bundle, read_bundle
from konkyo.service.answers import softmax
from konkyo.service.canary import to_input
from konkyo.service.engines import make_engine
from konkyo.service.engines.base import Engine, Float32
from konkyo.service.settings import ZOO, Settings


@dataclass(frozen=True)
class Known:
    """A file and what the network says of it: logits (N,) and the map of the predicted class (h, w)."""

    data: bytes
    label: str
    score: float
    logits: Float32
    map: Float32


def known(model: str, count: int, side: int = 64, format_: str = "JPEG") -> list[Known]:
    """So many different images, for one of the bundles that ship."""
    bundle = read_bundle(ZOO / model / "1")
    engine = make_engine(bundle, Settings(engine="onnx", device="cpu", threads=1))
    return [_answer(bundle, engine, _file(number, side, format_)) for number in range(count)]


def _file(number: int, side: int, format_: str) -> bytes:
    return files.file(files.picture(side, side, 1000 + number).convert("RGB"), format_)


def _answer(bundle: Bundle, engine: Engine, data: bytes) -> Known:
    pixels, _ = to_input(bundle.card, decode(open_image(data)))
    outputs = engine.run(pixels[None], np.array([[-1]]))
    logits = outputs.logits[0]
    best = int(logits.argmax())
    score = float(softmax(logits)[best])
    return Known(data, bundle.card.labels[best], score, logits, outputs.maps[0, 0])
