"""Events and states for tests of the rules, without hashes and signatures, which the rules do not look at."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from matrix.event_auth import AuthState, Rejection, check_event_auth
from matrix.pdu import Pdu, load_pdu
from matrix.room_versions import ROOM_VERSIONS, EventIdFormat, RoomVersion
from matrix.unpadded_base64 import encode_base64_url_safe

CREATOR = "@creator:example.org"
ALICE = "@alice:example.org"
BOB = "@bob:elsewhere.example"
CAROL = "@carol:third.example"

ALL_VERSIONS = list(ROOM_VERSIONS.values())


def versions(first: int, last: int = 12) -> list[RoomVersion]:
    """The room versions from the first to the last, both included."""
    return [ROOM_VERSIONS[str(number)] for number in range(first, last + 1)]


class Room:
    """A room's state, by default of the creator, who is joined, and nothing else."""

    def __init__(self, room_version: RoomVersion, **create_content: Any) -> None:
        self.room_version = room_version
        self.room_id = "!room:example.org"
        self._count = 0
        content = {"room_version": room_version.identifier, **create_content}
        if room_version.create_has_creator:
            content = {"creator": CREATOR, **content}
        self.create = self.event("m.room.create", CREATOR, content, "")
        self.room_id = self.create.room_id
        self.state: dict[tuple[str, str], Pdu] = {("m.room.create", ""): self.create}
        self.member(CREATOR, "join")

    def event(
        self,
        type: str,
        sender: str = ALICE,
        content: Mapping[str, Any] | None = None,
        state_key: str | None = None,
        **properties: Any,
    ) -> Pdu:
        """An event of this room, which is not added to the state."""
        self._count += 1
        json: dict[str, Any] = {
            "type": type,
            "sender": sender,
            "content": dict(content or {}),
            "depth": self._count,
            "origin_server_ts": self._count,
            "prev_events": [],
            "auth_events": [],
            **properties,
        }
        if not (self.room_version.room_id_is_create_event_hash and type == "m.room.create"):
            json.setdefault("room_id", self.room_id)
        if state_key is not None:
            json["state_key"] = state_key
        event_id = "$" + encode_base64_url_safe(sha256(str(self._count).encode()).digest())
        if self.room_version.event_id_format is EventIdFormat.OPAQUE:
            event_id = json.setdefault("event_id", f"${self._count}:{sender.partition(':')[2]}")
        return load_pdu(json, self.room_version, event_id)

    def set(self, type: str, content: Mapping[str, Any], *, sender: str = CREATOR, state_key: str = "") -> Pdu:
        """Put an event into the state, whether the rules allow it or not."""
        pdu = self.event(type, sender, content, state_key)
        self.state[type, state_key] = pdu
        return pdu

    def member(self, user_id: str, membership: str) -> Pdu:
        """Give the user a membership."""
        return self.set("m.room.member", {"membership": membership}, sender=user_id, state_key=user_id)

    def levels(self, users: Mapping[str, Any] | None = None, **levels: Any) -> Pdu:
        """Set the power levels; the creator has 100 where levels of creators are finite."""
        everyone = dict(users or {})
        if not self.room_version.creators_have_infinite_power:
            everyone.setdefault(CREATOR, 100)
        return self.set("m.room.power_levels", {"users": everyone, **levels})

    def reference(self, pdu: Pdu) -> Any:
        """The event as `prev_events` of the room version name it."""
        if self.room_version.event_references_have_hashes:
            return [pdu.event_id, {"sha256": "hash"}]
        return pdu.event_id

    def check(self, pdu: Pdu, **options: Any) -> Rejection | None:
        """Check the event against the state."""
        state: AuthState = self.state
        return check_event_auth(pdu, state, **options)

    def allows(self, type: str, *arguments: Any, **properties: Any) -> bool:
        """Whether the state allows an event with these arguments of `event`."""
        return self.check(self.event(type, *arguments, **properties)) is None

    def allows_member(
        self, sender: str, target: str, membership: Any, options: Mapping[str, Any] | None = None, **content: Any
    ) -> bool:
        """Whether the state allows the sender to set the membership of the target."""
        pdu = self.event("m.room.member", sender, {"membership": membership, **content}, target)
        return self.check(pdu, **(options or {})) is None
