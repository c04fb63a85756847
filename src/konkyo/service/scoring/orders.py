"""What one process of ``konkyo score`` is to do, checked before it begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from konkyo.errors import InvalidParameter, UnknownModel
from konkyo.service.folders import look
from konkyo.service.http import validate
from konkyo.service.long_options import options_for
from konkyo.service.schemas import PredictOptions

MAX_SHARDS = 99_999

ENCODINGS = {"png": "png", "npy": "float32", "none": "none"}
"""How maps are written, and what that is called in a request."""

OF_A_CALLER = ("attention", "deadline_ms", "interim")
"""Parameters that mean nothing for a folder of images."""


@dataclass(frozen=True)
class Orders:
    """What to score.

    Attributes:
        images: folder of the images.
        out: folder of the results.
        bundle: folder of a version of a model, ``.../NAME/VERSION``.
        options: what is asked about each image.
        shards: how many processes share the images.
        shard: which of them this is, from 0.

    Raises:
        ValueError: there is no such shard, or the results would lie among the images.
    """

    images: Path
    out: Path
    bundle: Path
    options: PredictOptions
    shards: int = 1
    shard: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.shard < self.shards <= MAX_SHARDS:
            raise ValueError(f"shard {self.shard} of {self.shards}; from 0, and of {MAX_SHARDS:,} at most")
        if self.out.resolve().is_relative_to(self.images.resolve()):
            raise ValueError(f"{self.out} lies in {self.images}: maps would be scored as images")


def read_options(explain: bool, given: Mapping[str, Any], others: Sequence[str] = ()) -> PredictOptions:
    """What is asked about each image.

    Args:
        explain: ask for maps; asked for too by whatever only ``:explain`` takes.
        given: parameters of a request, None for those that were not given.
        others: more of them, ``NAME=VALUE``.

    Raises:
        InvalidParameter: one is unknown, malformed, out of range, or for a request alone.
    """
    parameters = {name: value for name, value in given.items() if value is not None}
    for item in others:
        name, equals, value = item.partition("=")
        if not equals or name in parameters:
            raise InvalidParameter(f"--parameter {item}: expected NAME=VALUE, each name once")
        parameters[name] = value
    if useless := sorted(parameters.keys() & set(OF_A_CALLER)):
        raise InvalidParameter(f"{useless[0]} is for a request, not for a folder", parameter=useless[0])
    explains = explain or parameters.keys() - PredictOptions.model_fields.keys()
    return validate(options_for(parameters) if explains else PredictOptions, parameters)


def find_bundle(folders: Sequence[Path], model: str) -> Path:
    """Folder of NAME/VERSION, or of the highest version of NAME.

    Raises:
        UnknownModel: there is none.
        OSError: a folder of the repository cannot be read.
    """
    name, _, version = model.partition("/")
    versions = look(folders).models.get(name, {})
    found = [item.path for key, item in versions.items() if item.complete and version in ("", key)]
    if not found:
        raise UnknownModel(f"there is no model {model!r} in {' and '.join(map(str, folders))}")
    return found[-1].absolute()
