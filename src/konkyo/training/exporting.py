"""From a checkpoint to a bundle: ``konkyo export``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from konkyo.evaluation.accuracy import measure_accuracy
from konkyo.export.bundle import Origin, write_bundle
from konkyo.export.parity import Parity
from konkyo.models.bundle import Bundle
from konkyo.models.registry import as_network, build
from konkyo.models.timm_net import TimmNet
from konkyo.training.checkpoint import load
from konkyo.training.config import TrainConfig
from konkyo.training.data import ImageData, Images
from konkyo.training.errors import DataError
from konkyo.training.sources import open_data


def export_checkpoint(
    checkpoint: Path,
    out: Path,
    *,
    data: str | None = None,
    data_root: Path | None = None,
    licence: str | None = None,
    citation: str | None = None,
    name: str | None = None,
    version: str | None = None,
    force: bool = False,
    warn: Callable[[str], None],
) -> tuple[Bundle, Parity | None]:
    """Write the bundle of a checkpoint, with the accuracy on the test split where that is at hand.

    Args:
        checkpoint: ``best.ckpt`` of a run.
        out: folder of the version.
        data: to measure the accuracy on; default: the run's own, if it is here.
        data_root: where it is; default: where the run found it.
        licence: of the data; default: what its reader knows.
        citation: likewise.
        name: see ``write_bundle``, as the rest.
        version: likewise.
        force: likewise.
        warn: told why the accuracy is not measured.

    Raises:
        CheckpointError: there is none that can be read.
        DataError: the data asked for is not there.
        ValueError: it has other classes or sizes than the checkpoint.
        BundleError: see ``write_bundle``.
    """
    state = load(checkpoint)
    config = TrainConfig.model_validate(state["config"])
    network = build(config.arch, 2, **config.arch_args)
    origin = Origin(
        architecture=config.arch,
        # What was found about a network of timm need not be found again whenever it is loaded.
        arguments=network.arguments() if isinstance(network, TimmNet) else config.arch_args,
        labels=tuple(state["labels"]),
        method=as_network(network).explanation,
        data=state["data"]["name"],
        licence=licence or state["data"]["licence"],
        citation=citation or state["data"].get("citation"),
        command=state["command"],
        epochs=len(state["history"]),
        resize_mode=config.resize_mode,
    )
    samples = state["samples"].numpy()
    asked = {key: str(value) for key, value in (("data", data), ("data_root", data_root)) if value}
    found = None
    try:
        found = open_data(config.model_copy(update=asked))
    except DataError as error:
        if asked:
            raise
        warn(f"accuracy is not measured: {error}")
    measure = None
    if found is not None:
        test = _test_split(found, origin.labels, samples.shape[1:])
        measure = partial(measure_accuracy, images=test.pixels, labels=test.labels, ordered=found.ordered)
    return write_bundle(
        out, state["model"], samples, origin, name=name, version=version, measure=measure, force=force
    )


def _test_split(found: ImageData, labels: tuple[str, ...], shape: tuple[int, ...]) -> Images:
    if found.labels != labels:
        raise ValueError(f"{found.name} has other classes than the checkpoint: {', '.join(found.labels)}")
    if found.test.pixels.shape[1:] != shape:
        raise ValueError(f"{found.name} has images of {found.test.pixels.shape[1:]}, not {shape}")
    return found.test
