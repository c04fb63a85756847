"""Networks of timm: with a checkpoint of one's own or somebody else's, or with timm's weights."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import timm
from timm.models import PretrainedCfg
from torch import Tensor

from konkyo.converters.checkpoints import read_state
from konkyo.converters.converted import IMAGENET, Converted, load_exactly
from konkyo.converters.errors import ConversionError
from konkyo.models.timm_net import TimmNet


def from_timm(name: str, checkpoint: Path | None = None, *, layer: str | None = None) -> Converted:
    """A network by timm's name, with or without its tag.

    Without a checkpoint its weights are timm's, as far as they are on this machine or can be fetched.

    Args:
        name: such as ``convnext_tiny.fb_in1k``; the tag says which preprocessing is meant.
        checkpoint: a state of this network, also as its authors named it, where timm can rename it. Its
            number of classes is free.
        layer: where it is explained.

    Raises:
        ConversionError: there are no such weights, or they are not of this network.
        ValueError: timm has no such classifier, or it has no such layer.
    """
    config = _published(name)
    state, num_classes = None, config.num_classes
    if checkpoint is not None:
        state = read_state(checkpoint)
        num_classes = _classes(state, config)
    elif config.has_weights and num_classes == 0:
        raise ConversionError(
            f"{name} is published without a classifier; give weights with one: --checkpoint"
        )
    network = TimmNet(max(2, num_classes), name=name, layer=layer)
    load_exactly(network.network, _renamed(name, state, num_classes, checkpoint), str(checkpoint or name))
    published = checkpoint is None and config.license
    return Converted(
        "timm",
        network,
        network.input_spec,
        licence=f"weights: {config.license}" if published else "not stated",
        data=IMAGENET if num_classes == 1000 else "not stated",
    )


def _published(name: str) -> PretrainedCfg:
    """What timm knows of the weights of this name; nothing of a network that it does not have."""
    try:
        return (timm.get_pretrained_cfg(name) if timm.is_model(name) else None) or PretrainedCfg()
    except RuntimeError as error:  # a tag that is none
        raise ConversionError(f"{name}: {error}") from error


def _classes(state: Mapping[str, Tensor], config: PretrainedCfg) -> int:
    """Rows of the classifier; where its author named it otherwise, as many as timm's has."""
    heads = [config.classifier] if isinstance(config.classifier, str) else list(config.classifier or ())
    heads += ["head.fc", "head", "fc", "classifier"]
    found = (state[f"{head}.weight"] for head in heads if f"{head}.weight" in state)
    weight = next(found, None)
    return config.num_classes if weight is None else len(weight)


def _renamed(
    name: str, state: dict[str, Tensor] | None, num_classes: int, checkpoint: Path | None
) -> dict[str, Tensor]:
    """The state under timm's names: timm renames what the authors of a network have published."""
    overlay = None if state is None else {"state_dict": state, "num_classes": num_classes, "label_offset": 0}
    try:
        with _quiet():
            found = timm.create_model(
                name, pretrained=True, num_classes=num_classes, pretrained_cfg_overlay=overlay
            )
    except Exception as error:  # whatever fetching raises offline, and renaming on names it did not expect
        reason = (str(error).strip() or type(error).__name__).replace("\n", " ")
        if state is None:
            raise ConversionError(
                f"{name}: its weights are not here and cannot be fetched ({type(error).__name__}); "
                "give a file of them: --checkpoint"
            ) from error
        raise ConversionError(f"{checkpoint}: not the weights of {name}: {reason[:300]}") from error
    return dict(found.state_dict())


@contextmanager
def _quiet() -> Iterator[None]:
    """Not a line for each time that fetching is tried again; one error says it all."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
