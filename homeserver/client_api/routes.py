"""Every route of the client API, as data."""

from __future__ import annotations

from homeserver.client_api import (
    account_data,
    account_deactivation,
    admin_register,
    capabilities,
    create_room,
    device_management,
    directory,
    ephemeral,
    health,
    login,
    logout,
    password_management,
    profile,
    registration,
    registration_tokens,
    room_membership,
    room_send,
    room_state,
    rooms,
    sync,
    versions,
    wellknown,
    whoami,
)
from homeserver.http.request import Route

MODULES = (
    account_data,
    account_deactivation,
    admin_register,
    capabilities,
    create_room,
    device_management,
    directory,
    ephemeral,
    health,
    login,
    logout,
    password_management,
    profile,
    registration,
    registration_tokens,
    room_membership,
    room_send,
    room_state,
    rooms,
    sync,
    versions,
    wellknown,
    whoami,
)

ROUTES: list[Route] = [route for module in MODULES for route in module.ROUTES]
