"""What a user's membership in a room was at any event: `unsigned.membership`.

https://spec.matrix.org/v1.19/client-server-api/#room-event-format
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.room import Room

MAX_MEMBER_EVENTS = 100
"""How far back a user's memberships are looked at: they come and go, and change their profile, more often than that
only for the sake of it. What was before is left out then."""


class MembershipHistory(NamedTuple):
    """A user's memberships from the positions on at which each began, the oldest first.

    `is_whole`: before the first of them they had none.
    """

    positions: Sequence[int] = ()
    memberships: Sequence[str] = ()
    is_whole: bool = False

    def at(self, position: int) -> str | None:
        """The membership at an event, with what the event changes; None if it is not known."""
        number = bisect_right(self.positions, position)
        if number:
            return self.memberships[number - 1]
        return "leave" if self.is_whole else None


UNKNOWN = MembershipHistory()


async def load_membership_history(
    events: EventCache, room: Room, user_id: str, back_to: int = -(2**63)
) -> MembershipHistory:
    """A user's memberships in a room, at least as far back as a position: of who has long been there, one is read."""
    positions: list[int] = []
    memberships: list[str] = []
    position = room.state.get(("m.room.member", user_id))
    while position is not None and len(positions) < MAX_MEMBER_EVENTS:
        event = (await events.load([position]))[position]
        membership = event.pdu.content.get("membership")
        positions.append(position)
        memberships.append(membership if isinstance(membership, str) else "leave")
        if position <= back_to:
            return MembershipHistory(positions[::-1], memberships[::-1])
        # Branches of a room may come together in another order than they came in.
        position = event.replaces if event.replaces is not None and event.replaces < position else None
    return MembershipHistory(positions[::-1], memberships[::-1], is_whole=position is None)
