"""Bundles on disk: ``<repository>/<model>/<version>/`` with a card and the files it names.

Torch-free: the service reads bundles with this, and export writes them with it.
"""

from __future__ import annotations

import errno
import hashlib
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from konkyo.errors import BundleError
from konkyo.models.card import CANARY, CARD, NEURONS, ONNX, WEIGHTS, FileEntry, ModelCard, problems

__all__ = ["CANARY", "CARD", "NEURONS", "ONNX", "WEIGHTS", "Bundle", "describe_file", "read_bundle"]


@dataclass(frozen=True)
class Bundle:
    """A verified bundle.

    Attributes:
        path: its folder.
        card: what it says of itself.
        digest: ``sha256:...`` of ``card.json``, which holds the digests of all other files.
    """

    path: Path
    card: ModelCard
    digest: str

    def file(self, name: str) -> Path | None:
        """Path of a file of the bundle, or None if the bundle has none of this name."""
        return self.path / name if name in self.card.files else None


def read_bundle(path: Path) -> Bundle:
    """Read the card and verify every file against it.

    Raises:
        BundleError: a file is missing, truncated or altered, or the card is not valid; the message
            names the file.
    """
    card_path = path / CARD
    try:
        _check_kind(card_path)
        text = card_path.read_bytes()
    except OSError as error:
        raise BundleError(f"{card_path}: cannot be read: {error.strerror}", file=CARD) from None
    try:
        card = ModelCard.model_validate_json(text)
    except ValidationError as error:
        raise BundleError(f"{card_path}: not a valid card: {problems(error)}", file=CARD) from None
    for name, expected in card.files.items():
        _verify(path / name, expected)
    return Bundle(path, card, f"sha256:{hashlib.sha256(text).hexdigest()}")


def describe_file(path: Path) -> FileEntry:
    """Digest and length of a file, for the card.

    Raises:
        OSError: it cannot be read.
    """
    _check_kind(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileEntry(sha256=digest, bytes=path.stat().st_size)


def _check_kind(path: Path) -> None:
    """Raises ``OSError`` for a pipe or a device, which might be read without end."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no regular file")


def _verify(path: Path, expected: FileEntry) -> None:
    try:
        found = describe_file(path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}", file=path.name) from None
    if found.bytes < expected.bytes:
        raise BundleError(f"{path}: truncated: {found.bytes} of {expected.bytes} bytes", file=path.name)
    if found != expected:
        raise BundleError(f"{path}: altered: its digest is not the one in the card", file=path.name)
