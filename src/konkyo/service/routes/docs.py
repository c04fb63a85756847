"""The interactive documentation, with its own files instead of a CDN's, and a policy that fits it."""

from __future__ import annotations

import base64
import hashlib
import re

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse

from konkyo.service.browsers import PAGE_POLICY

FILES = "/static-offline-docs"
"""Where ``fastapi_offline`` puts them."""

_INLINE = re.compile(r"<script>(.*?)</script>", re.S)


async def docs(request: Request) -> HTMLResponse:
    """Swagger UI; its one inline script is allowed by its hash."""
    app: FastAPI = request.app
    root = request.scope.get("root_path", "")
    page = get_swagger_ui_html(
        openapi_url=f"{root}{app.openapi_url}",
        title=app.title,
        swagger_js_url=f"{root}{FILES}/swagger-ui-bundle.js",
        swagger_css_url=f"{root}{FILES}/swagger-ui.css",
        swagger_favicon_url=f"{root}/static/icon.svg",
    )
    scripts = _INLINE.findall(bytes(page.body).decode())
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    policy = PAGE_POLICY.replace("script-src 'self'", f"script-src 'self' {hashes}")
    page.headers["content-security-policy"] = policy.replace(
        "style-src 'self'", "style-src 'self' 'unsafe-inline'"
    )
    return page


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
