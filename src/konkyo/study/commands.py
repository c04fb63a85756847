"""``konkyo study``: make a study, invite, see how far it is, close, score and delete it.

Each command imports what it needs when it runs.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from konkyo.study.creating import Compared
    from konkyo.study.store import Store

INSTRUCTION = (
    "Suppose you had to tell what is in the image. Order the maps by how well they show where you would "
    "look for it, the best first."
)

app = typer.Typer(no_args_is_help=True, help="Have people rank maps by which explains best.")

DatabaseOption = Annotated[
    str,
    typer.Option(
        envvar="KONKYO_STUDIES", help="file of SQLite, or URL such as postgresql+psycopg://USER@HOST/NAME"
    ),
]
StudyArgument = Annotated[str, typer.Argument(help="id of the study")]
AddressOption = Annotated[str, typer.Option(help="where subjects reach the service; begins their links")]

_ADDRESS = "http://127.0.0.1:8000"
_VERSIONS = ("konkyo", "numpy", "scipy", "sqlalchemy")
"""Of what computes, for the report."""


@app.command()
def create(
    images: Annotated[str, typer.Option(help="folder of class folders or of images, or cifar10, elpv")],
    title: Annotated[str, typer.Option(help="as subjects read it")],
    subjects: Annotated[int, typer.Option(min=1, help="how many to invite now")],
    database: DatabaseOption,
    bundle: Annotated[
        list[Path] | None, typer.Argument(help="folders of versions, such as zoo/gcm-cifar10/1")
    ] = None,
    bundles: Annotated[list[Path] | None, typer.Option(help="the same as an option, repeatable")] = None,
    methods: Annotated[
        str,
        typer.Option(
            help="one for all bundles, one for each, or all for one, with commas between; own: the bundle's"
        ),
    ] = "own",
    instruction: Annotated[str, typer.Option(help="what subjects are asked to do")] = INSTRUCTION,
    data_root: Annotated[Path | None, typer.Option(help="folder that the images are relative to")] = None,
    split: Annotated[
        Literal["train", "val", "test", "all"] | None, typer.Option(help="which part of the data")
    ] = None,
    classes: Annotated[
        Path | None, typer.Option(help="which classes of the networks the names in the data mean, JSON")
    ] = None,
    number: Annotated[int, typer.Option(min=1, help="images, at most")] = 50,
    per_class: Annotated[int | None, typer.Option(min=1, help="images of one class, at most")] = None,
    target: Annotated[
        Literal["true", "predicted"],
        typer.Option(help="class that maps are for: the true one, or what each network predicts"),
    ] = "true",
    seed: Annotated[int, typer.Option(min=0, help="of the choice of images")] = 0,
    side: Annotated[int, typer.Option(min=32, max=2048, help="longer side of the pictures, pixels")] = 384,
    device: Annotated[str, typer.Option(help="of torch, such as cuda")] = "cpu",
    address: AddressOption = _ADDRESS,
) -> None:
    """Make the maps of every bundle for every image, and a link for each subject."""
    from konkyo.study.creating import Plan, create_study, picture_spec
    from konkyo.training.examples import open_examples

    plan = Plan(title, instruction, target, number, per_class, seed, side)
    if bundle and bundles and len(bundles) > 1:
        raise ValueError("name all bundles as options, or all without")  # their order would be lost
    named = [*(bundles or []), *(bundle or [])]
    if not named:
        raise ValueError("name the bundles to compare, two or more, or one with two methods")
    wanted = [name.strip() for name in methods.split(",")]
    compared = _compared(named, wanted, images, data_root, split, classes, device)
    labels = compared[0].candidate.card.labels
    shown = open_examples(
        images, picture_spec(side), labels, data_root=data_root, split=split, classes=classes
    )
    with _opened(database, create=True) as store:
        study = create_study(store, compared, shown, plan)
        found = store.summary(study)
        typer.echo(f"study {study}: {found.items} images, {found.entries} maps each", err=True)
        _print_links(study, store.invite(study, subjects), address)


@app.command()
def invite(
    study: StudyArgument,
    subjects: Annotated[int, typer.Option(min=1, help="how many more")],
    database: DatabaseOption,
    address: AddressOption = _ADDRESS,
) -> None:
    """Add subjects to a study: a link for each, printed this once."""
    with _opened(database) as store:
        _print_links(study, store.invite(study, subjects), address)


@app.command()
def withdraw(
    study: StudyArgument,
    subject: Annotated[
        int, typer.Argument(help="number of the subject: 1 for the first link that was printed")
    ],
    database: DatabaseOption,
) -> None:
    """Remove a subject with all its answers; the link is no more one into the study."""
    with _opened(database) as store:
        store.withdraw(study, subject)


@app.command("list")
def list_(database: DatabaseOption) -> None:
    """The studies of a database, and how far they are."""
    with _opened(database) as store:
        summaries = store.summaries()
    for found in summaries:
        state = "open" if found.ready else "not ready: being made, or broken off"
        if found.closed:
            state = f"closed {found.closed}"
        typer.echo(
            f"{found.id}  {found.created}  {state}  {found.title!r}: {found.items} images, {found.entries} "
            f"maps each; {found.subjects} subjects, {found.finished} finished; "
            f"{found.done} of {found.items * found.subjects} rankings"
        )


@app.command()
def close(
    study: StudyArgument,
    database: DatabaseOption,
    reopen: Annotated[bool, typer.Option("--reopen", help="take answers again")] = False,
) -> None:
    """Take no more answers; subjects still see what they saved."""
    with _opened(database) as store:
        store.close(study, closed=not reopen)


@app.command()
def delete(
    study: StudyArgument,
    database: DatabaseOption,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Remove a study, its pictures and every answer."""
    with _opened(database) as store:
        found = store.summary(study)
        if not yes:
            typer.confirm(f"Delete {found.title!r} with {found.done} rankings?", abort=True)
        store.delete(study)


@app.command("score")
def score_(
    study: StudyArgument,
    out: Annotated[Path, typer.Option(help="folder of score.json and report.html")],
    database: DatabaseOption,
) -> None:
    """Who is best by the rankings so far, how much subjects agree, and a report of it."""
    from konkyo.study.database import now
    from konkyo.study.report import write_report
    from konkyo.study.scoring import score

    with _opened(database) as store:
        scores = score(
            store.answers(study),
            command=f"konkyo study score {study}",  # without the database, whose URL may hold a password
            date=now(),
            versions={name: importlib.metadata.version(name) for name in _VERSIONS},
        )
        out.mkdir(parents=True, exist_ok=True)
        (out / "score.json").write_text(scores.model_dump_json(indent=2) + "\n", encoding="utf-8")
        write_report(scores, store.picture, out)
    for entry in sorted(scores.entries, key=lambda entry: (entry.place or 0, entry.name)):
        if entry.mean is not None:
            typer.echo(
                f"{entry.place:>3}  {entry.name}: rank score {entry.rank_score}, mean {entry.mean:.2f}, "
                f"variance {entry.variance:.2f}"
            )
    ranked = sum(image.subjects > 0 for image in scores.images)
    typer.echo(f"{ranked} of {len(scores.images)} images were ranked; the report is {out / 'report.html'}")


def _compared(
    bundles: list[Path],
    methods: list[str],
    images: str,
    data_root: Path | None,
    split: Literal["train", "val", "test", "all"] | None,
    classes: Path | None,
    device: str,
) -> list[Compared]:
    from konkyo.evaluation.candidate import Candidate
    from konkyo.models.bundle import read_bundle
    from konkyo.study.creating import Compared
    from konkyo.training.examples import open_examples

    if len(methods) == 1:
        methods = methods * len(bundles)
    if len(bundles) == 1:
        bundles = bundles * len(methods)
    if len(methods) != len(bundles):
        raise ValueError(f"{len(methods)} methods for {len(bundles)} bundles: give one for each, or one")
    loaded = {path: Candidate.load(read_bundle(path), device) for path in dict.fromkeys(bundles)}
    found = []
    for path, method in zip(bundles, methods, strict=True):
        card = loaded[path].card
        examples = open_examples(
            images, card.input, card.labels, data_root=data_root, split=split, classes=classes
        )
        found.append(Compared.make(loaded[path], method, examples))
    return found


@contextmanager
def _opened(database: str, *, create: bool = False) -> Iterator[Store]:
    from konkyo.study.database import Database
    from konkyo.study.store import Store

    with closing(Database(database, create=create)) as found:
        yield Store(found)


def _print_links(study: str, tokens: list[str], address: str) -> None:
    """After ``#``, which a browser sends to nobody."""
    for token in tokens:
        typer.echo(f"{address.rstrip('/')}/studies/{study}#{token}")
