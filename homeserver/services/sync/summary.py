"""Room summaries: what a client needs to name a room without all of its members.

https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync_response-200_roomsummary
"""

from __future__ import annotations

from typing import Any

from homeserver.services.rooms.room import Room

MAX_HEROES = 5


def summarise(room: Room, user_id: str) -> dict[str, Any]:
    """Counts, and heroes."""
    return {
        "m.heroes": heroes_of(room, user_id),
        "m.joined_member_count": room.joined_count,
        "m.invited_member_count": room.invited_count,
    }


def is_named(room: Room) -> bool:
    """Whether the room has a name or a canonical alias, so that it need not be named after its heroes."""
    for key, field in ((("m.room.name", ""), "name"), (("m.room.canonical_alias", ""), "alias")):
        event = room.pinned.get(key)
        if event is not None and event.pdu.content.get(field):
            return True
    return False


def heroes_of(room: Room, user_id: str) -> list[str]:
    """The first five joined or invited members but the reader; those who left if there are none."""
    heroes: list[str] = []
    gone: list[str] = []
    for member, membership in room.members.items():
        if member == user_id:
            continue
        if membership in ("join", "invite"):
            heroes.append(member)
            if len(heroes) == MAX_HEROES:
                break
        elif len(gone) < MAX_HEROES and membership in ("leave", "ban"):
            gone.append(member)
    return heroes or gone
