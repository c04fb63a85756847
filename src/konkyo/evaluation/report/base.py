"""The frame that every report of ours shares: one page with its style inside, and nothing from elsewhere.

A template extends ``base.html.j2`` and fills its blocks. Whatever comes from data, names of files or of
models, is escaped; a page may run no script and ask for nothing, which its Content-Security-Policy tells
the browser as well.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

HERE = Path(__file__).parent


def render(template: Path, styles: Sequence[Path] = (), **values: Any) -> str:
    """A page of a template, which may lie in any folder and extend ``base.html.j2`` of this one.

    The same values give the same bytes.

    Args:
        template: file, such as ``report.html.j2``.
        styles: files of CSS beside ``style.css``.
        values: of its variables; one that is missing is an error.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = "\n".join(path.read_text(encoding="utf-8") for path in (HERE / "style.css", *styles))
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    # A style of our own, not one of the data: Markup, so that its bytes are those of the digest.
    return environment.get_template(template.name).render(style=Markup(style), digest=digest, **values)  # noqa: S704


def data_uri(data: bytes, kind: str) -> str:
    """A file inside a page; ``kind`` such as ``image/png``."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
