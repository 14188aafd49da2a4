"""From a method and a path to a route."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

from homeserver.http.request import Route
from homeserver.services.errors import InvalidParam, MatrixError


class Router:
    """A tree of path segments. Literal segments win over parameters."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._root: dict[str, Any] = {}
        for route in routes:
            node = self._root
            names = []
            for segment in route.path.split("/")[1:]:
                if segment.startswith("{"):
                    names.append(segment[1:-1])
                    segment = "{}"
                node = node.setdefault("/" + segment, {})
            methods = node.setdefault("methods", {})
            assert route.method not in methods, f"{route.method} {route.path} is there twice"
            methods[route.method] = (route, names)

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """The route and the path's parameters, decoded. Raises MatrixError (404 or 405 M_UNRECOGNIZED)."""
        values: list[str] = []
        node = self._walk(self._root, path.split("/")[1:], 0, values)
        if node is None:
            raise MatrixError(404, "M_UNRECOGNIZED", "Unrecognized request")
        found = node["methods"].get("GET" if method == "HEAD" else method)
        if found is None:
            raise MatrixError(
                405, "M_UNRECOGNIZED", "Unrecognized method", headers={"Allow": ", ".join(node["methods"])}
            )
        route, names = found
        return route, dict(zip(names, values, strict=True))

    def _walk(self, node: dict[str, Any], segments: list[str], at: int, values: list[str]) -> dict[str, Any] | None:
        if at == len(segments):
            return node if "methods" in node else None
        segment = segments[at]
        if (child := node.get("/" + segment)) is not None:
            found = self._walk(child, segments, at + 1, values)
            if found is not None:
                return found
        if (child := node.get("/{}")) is not None:
            values.append(_decode_segment(segment))
            found = self._walk(child, segments, at + 1, values)
            if found is not None:
                return found
            values.pop()
        return None


def _decode_segment(segment: str) -> str:
    try:
        text = unquote(segment, errors="strict") if "%" in segment else segment
    except UnicodeDecodeError:
        raise InvalidParam("The path is not UTF-8") from None
    if "\0" in text:
        raise InvalidParam("The path has a NUL character")
    return text


# Paths of older releases of the specification, and of proposals before they became part of it. Clients and tools still
# use them; they are those of today under another name (https://spec.matrix.org/v1.19/client-server-api/#api-versions).
RENAMED = (
    ("/_matrix/client/r0/", "/_matrix/client/v3/"),
    ("/_matrix/client/api/v1/", "/_matrix/client/v3/"),
    ("/_matrix/client/unstable/uk.tcpip.msc4133/profile/", "/_matrix/client/v3/profile/"),
    ("/_matrix/client/unstable/org.matrix.msc2432/", "/_matrix/client/v3/"),
    ("/_matrix/client/unstable/xyz.amorgan.knock/knock/", "/_matrix/client/v3/knock/"),
    ("/_matrix/client/unstable/org.matrix.msc2946/", "/_matrix/client/v1/"),
    ("/_matrix/client/unstable/org.matrix.msc2965/auth_metadata", "/_matrix/client/v1/auth_metadata"),
    ("/_matrix/client/unstable/org.matrix.msc3030/", "/_matrix/client/v1/"),
    ("/_matrix/client/unstable/org.matrix.msc3266/summary/", "/_matrix/client/v1/room_summary/"),
    ("/_matrix/client/unstable/org.matrix.msc3856/", "/_matrix/client/v1/"),
    ("/_matrix/client/unstable/org.matrix.msc3882/login/get_token", "/_matrix/client/v1/login/get_token"),
    ("/_matrix/client/unstable/org.matrix.msc3916/", "/_matrix/client/v1/"),
    ("/_matrix/client/unstable/uk.half-shot.msc2666/user/mutual_rooms", "/_matrix/client/v1/mutual_rooms"),
    ("/_matrix/client/unstable/rooms/", "/_matrix/client/v1/rooms/"),
    ("/_matrix/media/r0/", "/_matrix/media/v3/"),
    ("/_matrix/media/v1/upload", "/_matrix/media/v3/upload"),
    ("/_matrix/media/unstable/fi.mau.msc2246/create", "/_matrix/media/v1/create"),
    ("/_matrix/media/unstable/fi.mau.msc2246/", "/_matrix/media/v3/"),
)


def current_path(path: str) -> str:
    """The path of today for a path of the past."""
    if path.startswith("/_matrix/client/v3/"):  # nearly all
        return path
    for old, new in RENAMED:
        if path.startswith(old):
            return new + path[len(old) :]
    return path
