"""Which server a request comes from: its signature over method, path, both names and the body.

https://spec.matrix.org/v1.19/server-server-api/#request-authentication
"""

from __future__ import annotations

import asyncio

from homeserver.http.request import Request
from homeserver.services.errors import Forbidden, MatrixError
from matrix.request_authentication import Authorization, parse_authorization, verify_request
from matrix.signatures import VerifyKey

MAX_SIGNATURES = 8
VERIFY_IN_THREAD_FROM_BYTES = 64 * 1024


class Unauthorized(MatrixError):
    """401 M_UNAUTHORIZED: the request is not, or not rightly, signed."""

    def __init__(self, message: str) -> None:
        super().__init__(401, "M_UNAUTHORIZED", message)


async def authenticate_origin(request: Request) -> str:
    """The server that signed the request; reads the body, which the signature covers.

    1. What the headers claim, before anything is read or fetched.
    2. The body, within the bounds of the configuration.
    3. The keys: from memory, or fetched, which is limited by address since anybody may claim to be anybody.
    4. One good signature is enough; the server is alive then, and counted against its own limit.

    Raises Unauthorized, Forbidden, LimitExceeded, NotJson, TooLarge.
    """
    server = request.server
    if not server.config.federation.enabled:
        raise Forbidden("This server does not federate")
    claims = _claims(request)
    content = await request.signed_content()
    destination = server.config.server_name
    for claim in claims:
        key = await _find_key(request, claim)
        if key is None:
            continue
        arguments = (claim, key, request.method, request.target)
        if _is_large(request):
            is_valid = await asyncio.to_thread(verify_request, *arguments, destination=destination, content=content)
        else:
            is_valid = verify_request(*arguments, destination=destination, content=content)
        if is_valid:
            server.network.destinations.has_signed(claim.origin)
            server.rate_limits.check("federation", claim.origin)
            return claim.origin
    raise Unauthorized(f"No valid signature of {claims[0].origin}")


def _claims(request: Request) -> list[Authorization]:
    """The signatures that come with a request, all of one server and for this one. Raises Unauthorized."""
    headers = request.header_values("Authorization")
    if not headers:
        raise Unauthorized("The request is not signed: no Authorization header")
    if len(headers) > MAX_SIGNATURES:
        raise Unauthorized(f"More than {MAX_SIGNATURES} Authorization headers")
    try:
        claims = [parse_authorization(header) for header in headers]
    except ValueError as error:
        raise Unauthorized(f"The Authorization header cannot be read: {error}") from None
    if any(claim.origin != claims[0].origin for claim in claims):
        raise Unauthorized("The request claims to come from several servers")
    server_name = request.server.config.server_name
    if any(claim.destination not in (None, server_name) for claim in claims):
        raise Unauthorized(f"The request is for another server than {server_name}")
    return claims


async def _find_key(request: Request, claim: Authorization) -> VerifyKey | None:
    """The key, which has to be valid now: old keys sign no requests."""
    server = request.server
    now = server.clock()
    key = server.network.keys.known_key(claim.origin, claim.key_id, valid_at_ms=now)
    if key is None:
        server.rate_limits.check("federation", f"unknown key from {request.address}")
        found = await server.network.keys.verify_keys(claim.origin, [claim.key_id], valid_at_ms=now)
        key = found.get(claim.key_id)
    return key


def _is_large(request: Request) -> bool:
    length = request.headers.get("Content-Length", "")
    return not length.isdigit() or int(length[:10]) >= VERIFY_IN_THREAD_FROM_BYTES
