"""What users can do here: https://spec.matrix.org/v1.19/client-server-api/#capabilities-negotiation"""

from __future__ import annotations

from homeserver.http.request import Request, Result, Route
from matrix.room_versions import ROOM_VERSIONS


async def get_capabilities(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3capabilities"""
    moderation = {"m.account_moderation": {"suspend": True, "lock": True}} if request.requester.is_admin else {}
    return {
        "capabilities": {
            "m.change_password": {"enabled": True},
            "m.room_versions": {
                "default": request.server.config.rooms.default_version,
                "available": dict.fromkeys(ROOM_VERSIONS, "stable"),
            },
            "m.profile_fields": {"enabled": True},
            "m.set_displayname": {"enabled": True},
            "m.set_avatar_url": {"enabled": True},
            "m.3pid_changes": {"enabled": request.server.email is not None},
            "m.get_login_token": {"enabled": True},
            **moderation,
        }
    }


ROUTES = [
    Route("GET", "/_matrix/client/v3/capabilities", "getCapabilities", get_capabilities, limited=True),
]
