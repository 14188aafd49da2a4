"""Which operations of the specification are served: the table in docs/api.md, made from the routes.

`python -m tests.tidy.operations` writes it anew. tests/data/operations.tsv has the specification's side: an operation
a line, as the OpenAPI files of Matrix 1.19 have them.
"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from typing import NamedTuple

from federation.inbound.routes import ROUTES as FEDERATION_ROUTES
from homeserver.client_api.routes import ROUTES as CLIENT_ROUTES
from homeserver.http.request import Route
from tests.tidy.sources import ROOT

FACTS = ROOT / "tests" / "data" / "operations.tsv"
TABLE = ROOT / "docs" / "api.md"

ROUTES = CLIENT_ROUTES + FEDERATION_ROUTES

APIS = {"client-server": "Client-server API", "server-server": "Server-server API"}
"""The APIs that a homeserver serves, and their headings. The other two it calls."""

TOLD_APART_BY_BODY = {"inviteBy3PID": "inviteUser"}
"""Operations of one method and path with another one, whose route serves both."""


class Operation(NamedTuple):
    """An operation of the specification. `auth` names the kind of authentication, "none" for none."""

    api: str
    file: str
    operation_id: str
    method: str
    path: str
    auth: str
    deprecated: bool
    rate_limited: bool


@cache
def operations() -> tuple[Operation, ...]:
    """All operations of the specification."""
    with FACTS.open(encoding="utf-8", newline="") as file:
        return tuple(
            Operation(
                row["api"],
                row["file"],
                row["operationId"],
                row["method"],
                row["path"],
                row["auth"],
                row["deprecated"] == "yes",
                row["rate_limited"] == "yes",
            )
            for row in csv.DictReader(file, delimiter="\t")
        )


def operation_of(route: Route) -> Operation | None:
    """The operation that a route serves; None for a route of this server's own."""
    for operation in operations():
        if (operation.operation_id, operation.method) == (route.name, route.method) and operation.api in APIS:
            names = re.compile(r"\{\w+\}")
            if names.sub("{}", operation.path).startswith(names.sub("{}", route.path).rstrip("/")):
                return operation
    return None


def own_routes() -> list[Route]:
    """The routes that the specification does not have."""
    return [route for route in ROUTES if operation_of(route) is None]


def served() -> set[Operation]:
    """The operations that have a route."""
    routed = {operation for route in ROUTES if (operation := operation_of(route)) is not None}
    requests = {(operation.operation_id, operation.method, operation.path) for operation in routed}
    return routed | {
        operation
        for operation in operations()
        if (TOLD_APART_BY_BODY.get(operation.operation_id), operation.method, operation.path) in requests
    }


def documented_as_served() -> set[tuple[str, str]]:
    """Method and path of what docs/api.md says is served."""
    rows = re.findall(r"^\| yes \| (?:`\w+`) \| `([A-Z]+) (\S+)` \|", TABLE.read_text(encoding="utf-8"), re.MULTILINE)
    return set(rows)


def lost() -> set[tuple[str, str]]:
    """What docs/api.md says is served and no route serves any more."""
    paths = {(operation.method, operation.path) for operation in served()}
    return documented_as_served() - paths - {(route.method, route.path) for route in ROUTES}


def generate() -> str:
    """The text of docs/api.md."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    is_served = served()
    yield "# What is served"
    yield ""
    yield "<!-- Written by `python -m tests.tidy.operations` from the routes: change those instead. -->"
    yield ""
    yield "Every operation of Matrix 1.19 that a homeserver can be asked for, and whether Weft answers it. A request"
    yield "for one that it does not serve is answered with 404 and `M_UNRECOGNIZED`."
    for api, heading in APIS.items():
        of_api = [operation for operation in operations() if operation.api == api]
        count = sum(operation in is_served for operation in of_api)
        yield from ("", f"## {heading}: {count} of {len(of_api)}", "")
        yield from ("| served | operation | request | |", "| --- | --- | --- | --- |")
        for operation in of_api:
            note = "deprecated" if operation.deprecated else ""
            yield _row(
                "yes" if operation in is_served else "no",
                operation.operation_id,
                operation.method,
                operation.path,
                note,
            )
    yield from ("", "## This server's own", "", "| served | operation | request | |", "| --- | --- | --- | --- |")
    for route in own_routes():
        yield _row("yes", route.name, route.method, route.path, f"listener resource `{route.resource}`")


def _row(is_served: str, name: str, method: str, path: str, note: str) -> str:
    return f"| {is_served} | `{name}` | `{method} {path}` | {note} |".replace("|  |", "| |")


def describe(requests: Iterable[tuple[str, str]]) -> str:
    """Methods and paths in a line."""
    return ", ".join(f"{method} {path}" for method, path in sorted(requests))


def main() -> int:
    """Writes the table, unless that would hide that something is no longer served."""
    if TABLE.exists() and (gone := lost()):
        print(f"no longer served: {describe(gone)}", file=sys.stderr)
        return 1
    TABLE.write_text(generate(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
