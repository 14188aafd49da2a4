"""Room summaries: what a client needs to name a room without all of its members.

https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync_response-200_roomsummary
"""

from __future__ import annotations

from typing import Any

from homeserver.services.rooms.room import Room

MAX_HEROES = 5


def summarise(room: Room, user_id: str) -> dict[str, Any]:
    """Counts, and heroes: the first five joined or invited members but the reader; those who left if there are none."""
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
    return {
        "m.heroes": heroes or gone,
        "m.joined_member_count": room.joined_count,
        "m.invited_member_count": room.invited_count,
    }
