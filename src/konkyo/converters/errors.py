"""What may stop an import, said in one sentence that a person can act on."""

from __future__ import annotations

from konkyo.errors import KonkyoError


class ConversionError(KonkyoError):
    """A network cannot be imported; the message names the file or the source, and says why."""

    code = "conversion_error"
