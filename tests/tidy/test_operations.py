"""The routes against the specification's table of operations, and against docs/api.md."""

from __future__ import annotations

import re

import pytest

from federation.inbound.routes import MODULES as FEDERATION_MODULES
from homeserver.client_api.routes import MODULES as CLIENT_MODULES
from homeserver.http.request import Route
from homeserver.http.restrictions import ALLOWED_WHILE_LOCKED, FORBIDDEN_WHILE_SUSPENDED
from tests.tidy import operations
from tests.tidy.operations import ROUTES, TABLE, describe, generate, lost, operation_of, own_routes
from tests.tidy.sources import imports, modules

MODULES = CLIENT_MODULES + FEDERATION_MODULES

DEHYDRATED_DEVICE = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"

# What this server serves beside the specification: probes and pages, the registration that tools use, and a
# proposal that clients use before it is in the specification.
OWN = {
    "GET /",
    "GET /health",
    "GET /ready",
    "GET /metrics",
    "GET /_synapse/admin/v1/register",
    "POST /_synapse/admin/v1/register",
    # Described in the text of the specification, and in none of its OpenAPI files.
    "GET /_matrix/client/v3/auth/{authType}/fallback/web",
    "POST /_matrix/client/v3/auth/{authType}/fallback/web",
    "GET /_matrix/static/client/login/",
    # Where links in mails lead.
    "GET /_matrix/static/client/email/confirm",
    "POST /_matrix/static/client/email/confirm",
    "GET /_matrix/static/client/email/unsubscribe",
    "POST /_matrix/static/client/email/unsubscribe",
    # https://github.com/matrix-org/matrix-spec-proposals/pull/3814
    f"PUT {DEHYDRATED_DEVICE}",
    f"GET {DEHYDRATED_DEVICE}",
    f"DELETE {DEHYDRATED_DEVICE}",
    f"GET {DEHYDRATED_DEVICE}/{{deviceId}}/events",
    f"POST {DEHYDRATED_DEVICE}/{{deviceId}}/events",
}

# https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientversions: a token may come and need not.
AUTH_IS_OPTIONAL = {"getVersions"}

# Operations that differ in one optional parameter share a handler.
SHARED_HANDLERS = {"setAccountDataPerRoom": "set_account_data", "getAccountDataPerRoom": "get_account_data"}


def of_the_specification() -> list[Route]:
    return [route for route in ROUTES if operation_of(route) is not None]


def test_the_table_of_operations_is_whole() -> None:
    keys = [(operation.api, operation.operation_id) for operation in operations.operations()]
    assert len(keys) == len(set(keys))
    assert {api for api, _ in keys} == {"client-server", "server-server", "application-service", "push-gateway"}


def test_what_the_specification_does_not_have_is_meant_to_be_there() -> None:
    assert {f"{route.method} {route.path}" for route in own_routes()} == OWN


@pytest.mark.parametrize("route", of_the_specification(), ids=lambda route: f"{route.method} {route.path}")
def test_a_route_is_as_the_specification_has_it(route: Route) -> None:
    operation = operation_of(route)
    assert operation is not None
    # A path may be shorter than the operation's by a state key, which may be empty.
    assert operation.path == route.path or operation.path.removesuffix("{stateKey}").startswith(route.path)
    if route.name not in AUTH_IS_OPTIONAL:
        assert route.auth == (operation.auth != "none")
        assert route.signed == (operation.auth != "none" and operation.api == "server-server")


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_a_handler_is_named_as_its_operation(route: Route) -> None:
    name = re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", route.name).lower()
    assert route.handler.__name__ == SHARED_HANDLERS.get(route.name, name)


def test_a_handler_says_where_the_specification_has_it() -> None:
    silent = [
        route.handler.__qualname__
        for route in of_the_specification()
        if "https://spec.matrix.org/v1.19/" not in (route.handler.__doc__ or "")
    ]
    assert silent == []


def test_every_module_of_routes_is_listed() -> None:
    assert [route for module in MODULES for route in module.ROUTES] == ROUTES
    for listed in (CLIENT_MODULES, FEDERATION_MODULES):
        assert sorted(module.__name__ for module in listed) == [module.__name__ for module in listed]


def test_families_of_endpoints_know_nothing_of_one_another() -> None:
    families = {module.__name__ for module in MODULES}
    borrowed = [
        f"{module.name} imports {name}"
        for module in modules("homeserver/client_api")
        if module.name.removesuffix(".py").replace("/", ".") in families
        for name in imports(module)
        if name in families or name.rpartition(".")[0] in families
    ]
    assert borrowed == []


def test_what_restricted_users_may_do_is_said_in_operations_of_the_specification() -> None:
    known = {operation.operation_id for operation in operations.operations()}
    assert known >= FORBIDDEN_WHILE_SUSPENDED | ALLOWED_WHILE_LOCKED


def test_no_operation_that_was_served_is_lost() -> None:
    assert lost() == set(), f"no longer served: {describe(lost())}"


def test_the_manual_is_what_the_routes_say() -> None:
    assert TABLE.read_text(encoding="utf-8") == generate(), "run `python -m tests.tidy.operations`"
