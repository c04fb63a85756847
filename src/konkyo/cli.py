"""The command line: ``konkyo train``, ``export``, ``inspect``, ``serve`` and the rest.

The one place that knows every room. Each command imports what it needs when it runs, so that
``konkyo serve`` starts without torch, and without the time it takes to import.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from konkyo.errors import KonkyoError
from konkyo.options import options_from
from konkyo.service.settings import Settings
from konkyo.training.config import Selection, TrainConfig

if TYPE_CHECKING:
    from konkyo.models.card import ModelCard
    from konkyo.models.registry import Network
    from konkyo.training.data import ImageData


class _Commands(TyperGroup):
    """Every command: what the caller can put right is one line on stderr and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (KonkyoError, ValueError, OSError) as error:
            typer.echo(f"error: {_one_line(error)}", err=True)
            raise typer.Exit(1) from None


def _one_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        from konkyo.models.card import problems

        return problems(error)
    return " ".join(str(error).split())


app = typer.Typer(cls=_Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def konkyo() -> None:
    """Image classifiers that show why they decided."""


@app.command()
@options_from(TrainConfig, exclude=("arch_args",))
def train(
    out: Annotated[Path, typer.Option(help="folder of the run: checkpoints and curves")],
    preset: Annotated[
        str | None, typer.Option(help="schedule of a paper under the other options, such as amb-all")
    ] = None,
    resume: Annotated[bool, typer.Option(help="go on from OUT/last.ckpt")] = False,
    arch_arg: Annotated[
        list[str] | None, typer.Option(help="constructor argument, NAME=JSON, repeatable")
    ] = None,
    **settings: Any,
) -> None:
    """Train a network on CIFAR-10, ELPV, or on a folder of class folders."""
    from konkyo.training.loop import fit
    from konkyo.training.presets import with_preset
    from konkyo.training.sources import open_data

    config = TrainConfig(arch_args=_arguments(arch_arg or []), **with_preset(preset, settings))
    _build(config)
    data = open_data(config)
    best = fit(config, data, out, resume=resume, command=_command())
    _say_trained(data, best)


def _command() -> str:
    return shlex.join(["konkyo", *sys.argv[1:]])


def _say_trained(data: ImageData, best: Path) -> None:
    if os.environ.get("RANK", "0") == "0":  # torchrun runs this in every process
        for name in data.skipped:
            typer.echo(f"skipped, cannot be read: {name}")
        typer.echo(f"{len(data.train):,} images, {len(data.skipped)} skipped; best epoch: {best}")


@app.command()
@options_from(
    TrainConfig,
    exclude=(
        *("arch", "arch_args", "image_size", "resize_mode", "pretrained", "init", "masks"),
        *("teacher", "teacher_share", "temperature", "map_weight", "freeze_extractor", "pretrain_epochs"),
    ),
)
def finetune(
    bundle: Annotated[Path, typer.Argument(help="folder of a version, such as zoo/abn-magnetic-tile/1")],
    maps: Annotated[Path, typer.Option(help="folder of the expert's maps, mask images CLASS/STEM.png")],
    lambda_map: Annotated[
        list[float], typer.Option(help="weight of the loss against them, repeatable: one, or one a scale")
    ],
    out: Annotated[Path, typer.Option(help="folder of the run: checkpoints and curves")],
    select: Annotated[
        Selection, typer.Option(help="which images the expert is asked about first")
    ] = "map-error",
    share: Annotated[float, typer.Option(help="share of the images the expert is asked about")] = 1.0,
    **settings: Any,
) -> None:
    """Show a network with attention where to look: its branches learn from an expert's maps."""
    from konkyo.models.bundle import read_bundle
    from konkyo.models.loading import load_explained
    from konkyo.training.finetune import ask_expert, finetune_config
    from konkyo.training.loop import fit
    from konkyo.training.sources import open_data

    found = read_bundle(bundle)
    config = finetune_config(found, lambda_map, {**settings, "masks": str(maps)})
    data = ask_expert(open_data(config), load_explained(found).classifier, select, share)
    best = fit(config, data, out, command=_command())
    _say_trained(data, best)


def _arguments(given: list[str]) -> dict[str, Any]:
    arguments = {}
    for item in given:
        name, _, value = item.partition("=")
        try:
            arguments[name] = json.loads(value)
        except ValueError:
            raise ValueError(f"--arch-arg {item}: expected NAME=JSON, such as clipped=true") from None
    return arguments


def _build(config: TrainConfig) -> Network:
    """The untrained network; finds a misspelt name or argument before the data is read."""
    from konkyo.models.registry import as_network, build

    try:
        return as_network(build(config.arch, 2, **config.arch_args))
    except (KeyError, TypeError) as error:
        raise ValueError(error.args[0]) from None


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="best.ckpt of a run")],
    out: Annotated[Path, typer.Option(help="folder of the version, such as zoo/gcm-cifar10/1")],
    name: Annotated[str | None, typer.Option(help="default: the name of the folder around OUT")] = None,
    version: Annotated[str | None, typer.Option(help="default: the name of OUT")] = None,
    data: Annotated[str | None, typer.Option(help="to measure accuracy on; default: the run's own")] = None,
    data_root: Annotated[
        Path | None, typer.Option(help="where it is; default: where the run found it")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="of the data; default: what its reader knows")] = None,
    citation: Annotated[str | None, typer.Option(help="how the data wants to be cited; likewise")] = None,
    force: Annotated[bool, typer.Option("--force", help="replace a bundle that is there")] = False,
) -> None:
    """Turn a checkpoint into a bundle to serve: weights, ONNX graph, canary and card.

    Checks on real images that the graph computes what the network computes, and measures accuracy
    through the graph on the whole test split.
    """
    from konkyo.evaluation.accuracy import measure_accuracy
    from konkyo.export.bundle import Origin, write_bundle
    from konkyo.training.checkpoint import load

    state = load(checkpoint)
    config = TrainConfig.model_validate(state["config"])
    origin = Origin(
        architecture=config.arch,
        arguments=config.arch_args,
        labels=tuple(state["labels"]),
        method=_build(config).explanation,
        data=state["data"]["name"],
        licence=licence or state["data"]["licence"],
        citation=citation or state["data"].get("citation"),
        command=state["command"],
        epochs=len(state["history"]),
        resize_mode=config.resize_mode,
    )
    samples = state["samples"].numpy()
    measured_on = _test_data(config, data, data_root, labels=origin.labels, shape=samples.shape[1:])

    measure = None
    if measured_on is not None:
        test = measured_on.test
        measure = partial(
            measure_accuracy, images=test.pixels, labels=test.labels, ordered=measured_on.ordered
        )
    bundle, parity = write_bundle(
        out,
        state["model"],
        samples,
        origin,
        name=name,
        version=version,
        measure=measure,
        force=force,
    )
    for comparison in parity.comparisons:
        typer.echo(f"parity, {comparison}")
    typer.echo(f"accuracy: {_accuracy(bundle.card)}")
    typer.echo(f"{bundle.path}: {bundle.card.name} {bundle.card.version}, {bundle.digest}")


def _test_data(
    config: TrainConfig,
    data: str | None,
    root: Path | None,
    *,
    labels: tuple[str, ...],
    shape: tuple[int, ...],
) -> ImageData | None:
    """The data asked for, else the run's own; none where that is not here."""
    from konkyo.training.errors import DataError
    from konkyo.training.sources import open_data

    asked = {key: str(value) for key, value in (("data", data), ("data_root", root)) if value}
    try:
        found = open_data(config.model_copy(update=asked))
    except DataError as error:
        if asked:
            raise
        typer.echo(f"accuracy is not measured: {error}", err=True)
        return None
    if found.labels != labels:
        raise ValueError(f"{found.name} has other classes than the checkpoint: {', '.join(found.labels)}")
    if found.test.pixels.shape[1:] != shape:
        raise ValueError(f"{found.name} has images of {found.test.pixels.shape[1:]}, not {shape}")
    return found


@app.command()
def inspect(
    bundle: Annotated[Path, typer.Argument(help="folder of a version, such as zoo/gcm-cifar10/1")],
    raw: Annotated[bool, typer.Option("--json", help="print the card as it is in the file")] = False,
) -> None:
    """Verify a bundle and print its card."""
    from konkyo.models.bundle import CARD, read_bundle

    found = read_bundle(bundle)
    if raw:
        typer.echo((bundle / CARD).read_text(encoding="utf-8"), nl=False)
        return
    typer.echo(f"{found.card.name} {found.card.version}, {found.digest}, every file as in the card\n")
    for title, value in _lines(found.card):
        typer.echo(f"{title:<13} {value}".rstrip())


def _lines(card: ModelCard) -> Iterator[tuple[str, str]]:
    """A card as titles and values."""
    arguments = ", ".join(f"{name}={json.dumps(value)}" for name, value in card.arguments.items())
    spec, shown, origin = card.input, card.explanation, card.provenance
    yield "network", f"{card.architecture}({arguments}), {origin.parameters:,} parameters"
    yield "classes", f"{len(card.labels)}: {', '.join(card.labels)}"
    yield "input", f"{spec.width} x {spec.height}, {spec.resize_mode}, {spec.interpolation}"
    yield "  mean", ", ".join(f"{value:.4g}" for value in spec.mean)
    yield "  deviation", ", ".join(f"{value:.4g}" for value in spec.std)
    number = "one a target" if shown.class_specific else "one for all"
    number = f"{shown.scales} scales" if shown.scales > 1 else number
    edit = ", can be edited" if shown.takes_attention else ""
    yield "explanation", f"{shown.method}: {shown.map_kind}, {number}{edit}"
    yield "  range", f"{shown.range[0]:.4g} to {shown.range[1]:.4g}"
    yield "data", f"{origin.data}, licence: {origin.licence}"
    if origin.citation:
        yield "cite", origin.citation
    yield "trained by", f"{origin.command} ({origin.epochs} epochs)"
    yield "exported", origin.date
    yield "accuracy", _accuracy(card)
    if origin.balanced_accuracy is not None:
        yield "  balanced", f"{100 * origin.balanced_accuracy:.2f} %, the mean of the classes"
    if origin.kappa is not None:
        yield "  kappa", f"{origin.kappa:.3f}, quadratic weighted"
    yield "parity", f"{origin.parity:.1e} of the range"
    for name, entry in card.files.items():
        yield "file", f"{name:<20} {entry.bytes:>12,} bytes  sha256:{entry.sha256}"


def _accuracy(card: ModelCard) -> str:
    origin = card.provenance
    if origin.accuracy is None:
        return "not measured"
    return f"{100 * origin.accuracy:.2f} % of {origin.accuracy_images:,} test images, through model.onnx"


@app.command()
@options_from(Settings)
def serve(**settings: Any) -> None:
    """Serve the bundles of a repository; every option is also a variable KONKYO_NAME."""
    from konkyo.service import server

    raise typer.Exit(server.serve(Settings(**settings)))


@app.command()
def demo(
    image: Annotated[Path | None, typer.Argument(help="default: a sample that ships")] = None,
    out: Annotated[Path, typer.Option(help="where the overlay is saved")] = Path("demo.png"),
    model: Annotated[str, typer.Option(help="name of a shipped model")] = "gcm-cifar10",
) -> None:
    """Start a server, ask it about an image, print the class and save the map over the image."""
    import base64

    from konkyo.service.demo import SAMPLE, ask, running_server

    with running_server("--log-level", "warning") as address:
        answer = ask(address, model, (image or SAMPLE).read_bytes(), "overlay=spotlight&map=none")
    explanation = answer["explanation"]
    out.write_bytes(base64.b64decode(explanation["overlay"]["data"]))
    typer.echo(f"{answer['label']}, score {answer['score']:.2f}")
    for region in (region for region in explanation["regions"] if region["mass"] >= 0.01):
        box = ", ".join(f"{edge:.0f}" for edge in region["box"])
        typer.echo(f"  rests on the box ({box}) with {region['mass']:.0%} of what speaks for it")
    typer.echo(f"the grounds are in {out}")


def main() -> None:
    """Entry point of the ``konkyo`` command."""
    app()
