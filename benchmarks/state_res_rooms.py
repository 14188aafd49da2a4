"""The rooms whose state is resolved: how they come about, and how they fork."""

from __future__ import annotations

from typing import Any

from matrix.event_auth import auth_event_keys
from matrix.pdu import Pdu, build_pdu
from matrix.room_versions import RoomVersion
from matrix.signatures import SigningKey
from matrix.state_res import StateKey

_SERVER_NAME = "bench.test"
_MODERATORS = 100
_PROFILES_PER_FORK = 5


def user(number: int) -> str:
    """The user with a number; 0 is the creator, and moderators follow."""
    return f"@user{number}:{_SERVER_NAME}"


class BenchRoom:
    """A room's events, hashed and signed, by ID, and its state after the last one that was sent."""

    def __init__(self, version: RoomVersion, members: int) -> None:
        """A public room. Moderators have sent invites, a third of the members have changed their names."""
        self.version = version
        self.events: dict[str, Pdu] = {}
        self.state: dict[StateKey, str] = {}
        self._key = SigningKey("1", bytes(32))
        self._room_id = None if version.room_id_is_create_event_hash else f"!room:{_SERVER_NAME}"
        self._last: Pdu | None = None
        self.send("m.room.create", user(0), {"room_version": version.identifier})
        self.send_member(user(0), "join")
        users = {user(number): 50 for number in range(1, _MODERATORS)}
        if not version.creators_have_infinite_power:
            users[user(0)] = 100
        self.levels = {"users": users}
        self.send("m.room.power_levels", user(0), self.levels)
        self.send("m.room.join_rules", user(0), {"join_rule": "public"})
        for number in range(1, members):
            self.send_member(user(number), "join")
            if number % 3 == 0:
                self.send_member(user(number), "join", displayname="Changed")

    def fork(self, number: int, members: int) -> dict[StateKey, str]:
        """The state after what happened in one fork, of which the others know nothing. The room itself stays as it is.

        Names that were changed twice, members who left, a ban and a topic by a moderator; in every fifth fork more
        power to one of the members. All forks know some of the same people.
        """
        state, last = self.state, self._last
        self.state = dict(state)
        moderator, start = user(1 + number % (_MODERATORS - 1)), _MODERATORS + 7 * number
        people = [user(_MODERATORS + (start + index) % (members - _MODERATORS)) for index in range(12)]
        for name in ("first", "second"):
            for person in people[:_PROFILES_PER_FORK]:
                self.send_member(person, "join", displayname=f"{name} in {number}")
        self.send_member(people[-1], "leave")
        self.send_member(people[-2], "ban", moderator)
        if number % 5 == 0:
            self.send("m.room.power_levels", user(0), {"users": self.levels["users"] | {people[0]: 25 + number}})
        self.send("m.room.topic", moderator, {"topic": f"fork {number}"})
        forked = self.state
        self.state, self._last = state, last
        return forked

    def send_member(self, target: str, membership: str, sender: str | None = None, **content: Any) -> None:
        """Add a membership, by default of the sender's own."""
        self.send("m.room.member", sender or target, {"membership": membership, **content}, target)

    def send(self, type: str, sender: str, content: dict[str, Any], state_key: str = "") -> None:
        """Add a state event after the last one."""
        keys = auth_event_keys(self.version, type, sender, state_key, content)
        self._last = build_pdu(
            room_version=self.version,
            room_id=self._room_id,
            type=type,
            sender=sender,
            state_key=state_key,
            content=content,
            prev_events=[] if self._last is None else [self._last.reference],
            auth_events=[self.events[self.state[key]].reference for key in keys if key in self.state],
            depth=1 if self._last is None else self._last.depth + 1,
            origin_server_ts=1_700_000_000_000 + len(self.events),
            server_name=_SERVER_NAME,
            signing_key=self._key,
        )
        self._room_id = self._last.room_id
        self.events[self._last.event_id] = self._last
        self.state[type, state_key] = self._last.event_id
