"""The server's side of TLS: certificate, key, and whose certificates callers must bring."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from konkyo.service.settings import Settings

logger = logging.getLogger(__name__)

Stamp = tuple[int, int, int]
"""What changes with a file: its inode, size and time."""


class Certificates:
    """The files in the settings, and the context they make; TLS 1.2 at least.

    Raises:
        ValueError: they cannot be read, or do not belong together.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stamps = self._look()
        self.context = self._make()

    def refresh(self) -> None:
        """Take what has changed on the disk for the connections to come; what is wrong stays out.

        An authority of callers is added, never taken away: that takes a restart.
        """
        stamps = self._look()
        if stamps == self._stamps:
            return
        self._stamps = stamps
        try:
            self._make()  # by itself first: the context in use must not get a key without its certificate
            self._load(self.context)
        except ValueError as error:
            logger.error("the certificates that were there stay in use: %s", error)
        else:
            logger.info("certificates read again")

    def _make(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        self._load(context)
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        certificate, key = self._settings.tls_certificate, self._settings.tls_key
        assert certificate is not None
        assert key is not None
        try:
            context.load_cert_chain(certificate, key, _no_password)
        except OSError as error:  # ssl.SSLError is one
            raise ValueError(f"tls_certificate {certificate} with tls_key {key}: {error}") from None
        if self._settings.tls_client_ca is not None:
            try:
                context.load_verify_locations(self._settings.tls_client_ca)
            except OSError as error:
                raise ValueError(f"tls_client_ca {self._settings.tls_client_ca}: {error}") from None
            context.verify_mode = ssl.CERT_REQUIRED

    def _look(self) -> list[Stamp | None]:
        settings = self._settings
        return [_stamp(path) for path in (settings.tls_certificate, settings.tls_key, settings.tls_client_ca)]


def _stamp(path: Path | None) -> Stamp | None:
    try:
        found = path.stat() if path is not None else None
    except OSError:
        return None
    return found and (found.st_ino, found.st_size, found.st_mtime_ns)


def _no_password() -> bytes:
    """OpenSSL would ask for one on the terminal."""
    raise ValueError("tls_key is encrypted; give it without a password")
