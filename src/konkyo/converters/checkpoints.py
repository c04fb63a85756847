"""Weights out of the files that people publish, whatever they are wrapped in."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from konkyo.converters.errors import ConversionError

_WRAPPINGS = ("state_dict_ema", "model_ema", "state_dict", "model", "teacher", "student")
"""What weights lie under, beside optimizers and the like, in the order in which they are wanted."""

_PREFIXES = ("module.", "_orig_mod.", "model.")
"""What trainers put before every name: data parallelism, compilation, Lightning."""


def read_state(path: Path) -> dict[str, Tensor]:
    """The state of a network from a safetensors file or a checkpoint of torch.

    Checkpoints are read without running code from them. If there are several networks in it, the
    averaged one is taken before the trained one, and a teacher before its student.

    Raises:
        ConversionError: the file is missing or damaged, needs code to be read, or holds no tensors.
    """
    if path.suffix == ".safetensors":
        try:
            found: Any = load_file(path)
        except (OSError, SafetensorError) as error:
            raise ConversionError(f"{path}: cannot be read: {error}") from None
    else:
        found = _load(path)
    while isinstance(found, Mapping) and not _all_tensors(found):
        inner = next((key for key in _WRAPPINGS if isinstance(found.get(key), Mapping)), None)
        if inner is None:
            break
        found = found[inner]
    if not isinstance(found, Mapping) or not found or not _all_tensors(found):
        raise ConversionError(f"{path}: holds no state of a network, nor one under {', '.join(_WRAPPINGS)}")
    return _without_prefixes(found)


def _load(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # the options of a run, often beside it
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ConversionError(f"{path}: cannot be read: {error.strerror}") from None
    except Exception as error:  # torch raises anything from EOFError to RuntimeError on damaged files
        raise ConversionError(
            f"{path}: not weights that can be read without running code from the file "
            f"({type(error).__name__}); a safetensors file of the same weights will do"
        ) from error


def _all_tensors(found: Mapping[Any, Any]) -> bool:
    return all(isinstance(key, str) and isinstance(value, Tensor) for key, value in found.items())


def _without_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    names = list(state)
    while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in names)), ""):
        names = [name.removeprefix(prefix) for name in names]
    return dict(zip(names, state.values(), strict=True))
