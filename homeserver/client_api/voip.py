"""Credentials for the TURN server: https://spec.matrix.org/v1.19/client-server-api/#voice-over-ip"""

from __future__ import annotations

import base64
import hashlib
import hmac

from config.schema import Turn
from homeserver.http.request import Request, Result, Route
from homeserver.services.errors import NotFound


async def get_turn_server(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3voipturnserver

    The specification does not say what a server without one answers; an answer has to name a server, so there is none.
    """
    turn, user_id = request.server.config.turn, request.requester.user_id
    if not turn.uris:
        raise NotFound("This server has no TURN server")
    request.server.rate_limits.check("credentials", user_id)
    username, password = credentials(turn, user_id, request.server.clock())
    return {
        "username": username,
        "password": password,
        "uris": list(turn.uris),
        "ttl": turn.lifetime_ms // 1000,
    }


def credentials(turn: Turn, user_id: str, now_ms: int) -> tuple[str, str]:
    """User name and password: made with the shared secret, good until the time in the name, or the fixed ones.

    https://datatracker.ietf.org/doc/html/draft-uberti-behave-turn-rest-00#section-2.2
    """
    if turn.shared_secret is not None:
        username = f"{(now_ms + turn.lifetime_ms) // 1000}:{user_id}"
        mac = hmac.new(turn.shared_secret.reveal().encode(), username.encode(), hashlib.sha1).digest()
        return username, base64.b64encode(mac).decode()
    assert turn.username is not None, "the configuration is checked"
    assert turn.password is not None, "the configuration is checked"
    return turn.username, turn.password.reveal()


ROUTES = [
    Route("GET", "/_matrix/client/v3/voip/turnServer", "getTurnServer", get_turn_server),
]
