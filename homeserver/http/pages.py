"""Pages for people: a template each, with one style, no image and nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from functools import cache
from importlib import resources

from aiohttp import web

from homeserver.http.answer import CORS_HEADERS

PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
PAGES = resources.files("homeserver").joinpath("pages")


@cache
def _resource(name: str) -> str:
    return PAGES.joinpath(name).read_text(encoding="utf-8")


def html_page(
    name: str,
    values: dict[str, str],
    *,
    markup: dict[str, str] | None = None,
    script: str | None = None,
    status: int = 200,
    form_targets: tuple[str, ...] = (),
) -> web.Response:
    """The page of a template. Each `{name}` in it becomes its value: text, or with `markup` HTML that is safe already.

    `script` is the file with the program of the page, the only one that the browser is allowed to run; `form_targets`
    are the origins that the page's form may lead to beside this server.
    """
    parts = {key: html.escape(value) for key, value in values.items()} | (markup or {})
    parts["style"] = _resource("style.css")
    targets = " ".join(("'self'", *form_targets))
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; form-action {targets}; base-uri 'none'; frame-ancestors 'none'"
    )
    if script is not None:
        parts["script"] = _resource(script)
        digest = base64.b64encode(hashlib.sha256(parts["script"].encode()).digest()).decode()
        policy += f"; script-src 'sha256-{digest}'; connect-src 'self'"
    # In one go: what stands for a name may itself look like one.
    page = PLACEHOLDER.sub(lambda found: parts.get(found[1], found[0]), _resource(name))
    headers = {**CORS_HEADERS, "Content-Security-Policy": policy}
    return web.Response(text=page, content_type="text/html", headers=headers, status=status)
