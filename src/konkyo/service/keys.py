"""API keys: made here, kept as hashes in a file of lines, and looked up without telling how near one was.

A line is ``NAME SCOPES SHA256``, scopes separated by commas; ``#`` begins a comment::

    inspection-line predict,explain 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08

The hash is a plain SHA-256, neither salted nor slow. Those protect what people choose; a key is 256 random
bits, which nobody finds by trying, and a slow hash before every request would be a way to stop the service.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

logger = logging.getLogger(__name__)

Scope = Literal["predict", "explain", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

PREFIX = "konkyo_"
"""Begins every key, so that tools which look for secrets in files find one."""

MAX_KEYS = 1000
"""Lines of a file; every request is compared with each."""

MAX_FILE_BYTES = 1_000_000

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of a key: everything but the key itself.

    Attributes:
        name: who has it; appears in audit records.
        digest: SHA-256 of the key.
    """

    name: str
    scopes: frozenset[str]
    digest: bytes

    @property
    def line(self) -> str:
        """Its line in the file."""
        scopes = ",".join(scope for scope in SCOPES if scope in self.scopes)
        return f"{self.name} {scopes} {self.digest.hex()}"


def make_key(name: str, scopes: Iterable[str]) -> tuple[str, Key]:
    """A new key, which is nowhere written down, and what goes into the file.

    Raises:
        ValueError: a bad name or scope, or no scope.
    """
    secret = PREFIX + secrets.token_urlsafe(32)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return secret, _key(name, ",".join(scopes), digest)


def parse_keys(text: str) -> list[Key]:
    """The keys of a file.

    Raises:
        ValueError: there is none, or a line is wrong; names the line and never what it says, as a key
            might have been written into it by mistake.
    """
    keys: list[Key] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 3:
            raise ValueError(f"line {number}: expected NAME SCOPES SHA256")
        try:
            keys.append(_key(*words))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
    if not keys:
        raise ValueError("there is no key in it")
    if len(keys) > MAX_KEYS:
        raise ValueError(f"{len(keys)} keys; the limit is {MAX_KEYS}")
    for what, values in (("name", {key.name for key in keys}), ("key", {key.digest for key in keys})):
        if len(values) < len(keys):
            raise ValueError(f"two lines have the same {what}")
    return keys


def match(keys: Sequence[Key], secret: str) -> Key | None:
    """The key that was given, None if it is none of these.

    Compares with every entry, in constant time each, whether or not one has matched: how long it takes
    says nothing about which, or how much of one, was right.
    """
    digest = hashlib.sha256(secret.encode()).digest()
    found = None
    for key in keys:
        if hmac.compare_digest(key.digest, digest):
            found = key
    return found


def append_key(path: Path, key: Key) -> None:
    """Write a key's line into a file, which is made for its owner alone where there is none.

    Raises:
        ValueError: the file cannot be used, or has a key of this name.
    """
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    line = ("" if not old or old.endswith("\n") else "\n") + key.line + "\n"
    try:
        parse_keys(old + line)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    path.touch(mode=0o600)
    with path.open("a", encoding="utf-8") as file:
        file.write(line)


class KeyFile:
    """A file of keys, read again when it has changed.

    It is looked at, not read, before every use: that takes some microseconds, and a key that was taken out
    is out with the next request. Also a link that is turned to another file is seen, as Kubernetes does it
    with a Secret. A new file that cannot be used changes nothing but the log.

    Raises:
        ValueError: at first, where there is nothing to go on with.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = self._look()
        try:
            self._keys = self._read()
        except (OSError, ValueError) as error:
            raise ValueError(f"api_keys_file {path}: {_reason(error)}") from None

    def find(self, secret: str) -> Key | None:
        """The key that was given, by what the file says now."""
        seen = self._look()
        if seen != self._seen:
            self._seen = seen
            try:
                self._keys = self._read()
                logger.info("%s has changed: %d keys", self._path, len(self._keys))
            except (OSError, ValueError) as error:
                logger.error("%s has changed; the old keys stay: %s", self._path, _reason(error))
        return match(self._keys, secret)

    def _look(self) -> tuple[int, ...] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def _read(self) -> list[Key]:
        with self._path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ValueError(f"over {MAX_FILE_BYTES} bytes")
        return parse_keys(content.decode("utf-8-sig"))


def _key(name: str, scopes: str, digest: str) -> Key:
    if not _NAME.fullmatch(name):
        raise ValueError("a name is up to 64 letters, digits, '.', '_' and '-'")
    given = frozenset(scopes.split(","))
    if not given <= set(SCOPES):
        raise ValueError(f"scopes are of {', '.join(SCOPES)}")
    if not _HASH.fullmatch(digest):
        raise ValueError("the third word is not a SHA-256 in lower-case hexadecimal")
    return Key(name, given, bytes.fromhex(digest))


def _reason(error: Exception) -> str:
    """What is wrong with the file, without a word of its content."""
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    return (error.strerror or "unreadable") if isinstance(error, OSError) else str(error)
