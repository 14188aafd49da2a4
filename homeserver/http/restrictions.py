"""What users may still do who are locked or suspended: by operation, decided here and nowhere else."""

from __future__ import annotations

from homeserver.http.request import Request
from homeserver.services.errors import UserLocked, UserSuspended

# https://spec.matrix.org/v1.19/client-server-api/#account-locking
ALLOWED_WHILE_LOCKED = frozenset({"logout", "logout_all"})

# https://spec.matrix.org/v1.19/client-server-api/#account-suspension: what is seen of a user by others. Reading,
# leaving, encryption keys, sessions and closing the account are left to them. State is theirs to set no more, also
# where the specification has an endpoint beside it.
FORBIDDEN_WHILE_SUSPENDED = frozenset(
    {
        "ban",
        "createContent",
        "createRoom",
        "deleteProfileField",
        "deleteRoomAlias",
        "inviteUser",
        "joinRoom",
        "joinRoomById",
        "kick",
        "knockRoom",
        "sendMessage",
        "setProfileField",
        "setRoomAlias",
        "setRoomStateWithKey",
        "setRoomVisibilityOnDirectory",
        "unban",
        "upgradeRoom",
        "uploadContent",
        "uploadContentToMXC",
    }
)


async def check_unrestricted(request: Request) -> None:
    """Whether a user who is locked or suspended may do what they ask. Raises UserLocked, UserSuspended."""
    operation = request.route.name
    if request.requester.is_locked and operation not in ALLOWED_WHILE_LOCKED:
        raise UserLocked
    if not request.requester.is_suspended:
        return
    if operation in FORBIDDEN_WHILE_SUSPENDED:
        raise UserSuspended
    if operation == "redactEvent":
        event = await request.server.access.access_event(
            request.requester.user_id, request.params["roomId"], request.params["eventId"]
        )
        if event.pdu.sender != request.requester.user_id:
            raise UserSuspended
