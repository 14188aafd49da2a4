"""Every route of the server-server API, as data."""

from __future__ import annotations

from federation.inbound import (
    content_repository,
    events,
    invites,
    joins,
    keys_query,
    keys_server,
    openid,
    public_rooms,
    query,
    space_hierarchy,
    third_party_invite,
    transactions,
    user_devices,
    user_keys,
    version,
)
from homeserver.http.request import Route

MODULES = (
    content_repository,
    events,
    invites,
    joins,
    keys_query,
    keys_server,
    openid,
    public_rooms,
    query,
    space_hierarchy,
    third_party_invite,
    transactions,
    user_devices,
    user_keys,
    version,
)

ROUTES: list[Route] = [route for module in MODULES for route in module.ROUTES]
