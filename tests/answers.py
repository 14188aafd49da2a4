"""Which errors the server has answered with in this run of the tests: by operation, status and code."""

from __future__ import annotations

from functools import cache
from typing import Any

from homeserver.http.router import Router, current_path
from homeserver.services.errors import MatrixError
from tests.tidy.operations import ROUTES

seen: set[tuple[str, int, str]] = set()


@cache
def _router() -> Router:
    return Router(ROUTES)


def note(method: str, path: str, status: int, body: Any) -> None:
    """Notes an answer, if it is an error of an operation."""
    if not 400 <= status < 500 or not isinstance(body, dict):
        return
    try:
        route, _ = _router().find(method, current_path(path.partition("?")[0]))
    except MatrixError:
        return
    errcode = body.get("errcode")
    seen.add((route.name, status, errcode if isinstance(errcode, str) else ""))
