"""The command line: ``konkyo train``, ``export``, ``inspect``, ``serve`` and the rest.

The one place that knows every room. Each command imports what it needs when it runs, so that
``konkyo serve`` starts without torch, and without the time it takes to import.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from konkyo.errors import KonkyoError
from konkyo.evaluation.config import EvaluateConfig
from konkyo.imaging import Interpolation, ResizeMode
from konkyo.options import options_from
from konkyo.service.settings import Settings
from konkyo.study.commands import app as study_commands
from konkyo.training.config import Selection, TrainConfig

if TYPE_CHECKING:
    from konkyo.evaluation.recording import Subject
    from konkyo.export.parity import Parity
    from konkyo.models.bundle import Bundle
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


app.add_typer(study_commands, name="study")


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
    from konkyo.training.exporting import export_checkpoint

    bundle, parity = export_checkpoint(
        checkpoint,
        out,
        data=data,
        data_root=data_root,
        licence=licence,
        citation=citation,
        name=name,
        version=version,
        force=force,
        warn=lambda message: typer.echo(message, err=True),
    )
    _say_written(bundle, parity)


def _say_written(bundle: Bundle, parity: Parity | None) -> None:
    from konkyo.models.describe import accuracy

    for comparison in parity.comparisons if parity else ():
        typer.echo(f"parity, {comparison}")
    typer.echo(f"accuracy: {accuracy(bundle.card)}")
    typer.echo(f"{bundle.path}: {bundle.card.name} {bundle.card.version}, {bundle.digest}")


@app.command("import")
def import_(
    source: Annotated[str, typer.Argument(help="timm:NAME, onnx:FILE and others; see docs/import.md")],
    out: Annotated[Path, typer.Option(help="folder of the version, such as models/deit-small/1")],
    checkpoint: Annotated[Path | None, typer.Option(help="weights, as the source publishes them")] = None,
    head: Annotated[Path | None, typer.Option(help="weights of the linear head, of DINO")] = None,
    labels: Annotated[
        Path | None, typer.Option(help="classes, one a line; default: ImageNet's 1,000")
    ] = None,
    layer: Annotated[str | None, typer.Option(help="where to explain it; default: found by rule")] = None,
    samples: Annotated[Path | None, typer.Option(help="photos to compare the runtimes on")] = None,
    data: Annotated[Path | None, typer.Option(help="class folders, to measure accuracy on")] = None,
    name: Annotated[str | None, typer.Option(help="default: the name of the folder around OUT")] = None,
    version: Annotated[str | None, typer.Option(help="default: the name of OUT")] = None,
    licence: Annotated[str | None, typer.Option(help="of the weights; default: what the source says")] = None,
    half: Annotated[bool, typer.Option("--half", help="store large weights in float16")] = False,
    mean: Annotated[str | None, typer.Option(help="onnx: of red, green, blue, pixels from 0 to 1")] = None,
    std: Annotated[str | None, typer.Option(help="onnx: deviation, likewise")] = None,
    size: Annotated[str | None, typer.Option(help="onnx: WIDTHxHEIGHT, if the file leaves it free")] = None,
    resize: Annotated[
        ResizeMode | None, typer.Option(help="onnx: how images come to that size; default: center_crop")
    ] = None,
    crop_fraction: Annotated[float | None, typer.Option(help="onnx: share of the sides; default: 1")] = None,
    interpolation: Annotated[
        Interpolation | None, typer.Option(help="onnx: of the resizing; default: bicubic")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace a bundle that is there")] = False,
) -> None:
    """Turn a network that was trained elsewhere into a bundle to serve."""
    from konkyo.converters.importing import Files, import_network
    from konkyo.converters.preparation import Preparation
    from konkyo.evaluation.accuracy import measure_accuracy

    bundle, parity = import_network(
        source,
        out,
        Files(checkpoint, head, labels, samples, data),
        command=_command(),
        measure=lambda served, photos: measure_accuracy(served, photos, photos.labels),
        preparation=Preparation(mean, std, size, resize, crop_fraction, interpolation),
        layer=layer,
        name=name,
        version=version,
        licence=licence,
        half=half,
        force=force,
    )
    if cut := source.startswith("onnx:") and bundle.card.arguments.get("without"):
        typer.echo(f"the final {cut} is cut off: what is served are the logits before it")
    _say_written(bundle, parity)


@app.command()
def relist(
    bundles: Annotated[list[Path], typer.Argument(help="folders of versions, such as zoo/gcm-cifar10/1")],
) -> None:
    """List anew in the cards of bundles the methods their networks can be asked for."""
    from konkyo.export.folder import list_methods

    for path in bundles:
        found = list_methods(path)
        typer.echo(f"{path}: {', '.join(item.method for item in found.card.methods)}; {found.digest}")


@app.command()
def dissect(
    bundle: Annotated[Path, typer.Argument(help="folder of a version, such as zoo/gcm-cifar10/1")],
    data: Annotated[
        Path, typer.Option(help="folder of images/NAME.jpg and masks/CONCEPT/NAME.png, or COCO's panoptic")
    ],
    out: Annotated[Path | None, typer.Option(help="file to write; default: into the bundle")] = None,
    quantile: Annotated[float, typer.Option(help="share of a unit's activations that are its top")] = 0.005,
    threshold: Annotated[float, typer.Option(help="IoU over which a unit has a name")] = 0.05,
) -> None:
    """Name the neurons of a network by what they are active on, for explanations in words."""
    from collections import Counter

    from konkyo.evaluation.concepts import open_concepts
    from konkyo.evaluation.dissection import dissect
    from konkyo.export.neurons import write_neurons
    from konkyo.models.bundle import read_bundle
    from konkyo.models.loading import load_explained

    found = read_bundle(bundle)
    images = open_concepts(data)
    classifier = load_explained(found).classifier
    dissection = dissect(classifier, images, found.card.input, quantile=quantile, progress=True)
    names = dissection.names(threshold)
    for concept, number in Counter(item.concept for item in names.neurons.values()).most_common():
        typer.echo(f"{number:>5}  {concept}")
    if out is None:
        out = write_neurons(found, names).path
    else:
        out.write_text(names.model_dump_json(indent=2) + "\n", encoding="utf-8")
    typer.echo(
        f"{len(names.neurons)} of {len(dissection.iou)} neurons of {names.layer} have a name, "
        f"by {len(images):,} images; with the masks of other images {dissection.by_chance(threshold)} would"
    )
    typer.echo(f"the names are in {out}")


@app.command()
@options_from(EvaluateConfig)
def evaluate(
    bundles: Annotated[
        list[Path], typer.Argument(help="folders of versions, such as zoo/gcm-cifar10/1; compared")
    ],
    out: Annotated[Path, typer.Option(help="folder of the report")],
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="parameter of a measure, MEASURE.NAME=VALUE, repeatable"),
    ] = None,
    limit: Annotated[
        list[str] | None, typer.Option(help="the most images for a dear measure, MEASURE=N, repeatable")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="begin anew, also where records are")] = False,
    **settings: Any,
) -> None:
    """Ask whether maps are true: measure models and their explanations, and write a report.

    `konkyo measures` lists the measures and methods. Started again after whatever ended it, it goes on
    where it stopped. Exit code 75: a signal came.
    """
    from konkyo.evaluation.evaluating import evaluate as measure
    from konkyo.evaluation.looking import Viewer
    from konkyo.evaluation.planning import choose
    from konkyo.evaluation.report import write_report

    config = EvaluateConfig(**settings)
    choices = choose(config.named("measures"), setting or (), limit or ())  # before anything is read
    subjects = _subjects(bundles, config)
    if config.ordered or subjects[0].examples.ordered:
        choices = choose(config.named("measures"), setting or (), limit or (), ordered=True)
    try:
        results = measure(subjects, choices, config, out, command=_command(), restart=restart)
    except KeyboardInterrupt:
        typer.echo("interrupted; start it again to go on", err=True)
        raise typer.Exit(75) from None
    for item in results.data.skipped:
        typer.echo(f"skipped, cannot be read: {item}")
    for measured in results.measures:
        if measured.unsuited:
            by = f", {measured.source}" if measured.source else ""
            typer.echo(f"not taken: {measured.measure} of {measured.candidate}{by}: {measured.unsuited}")
    typer.echo(
        f"{results.data.images:,} images, maps of {results.data.explained:,}: the report is in "
        f"{write_report(results, Viewer(subjects), out)}"
    )


def _subjects(bundles: list[Path], config: EvaluateConfig) -> list[Subject]:
    """The models, each with the data as its network sees it."""
    from konkyo.evaluation.candidate import Candidate
    from konkyo.evaluation.evaluating import device_of
    from konkyo.evaluation.recording import Subject
    from konkyo.models.bundle import read_bundle
    from konkyo.training.examples import open_examples

    device = device_of(config.device)
    found = [read_bundle(path) for path in bundles]
    return [
        Subject(
            Candidate.load(bundle, device),
            open_examples(
                config.data,
                bundle.card.input,
                bundle.card.labels,
                data_root=config.data_root,
                split=config.split,
                fold=config.fold,
                seed=config.seed,
                masks=None if config.masks is None else Path(config.masks),
                classes=None if config.classes is None else Path(config.classes),
            ),
        )
        for bundle in found
    ]


@app.command("measures")
def list_measures(
    bundles: Annotated[
        list[Path] | None, typer.Argument(help="folders of versions, whose methods are listed too")
    ] = None,
) -> None:
    """List what `konkyo evaluate` can measure, with every parameter; of bundles their methods."""
    from konkyo.evaluation.listing import lines
    from konkyo.models.bundle import read_bundle

    for line in lines(read_bundle(path).card for path in bundles or ()):
        typer.echo(line)


@app.command()
def inspect(
    bundle: Annotated[Path, typer.Argument(help="folder of a version, such as zoo/gcm-cifar10/1")],
    raw: Annotated[bool, typer.Option("--json", help="print the card as it is in the file")] = False,
) -> None:
    """Verify a bundle and print its card."""
    from konkyo.models.bundle import CARD, read_bundle
    from konkyo.models.describe import lines

    found = read_bundle(bundle)
    if raw:
        typer.echo((bundle / CARD).read_text(encoding="utf-8"), nl=False)
        return
    typer.echo(f"{found.card.name} {found.card.version}, {found.digest}, every file as in the card\n")
    for title, value in lines(found.card):
        typer.echo(f"{title:<13} {value}".rstrip())


@app.command()
def key(
    name: Annotated[str, typer.Argument(help="who will have it; appears in audit records")],
    scope: Annotated[list[str], typer.Option(help="what it is for, repeatable: predict, explain, admin")],
    file: Annotated[Path | None, typer.Option(help="file of keys to append its hash to")] = None,
) -> None:
    """Make an API key: the key on stdout, this once; its hash goes into the file, or to stderr."""
    from konkyo.service.keys import append_key, make_key

    secret, made = make_key(name, scope)
    if file is None:
        typer.echo(made.line, err=True)
    else:
        append_key(file, made)
    typer.echo(secret)


@app.command()
@options_from(Settings)
def serve(**settings: Any) -> None:
    """Serve the bundles of a repository; every option is also a variable KONKYO_NAME."""
    from konkyo.service import server

    raise typer.Exit(server.serve(Settings(**settings)))


_SCORING = (
    *("repository", "engine", "device", "threads", "max_batch", "gradient_batch", "perturbation_batch"),
    *("max_perturbations", "max_body_bytes", "max_buffered_bytes", "max_pixels", "max_render_pixels"),
    *("workers", "log_level", "log_format"),
)
"""The settings that mean something without a server."""


@app.command()
@options_from(Settings, exclude=[name for name in Settings.model_fields if name not in _SCORING])
def score(
    images: Annotated[Path, typer.Argument(help="folder of images, with those below it")],
    out: Annotated[Path, typer.Option(help="folder of the results, not among the images")],
    bundle: Annotated[Path | None, typer.Option(help="folder of a version, .../NAME/VERSION")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="or NAME of the repository, its highest version, or NAME/VERSION"),
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="maps too, as by :explain")] = False,
    method: Annotated[str | None, typer.Option(help="explanation; default: the model's own")] = None,
    maps: Annotated[
        Literal["png", "npy", "none"] | None, typer.Option(help="how they are written; default: png")
    ] = None,
    overlay: Annotated[str | None, typer.Option(help="picture to write; default: none")] = None,
    top_k: Annotated[int, typer.Option(help="classes listed, best first")] = 5,
    parameter: Annotated[
        list[str] | None, typer.Option(help="any other of :explain, NAME=VALUE, repeatable")
    ] = None,
    shards: Annotated[int, typer.Option(help="processes that share the images")] = 1,
    shard: Annotated[int, typer.Option(help="which of them this is, from 0")] = 0,
    **settings: Any,
) -> None:
    """Score a folder of images without a server: a line of JSON for each, and the maps as files.

    Started again after whatever ended it, it goes on where it stopped. Exit code 75: a signal came, and
    images are left.
    """
    from konkyo.service.scoring.orders import ENCODINGS, Orders, find_bundle, read_options
    from konkyo.service.scoring.running import run

    if (bundle is None) == (model is None):
        raise ValueError("give --bundle or --model")
    configured = Settings(**settings)
    given = {"top_k": top_k, "method": method, "map": maps and ENCODINGS[maps], "overlay": overlay}
    options = read_options(explain, given, parameter or ())
    path = bundle.absolute() if bundle else find_bundle(configured.repository, str(model))
    summary = run(Orders(images, out, path, options, shards, shard), configured)
    typer.echo(summary)
    raise typer.Exit(summary.exit_code)


@app.command()
def health(
    live: Annotated[bool, typer.Option("--live", help="ask whether it lives, not if it is ready")] = False,
    seconds: Annotated[float, typer.Option(help="how long the answer may take")] = 4,
) -> None:
    """Ask the server on this machine, by the variables KONKYO_NAME it was started with: 0 if it is ready."""
    from konkyo.service.health import ask_health

    ask_health(Settings(), "/livez" if live else "/readyz", seconds)


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
