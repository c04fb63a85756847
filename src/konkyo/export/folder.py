"""The folder of a bundle: what it may be called, when it may be written, and that it is written whole."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from konkyo.errors import BundleError
from konkyo.models.abilities import find_methods
from konkyo.models.bundle import CARD, Bundle, read_bundle
from konkyo.models.card import ModelCard, Name, Version, problems
from konkyo.models.loading import load_explained


def identity(name: str, version: str) -> tuple[str, str]:
    """Name and version, if they can be those of a model.

    Raises:
        BundleError: they cannot.
    """
    for kind, value, valid in (("name", name, Name), ("version", version, Version)):
        try:
            TypeAdapter(valid).validate_python(value)
        except ValidationError as error:
            raise BundleError(f"{value!r} cannot be the {kind} of a model: {problems(error)}") from None
    return name, version


def require_free(out: Path, force: bool) -> None:
    """Say so if a bundle may not be written here.

    Raises:
        BundleError: there is something else, or a bundle and no ``force``.
    """
    if not out.exists():
        return
    if not (out / CARD).is_file():
        raise BundleError(f"{out}: there is something here that is not a bundle")
    if not force:
        raise BundleError(f"{out}: there is a bundle here already; use --force to replace it")


@contextmanager
def whole(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that takes its place when the block ends well, and else vanishes."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        folder, old = Path(scratch, "new"), Path(scratch, "old")
        folder.mkdir()
        yield folder
        if out.exists():
            out.rename(old)
        try:
            folder.rename(out)
        except OSError:
            if old.exists():
                old.rename(out)
            raise


def write_card(folder: Path, card: ModelCard) -> None:
    """Write a card into the folder of its bundle, in the place of the one that is there."""
    scratch = folder / f".{CARD}"
    scratch.write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    scratch.replace(folder / CARD)


def list_methods(path: Path) -> Bundle:
    """Write anew into the card of a bundle what its network can be asked for; no other file changes.

    For bundles that were written before a method came to the package.

    Raises:
        BundleError: the bundle is damaged, or has no weights.
    """
    bundle = read_bundle(path)
    card = bundle.card.model_copy(update={"methods": find_methods(load_explained(bundle))})
    write_card(path, card)
    return read_bundle(path)
